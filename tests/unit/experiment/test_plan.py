import json
import shlex
import shutil
from pathlib import Path

import pytest

from recu.base.errors import ConfigError
from recu.experiment import plan
from recu.experiment.params import (
    load_config,
    load_datasets,
    load_defaults,
    load_suite,
    load_suites,
    parse_workflow_config,
)
from recu.experiment.paths import PARAMS_DIR
from recu.experiment.released import load_released
from recu.experiment.resolving import load_experiments
from recu.experiment.suite_facts import SuiteFacts


def demo():
    return load_experiments(PARAMS_DIR, ("demo",))


def test_cores_are_shared_among_the_trainings_that_can_run_side_by_side():
    experiments = demo()
    roots = sum(not experiment.parents for experiment in experiments.values())
    assert plan.threads_per_training(1, experiments) == 1
    assert plan.threads_per_training(4 * roots + 1, experiments) == 4


def test_batch_sizes_are_named_once_by_dataset():
    found = load_experiments(PARAMS_DIR, ("demo", "cifar10")).values()
    assert plan.batch_sizes(found) == ["cifar10:256", "digits:32", "digits:64"]


def test_a_suites_facts_change_with_its_title_and_its_experiments_only():
    suite, experiments = load_suite(PARAMS_DIR, "demo"), demo()
    tables = (load_datasets(PARAMS_DIR), load_defaults(PARAMS_DIR).methods)
    before = plan.suite_facts("demo", suite, experiments, *tables)
    assert before == plan.suite_facts("demo", suite, experiments, *tables)
    assert before != plan.suite_facts("demo", suite.model_copy(update={"title": "Other"}), experiments, *tables)
    _, *rest = experiments
    assert before != plan.suite_facts("demo", suite, {name: experiments[name] for name in rest}, *tables)


def test_an_alias_is_usable_as_a_target_name(tmp_path):
    for job in (*demo().values(), *load_released(PARAMS_DIR, ("released",), tmp_path).values()):
        assert "/" not in plan.alias(job)
        assert shlex.quote(plan.alias(job)) == plan.alias(job)


def test_missing_data_says_where_to_get_it(tmp_path):
    datasets = load_datasets(PARAMS_DIR)
    assert plan.missing_data(["digits"], datasets, tmp_path, {}) == {}, "digits ship with a dependency"
    assert "cifar-10-python.tar.gz" in plan.missing_data(["cifar10", "cifar10"], datasets, tmp_path, {})["cifar10"]
    assert plan.missing_data(["cifar10"], datasets, tmp_path, {"cifar10": "local.tar.gz"}) == {}
    own = {"own": datasets["cifar10-jpeg"].model_copy(update={"obtain": ""})}
    local = "name a local copy: sources: {own: PATH} in params/config.yaml"
    assert plan.missing_data(["own"], own, tmp_path, {}) == {"own": local}


def test_teacher_weights_that_are_not_given_say_where_they_come_from(tmp_path):
    assert plan.missing_teachers(demo().values(), "") == {}, "its teacher is trained by the suite"
    sota = load_experiments(PARAMS_DIR, ("sota",)).values()
    assert "torchvision downloads its weights" in plan.missing_teachers(sota, "")["resnet34"]
    file = tmp_path / "resnet34.pth"
    file.touch()
    assert plan.missing_teachers(sota, str(file)) == {}


def config(**changes):
    return parse_workflow_config(load_config(PARAMS_DIR).model_dump() | changes)


def test_a_plan_holds_the_chosen_suites_of_both_kinds(tmp_path):
    found = plan.load_plan(PARAMS_DIR, config(suites="demo,released", results_dir=str(tmp_path)))
    assert list(found.experiments) == list(demo()) and len(found.released) == 10
    assert found.used_datasets == {"digits", "cifar10", "imagenet"}
    assert list(found.facts()) == ["demo", "released"]
    assert any(note.startswith("released file released/cifar10") for note in found.notes())
    assert list(plan.load_plan(PARAMS_DIR, config(), ("cifar10",)).suites) == ["cifar10"]


@pytest.fixture
def own_params(tmp_path):
    shutil.copytree(PARAMS_DIR, tmp_path / "params")
    return tmp_path / "params"


def edit(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "suites/demo.yaml",
            "batch_size: 32, lr: 0.05",
            "batch_size: 359, lr: 0.05",
            r"demo.yaml: .*: batch_size: 359 leaves one of 1437",
        ),
        ("suites/demo.yaml", "  lr: 0.02", "  lr: 0.02\n  compile: kernels", "compile is 'kernels' and gpus is 'cpu'"),
        ("defaults.yaml", "published_as: vanilla", "published_as: vanila", "did you mean 'vanilla'"),
        (
            "datasets.yaml",
            'published_as: "CIFAR-10"',
            "published_as: CIFAR10",
            "did you mean 'CIFAR-10'.*null for none",
        ),
        (
            "suites/released.yaml",
            "method: vanilla",
            "method: vanila",
            "resnet18-vanilla: method: .*did you mean 'vanilla'",
        ),
    ],
)
def test_what_a_job_would_refuse_is_refused_with_file_and_key(own_params, file, old, new, message):
    edit(own_params / file, old, new)
    with pytest.raises(ConfigError, match=message) as raised:
        plan.load_plan(own_params, config(gpus="cpu", suites=["demo", "released"]))
    assert "\n" not in str(raised.value)


