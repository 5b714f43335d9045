import hashlib
import json
from pathlib import Path

import pytest

from recu.base.errors import ConfigError
from recu.experiment import resolving
from recu.experiment.params import all_suites, load_datasets, load_defaults, validate_model
from recu.experiment.paths import PARAMS_DIR
from recu.experiment.resolving import Experiment, load_experiments, parse_experiment, resolve_suite
from recu.experiment.schema import Hyperparameters, Suite


@pytest.fixture(scope="module")
def defaults():
    return load_defaults(PARAMS_DIR)


@pytest.fixture(scope="module")
def datasets():
    return load_datasets(PARAMS_DIR)


def suite(**changes) -> Suite:
    data = {
        "title": "T",
        "description": "D",
        "dataset": "digits",
        "seeds": [1, 2],
        "methods": {"vanilla": {"epochs": 4}, "finetune": {"epochs": 2}},
        "rows": [{"model": "resnet20_1w1a"}],
    }
    return validate_model(data | changes, Suite, "test")


def resolve(defaults, datasets, **changes):
    return resolve_suite("test", suite(**changes), defaults, datasets)


def test_rows_times_methods_times_seeds_parents_first(defaults, datasets):
    assert list(resolve(defaults, datasets)) == [
        f"test/digits/cifar.resnet20_1w1a/{method}/seed{seed}" for seed in (1, 2) for method in ("vanilla", "finetune")
    ]


def test_whether_weights_are_measured_is_part_of_no_hash(defaults, datasets):
    hashes = [
        [found.spec_hash for found in resolve(defaults, datasets, **changes).values()]
        for changes in ({}, {"diagnostics": False})
    ]
    assert hashes[0] == hashes[1]


def test_images_of_a_size_that_the_network_cannot_take_are_refused_before_anything_runs(defaults, datasets):
    larger = datasets | {"digits": datasets["digits"].model_copy(update={"image_size": 64})}
    assert resolve(defaults, larger), "resnet20 takes every size"
    with pytest.raises(
        ConfigError, match=r"params/suites/test\.yaml: vgg_small_1w1a, vanilla: model .* takes images of 32 to 39"
    ):
        resolve(defaults, larger, rows=[{"model": "vgg_small_1w1a"}])


def test_layers_override_in_the_documented_order(defaults, datasets):
    found = resolve(
        defaults,
        datasets,
        seeds=[1],
        hyperparameters={"lr": 0.5, "batch_size": 8, "epochs": 9},
        rows=[
            {
                "model": "resnet20_1w1a",
                "hyperparameters": {"batch_size": 16, "momentum": 0.5},
                "methods": {"vanilla": {"momentum": 0.1}},
            }
        ],
    )
    vanilla, finetune = (experiment.hyperparameters for experiment in found.values())
    assert (vanilla.epochs, finetune.epochs) == (4, 2), "suite's method over suite"
    assert (vanilla.lr, finetune.lr) == (0.5, 0.5), "suite over the method's default"
    assert (vanilla.batch_size, vanilla.momentum, finetune.momentum) == (16, 0.1, 0.5), "row, then row's method"
    assert vanilla.weight_decay == defaults.hyperparameters.weight_decay


# The paper's recipes: optimizer, lr, lr_type, warm_up, weight decay, its groups, epochs, batches.
RECIPES = {
    "cifar": ("sgd", 0.1, "cos", True, 5e-4, "all", 600, 256, 128),
    "imagenet": ("sgd", 0.1, "cos", True, 1e-4, "imagenet", 200, 512, 256),
    "reactnet": ("adam", 1e-3, "cos", True, 0.0, "imagenet", 256, 512, 256),
    "birealnet": ("adam", 2.5e-3, "linear_start", False, 1e-5, "birealnet", 128, 512, 256),
}


