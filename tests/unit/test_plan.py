import shlex

from recu import plan
from recu.experiments import load_experiments
from recu.params import load_datasets, load_defaults, load_suite
from recu.paths import PARAMS_DIR


def demo():
    return load_experiments(PARAMS_DIR, ("demo",))


def test_cores_are_shared_among_the_trainings_that_can_run_side_by_side():
    experiments = demo()
    roots = sum(experiment.init_from is None for experiment in experiments.values())
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


def test_an_alias_is_usable_as_a_target_name():
    for experiment in demo().values():
        assert "/" not in plan.alias(experiment)
        assert shlex.quote(plan.alias(experiment)) == plan.alias(experiment)


def test_missing_data_says_where_to_get_it(tmp_path):
    datasets = load_datasets(PARAMS_DIR)
    assert plan.missing_data(demo(), datasets, tmp_path, {}) == {}, "digits ship with a dependency"
    cifar = load_experiments(PARAMS_DIR, ("cifar10",))
    assert "cifar-10-python.tar.gz" in plan.missing_data(cifar, datasets, tmp_path, {})["cifar10"]
    assert plan.missing_data(cifar, datasets, tmp_path, {"cifar10": "local.tar.gz"}) == {}


def test_options_survive_both_the_shell_and_snakemake():
    text = plan.as_options(data_dir="my data; {x} 'q'", gpus="")
    assert shlex.split(text.format()) == ["--data_dir", "my data; {x} 'q'", "--gpus", ""]