def test_a_source_of_no_dataset_is_refused():
    with pytest.raises(ConfigError, match=r"sources: unknown dataset 'cifra10'; did you mean 'cifar10'"):
        plan.load_plan(PARAMS_DIR, config(sources={"cifra10": "x"}))


def test_prepared_data_tells_how_many_images_there_are(own_params, tmp_path):
    edit(own_params / "datasets.yaml", "train_images: 1437", "train_images: null")
    chosen = config(data_dir=str(tmp_path / "data"))
    plan.load_plan(own_params, chosen)
    manifest = tmp_path / "data/digits/manifest.json"
    manifest.parent.mkdir(parents=True)
    identity = load_datasets(own_params)["digits"].identity()
    manifest.write_text(json.dumps({"identity": identity, "splits": {"train": 1441, "test": 5}}))
    with pytest.raises(ConfigError, match=r"batch_size: 32 leaves one of 1441 .*data/digits.*`recu prepare"):
        plan.load_plan(own_params, chosen)
    manifest.write_text(json.dumps({"identity": identity | {"image_size": 8}, "splits": {"train": 1441, "test": 5}}))
    plan.load_plan(own_params, chosen)
    manifest.write_text("[")
    plan.load_plan(own_params, chosen)


def test_facts_lie_in_a_file_whose_name_changes_with_them(tmp_path):
    facts = plan.load_plan(PARAMS_DIR, config()).facts()["demo"]
    plan.write_facts(tmp_path, facts)
    assert SuiteFacts.model_validate_json(plan.facts_file(tmp_path, facts).read_text()) == facts
    other = facts.model_copy(update={"title": "Other"})
    assert plan.facts_file(tmp_path, other) != plan.facts_file(tmp_path, facts)


def test_missing_released_files_say_where_to_get_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    released = load_released(PARAMS_DIR, ("released",), tmp_path)
    missing = plan.missing_files(released)
    assert len(missing) == len(released) == 10
    assert "authors' README" in missing["released/cifar10/resnet20_1w1a-vanilla.pth.tar"]
    file = tmp_path / "released/cifar10/resnet20_1w1a-vanilla.pth.tar"
    file.parent.mkdir(parents=True)
    file.touch()
    assert len(plan.missing_files(load_released(PARAMS_DIR, ("released",), tmp_path))) == 9


def test_facts_of_released_files_hold_what_their_table_needs(tmp_path):
    suite, released = (
        load_suites(PARAMS_DIR, ("released",))["released"],
        load_released(PARAMS_DIR, ("released",), tmp_path),
    )
    facts = plan.suite_facts("released", suite, released, load_datasets(PARAMS_DIR), {})
    assert [file.id for file in facts.experiments] == list(released) and facts.methods == {}
    assert facts.datasets["imagenet"].published_as == "ImageNet" and set(facts.datasets) == {"cifar10", "imagenet"}


def test_options_survive_both_the_shell_and_snakemake():
    text = plan.as_options(data_dir="my data; {x} 'q'", gpus="")
    assert shlex.split(text.format()) == ["--data_dir", "my data; {x} 'q'", "--gpus", ""]


def test_a_dataset_that_nothing_is_trained_on_needs_its_test_images_only(tmp_path):
    both = plan.load_plan(PARAMS_DIR, config(suites="demo,released", results_dir=str(tmp_path)))
    assert both.only_evaluated_on == {"cifar10", "imagenet"}
    cifar = plan.load_plan(PARAMS_DIR, config(suites="cifar10,released", results_dir=str(tmp_path)))
    assert cifar.only_evaluated_on == {"imagenet"}


def test_what_decides_a_preparation_changes_with_its_entry_and_its_source(tmp_path):
    source = tmp_path / "images"
    source.mkdir()
    places = {"results_dir": str(tmp_path), "data_dir": str(tmp_path / "data")}

    def preparation(**more) -> str:
        return plan.load_plan(PARAMS_DIR, config(suites="cifar10", **places, **more)).preparation("cifar10")

    without, given = preparation(), preparation(sources={"cifar10": str(source)})
    assert without != given and given == preparation(sources={"cifar10": str(source)})
    (source / "new").write_text("x")
    assert preparation(sources={"cifar10": str(source)}) != given