@pytest.mark.parametrize("family", RECIPES)
def test_a_family_has_the_papers_recipe(defaults, family):
    recipe = defaults.recipe(family)
    names = ("optimizer", "lr", "lr_type", "warm_up", "weight_decay", "weight_decay_groups", "epochs", "batch_size")
    assert tuple(recipe[name] for name in (*names, "batch_size_test")) == RECIPES[family]
    assert (recipe["momentum"], recipe["tau_min"], recipe["tau_max"]) == (0.9, 0.85, 0.99)


def test_the_papers_three_tables_are_rows_of_suites():
    """Batch, test batch and epochs of every published row; methods of the comparison start from their first stage."""
    found = load_experiments(PARAMS_DIR, ("cifar10", "imagenet", "sota"))
    settings = {}
    for experiment in found.values():
        recipe = experiment.hyperparameters
        key = (experiment.dataset, experiment.model, experiment.method)
        settings[key] = (recipe.batch_size, recipe.batch_size_test, recipe.epochs)
    for model in ("resnet18_1w1a", "resnet20_1w1a", "vgg_small_1w1a"):
        for method in ("vanilla", "finetune"):
            assert settings["cifar10", model, method] == (256, 128, 600)
    for model in ("resnet18_1w1a", "resnet34_1w1a"):
        for method in ("vanilla", "finetune"):
            assert settings["imagenet", model, method] == (512, 256, 200)
    ours = found["sota/imagenet/reactnet.resnet18_1w1a/two-stage/seed1"]
    linear = found["sota/imagenet/reactnet.resnet18_1w1a/two-stage-linear/seed1"]
    theirs = found["sota/imagenet/birealnet.birealnet18/step2/seed1"]
    for name in ("epochs", "batch_size", "batch_size_test", "lr", "optimizer", "teacher", "weight_decay"):
        assert getattr(ours.hyperparameters, name) == getattr(theirs.hyperparameters, name), name
    assert (ours.hyperparameters.lr_type, linear.hyperparameters.lr_type) == ("cos", "linear")
    assert ours.init_from == linear.init_from == found["sota/imagenet/reactnet.resnet18_1w1a/stage1/seed1"].origin
    assert theirs.init_from == found["sota/imagenet/birealnet.birealnet18/step1/seed1"].origin
    assert found[theirs.init_from.id].hyperparameters.weight_decay == 1e-5


