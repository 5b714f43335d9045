import shlex

from recu import plan
from recu.experiments import load_experiments
from recu.params import load_datasets, load_defaults, load_suite, load_suites
from recu.paths import PARAMS_DIR
from recu.released import load_released


def demo():
    return load_experiments(PARAMS_DIR, ("demo",))


def test_cores_are_shared_among_the_trainings_that_can_run_side_by_side():
    experiments = demo()
    roots = sum(not experiment.parents for experiment in experiments.values())
    assert plan.threads_per_training(1, experiments) == 1
    assert plan.threads_per_training(4 * roots + 1, experiments) == 4


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


def test_missing_teacher_weights_say_where_they_come_from(tmp_path):
    assert plan.missing_teachers(demo().values(), "") == {}, "its teacher is trained by the suite"
    sota = load_experiments(PARAMS_DIR, ("sota",)).values()
    assert "torchvision downloads its weights" in plan.missing_teachers(sota, "")["resnet34"]
    file = tmp_path / "resnet34.pth"
    assert "does not exist" in plan.missing_teachers(sota, str(file))["resnet34"]
    file.touch()
    assert plan.missing_teachers(sota, str(file)) == {}


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
    facts = plan.released_facts("released", suite, released, load_datasets(PARAMS_DIR))
    assert [file.id for file in facts.files] == list(released)
    assert facts.datasets["imagenet"].published_as == "ImageNet" and set(facts.datasets) == {"cifar10", "imagenet"}


def test_options_survive_both_the_shell_and_snakemake():
    text = plan.as_options(data_dir="my data; {x} 'q'", gpus="")
    assert shlex.split(text.format()) == ["--data_dir", "my data; {x} 'q'", "--gpus", ""]