# Of ResNet-20 on CIFAR-10: binariser, stage, epochs, batch size, initial rate, weight decay, warm-up, start.
METHODS = {
    "ir-net": ("ir-net", 2, 400, 128, 0.1, 1e-4, False, None),
    "reste": ("reste", 2, 1000, 256, 0.1, 1e-4, True, None),
    "biper-stage1": ("biper", 1, 600, 256, 0.021, 1.6e-3, True, None),
    "biper": ("biper", 2, 300, 256, 0.0037, 1.6e-4, True, "biper-stage1"),
    "sign": ("sign", 2, 600, 256, 0.1, 5e-4, True, None),
    "vanilla": ("recu", 2, 600, 256, 0.1, 5e-4, True, None),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_the_recipe_of_its_authors(method):
    found = load_experiments(PARAMS_DIR, ("methods",))
    recipe = found[f"methods/cifar10/cifar.resnet20_1w1a/{method}/seed1"].hyperparameters
    names = ("binariser", "stage", "epochs", "batch_size", "lr", "weight_decay", "warm_up", "init_from")
    assert tuple(getattr(recipe, name) for name in names) == METHODS[method]
    assert (recipe.optimizer, recipe.lr_type, recipe.momentum) == ("sgd", "cos", 0.9)
    large = found["methods/cifar10/cifar.resnet18_1w1a/reste/seed2"].hyperparameters
    assert (large.epochs, large.batch_size) == (2000, 96)


def test_biper_as_its_authors_command_runs_starts_from_stage_1_with_another_f(defaults, datasets):
    methods = {"biper-stage1": {}, "biper": {}, "biper-f30": {}}
    first, usual, theirs = resolve(defaults, datasets, dataset="cifar10", seeds=[1], methods=methods).values()
    assert theirs.init_from == usual.init_from == first.origin
    assert theirs.hyperparameters == usual.hyperparameters.model_copy(update={"binariser": "biper-f30"})
    with pytest.raises(ConfigError, match="'biper', this one 'ir-net': its weights are made for the other"):
        other = {"ir-net": {"init_from": "biper-stage1"}}
        resolve(defaults, datasets, dataset="cifar10", methods={"biper-stage1": {}} | other)


def test_methods_with_one_recipe_differ_in_nothing_but_what_binarises():
    found = load_experiments(PARAMS_DIR, ("methods-same-recipe",))
    assert len(found) == 3 * 6 * 3
    usual = found["methods-same-recipe/cifar10/cifar.resnet20_1w1a/vanilla/seed1"].hyperparameters
    own = {"binariser", "stage", "init_from", "epochs"}
    epochs: dict[str, int] = {}
    for experiment in found.values():
        recipe = experiment.hyperparameters
        assert recipe.model_dump(exclude=own) == usual.model_dump(exclude=own)
        if (experiment.model, experiment.seed) == ("resnet20_1w1a", 1):
            epochs[recipe.binariser] = epochs.get(recipe.binariser, 0) + recipe.epochs
    assert epochs == dict.fromkeys(("recu", "ir-net", "reste", "biper", "sign"), 600)


def test_an_ablation_varies_one_thing_a_row_and_names_it():
    few, more = (0.80, 0.90, 0.99), (0.80, 0.85, 0.90, 0.95, 0.99)
    for suite, seeds, taus in (("ablation", 1, few), ("ablation-cifar10", 3, more)):
        found = load_experiments(PARAMS_DIR, (suite,))
        assert len(found) == (6 + len(taus)) * seeds
        recipes = {each.row: each.hyperparameters.model_dump() for each in found.values()}
        usual = recipes.pop(None)
        changes = {
            name: {key: value for key, value in recipe.items() if value != usual[key]}
            for name, recipe in recipes.items()
        }
        fixed = {f"tau-{tau:.2f}": {"tau_min": tau, "tau_max": tau} for tau in taus}
        fixed |= {"tau-0.85": {"tau_max": 0.85}} if 0.85 in taus else {}
        fixed["tau-0.99"] = {"tau_min": 0.99}
        names = {"centred": "recu-centred", "unstandardised": "recu-unstandardised", "b-1": "recu-b1", "b-4": "recu-b4"}
        step1 = {name: {"binariser": binariser} for name, binariser in names.items()}
        assert changes == fixed | {"recu-off": {"tau_min": 1.0, "tau_max": 1.0}} | step1


def test_finetune_starts_from_vanilla_of_the_same_seed_and_its_hash_follows(defaults, datasets):
    before = resolve(defaults, datasets)
    after = resolve(defaults, datasets, methods={"vanilla": {"epochs": 5}, "finetune": {"epochs": 2}})
    name = "test/digits/cifar.resnet20_1w1a/finetune/seed2"
    assert before[name].init_from.id == "test/digits/cifar.resnet20_1w1a/vanilla/seed2"
    assert before[name].hyperparameters == after[name].hyperparameters
    assert before[name].spec_hash != after[name].spec_hash, "another parent is another result"


def test_one_row_changed_leaves_the_others_hash_alone(defaults, datasets):
    rows = [{"model": "resnet20_1w1a"}, {"model": "vgg_small_1w1a"}]
    before = resolve(defaults, datasets, rows=rows)
    rows[1] = {"model": "vgg_small_1w1a", "hyperparameters": {"lr": 0.3}}
    after = resolve(defaults, datasets, rows=rows)
    changed = {name.split("/")[2] for name in before if before[name].spec_hash != after[name].spec_hash}
    assert changed == {"cifar.vgg_small_1w1a"}


def test_a_row_may_take_part_in_some_methods_only(defaults, datasets):
    found = resolve(defaults, datasets, seeds=[1], rows=[{"model": "resnet20_1w1a", "only": ["vanilla"]}])
    assert [experiment.method for experiment in found.values()] == ["vanilla"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "cifar11"}, "unknown dataset 'cifar11'; did you mean 'cifar10'"),
        ({"methods": {"vanila": {}}}, "unknown method 'vanila'; did you mean 'vanilla'"),
        (
            {"rows": [{"model": "resnet21_1w1a"}]},
            "unknown model .*'resnet21_1w1a'; did you mean 'resnet20_1w1a'",
        ),
        ({"rows": [{"model": "resnet20_1w1a", "methods": {"fintune": {}}}]}, "did you mean 'finetune'"),
        (
            {"rows": [{"model": "resnet20_1w1a", "only": ["finetune"]}]},
            "unknown init_from of finetune: 'vanilla'.*has to be a method of this row",
        ),
        (
            {"rows": [{"model": "resnet20_1w1a", "only": ["vanilla"], "methods": {"finetune": {"epochs": 3}}}]},
            "resnet20_1w1a, finetune: `methods` changes it, and `only` leaves it out: name it in `only` too",
        ),
        ({"rows": [{"model": "resnet20_1w1a"}] * 2}, "given twice"),
        ({"methods": {"vanilla": {"init_from": "finetune"}, "finetune": {}}}, "in a circle"),
        ({"methods": {"vanilla": {"tau_min": 0.995}}}, "must not exceed tau_max"),
        ({"methods": {"vanilla": {"teacher": "cifar.resnet18_1w1a/vanilla"}}}, "unknown teacher"),
        ({"methods": {"vanilla": {"init_from": "vanilla"}}}, "in a circle"),
        (
            {"methods": {"vanilla": {}, "finetune": {"batch_size": 359}}},
            "resnet20_1w1a, finetune: batch_size: 359 leaves one of 1437 training images",
        ),
        ({"hyperparameters": {"loader": "dali"}}, "resnet20_1w1a, vanilla: loader 'dali' cannot serve Digits"),
        (
            {"hyperparameters": {"loader": "memory", "augmentation": "rotate_flip"}},
            "loader 'memory' cannot serve Digits",
        ),
        ({"hyperparameters": {"lr_type": "linear_start"}}, "warm_up is not defined for lr_type 'linear_start'"),
        (
            {"methods": {"vanilla": {}, "finetune": {"stage": 1}}},
            "resnet20_1w1a, finetune: init_from: vanilla has stage 2, and a network of stage 1 starts",
        ),
        (
            {"methods": {"vanilla": {}, "finetune": {"binariser": "sign"}}},
            "resnet20_1w1a, finetune: init_from: vanilla has binariser 'recu', this one 'sign'",
        ),
        ({"hyperparameters": {"binariser": "reste", "stage": 1}}, "binariser 'reste' has no stage 1, expected 0 or 2"),
        ({"hyperparameters": {"teacher": "torchvision:resnet34"}}, "has 1000 classes, the dataset has 10"),
        (
            {
                "dataset": "imagenet",
                "rows": [{"model": "resnet18_1w1a"}],
                "hyperparameters": {"teacher": "torchvision:resnet43"},
            },
            "unknown teacher .*did you mean 'resnet34'",
        ),
    ],
)
def test_each_mistake_names_the_file(defaults, datasets, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        resolve(defaults, datasets, **changes)
    assert str(caught.value).startswith("params/suites/test.yaml")


def test_a_teacher_is_an_earlier_row(defaults, datasets):
    rows = [
        {"model": "resnet18_1w1a", "only": ["vanilla"]},
        {
            "model": "resnet20_1w1a",
            "only": ["vanilla"],
            "hyperparameters": {"teacher": "cifar.resnet18_1w1a/vanilla"},
        },
    ]
    teacher, student = resolve(defaults, datasets, seeds=[1], rows=rows).values()
    assert student.teacher.id == teacher.id
    assert student.teacher.spec_hash == teacher.spec_hash


def test_a_teacher_on_another_dataset_is_none(defaults, datasets):
    rows = [
        {"model": "resnet18_1w1a", "only": ["vanilla"], "dataset": "cifar10"},
        {"model": "resnet20_1w1a", "only": ["vanilla"], "hyperparameters": {"teacher": "cifar.resnet18_1w1a/vanilla"}},
    ]
    with pytest.raises(ConfigError, match=r"earlier row on digits.*\(known: \)"):
        resolve(defaults, datasets, rows=rows)


def test_the_weights_of_a_pretrained_teacher_are_part_of_the_experiment(tmp_path):
    def hashes(file: str) -> set[str]:
        found = load_experiments(PARAMS_DIR, ("sota",), file).values()
        return {each.teacher.spec_hash for each in found}

    weights = tmp_path / "resnet34.pth"
    weights.write_bytes(b"one")
    published, one = hashes(""), hashes(str(weights))
    assert one == {hashlib.sha256(b"one").hexdigest()[:16]} != published
    weights.write_bytes(b"two")
    assert hashes(str(weights)) not in (one, published)
    weights.unlink()
    with pytest.raises(ConfigError, match=r"sota.yaml: .*teacher: cannot read .*resnet34.pth \(teacher_weights"):
        hashes(str(weights))


def test_the_canonical_line_comes_back_equal():
    for experiment in load_experiments(PARAMS_DIR, ("demo",)).values():
        assert parse_experiment(experiment.canonical) == experiment
        assert "\n" not in experiment.canonical


def test_a_line_written_before_compilation_was_a_choice_can_be_read():
    experiment = next(iter(load_experiments(PARAMS_DIR, ("demo",)).values()))
    older = json.loads(experiment.canonical)
    del older["hyperparameters"]["compile"]
    assert parse_experiment(json.dumps(older)) == experiment


def test_every_experiment_has_the_hash_that_was_recorded():
    """A result stays valid while its hash does; of an experiment whose parameters change on purpose, record the new."""
    recorded = json.loads((Path(__file__).parent / "hashes.json").read_text())
    found = load_experiments(PARAMS_DIR, tuple(all_suites(PARAMS_DIR)))
    assert {name: found[name].spec_hash for name in recorded} == recorded and len(recorded) == 84


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"batch_size_test": 7}, True),
        ({"loader": "memory"}, True),
        ({"loader": "torchvision"}, False),  # draws its crops otherwise than the loader that `auto` takes
        ({"loader": "torchvision", "augmentation": "rotate_flip"}, False),
        ({"batch_size": 7}, False),
        ({"skip_unreadable": True}, False),
        ({"compile": "kernels"}, False),
        ({"binariser": "recu"}, True),
        ({"binariser": "sign"}, False),
    ],
)
def test_a_hash_sees_what_can_change_a_result(defaults, datasets, changes, same):
    usual, other = (
        next(iter(resolve(defaults, datasets, hyperparameters=recipe).values())) for recipe in ({}, changes)
    )
    assert (other.spec_hash == usual.spec_hash) == same
    assert json.loads(other.canonical)["hyperparameters"]["batch_size_test"] == 128
    assert other.hyperparameters.batch_size_test == changes.get("batch_size_test", 128)


def test_the_loader_that_auto_takes_is_auto(defaults, datasets):
    rotated = {"augmentation": "rotate_flip"}
    named, auto = (
        resolve(defaults, datasets, hyperparameters=rotated | more) for more in ({"loader": "torchvision"}, {})
    )
    assert named == auto


def test_a_hyper_parameter_that_comes_later_changes_no_hash_at_its_default(defaults, datasets, monkeypatch):
    class More(Hyperparameters):
        smoothing: float = 0.0

    class Later(Experiment):
        hyperparameters: More

    monkeypatch.setattr(resolving, "_LATER", resolving.later_defaults(More))
    for experiment in resolve(defaults, datasets).values():
        content = experiment.model_dump(mode="json")
        for smoothing in (0.0, 0.1):
            content["hyperparameters"]["smoothing"] = smoothing
            later = validate_model(content, Later, "test")
            assert (later.spec_hash == experiment.spec_hash) == (smoothing == 0.0)
