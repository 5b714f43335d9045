# Shared by all rules: the experiments and released files asked for, wildcard constraints built from them, and every
# get_* function.
import re
import sys
from pathlib import Path

from recu import paths, plan
from recu.config import ReleasedSuite
from recu.errors import RecuError
from recu.experiments import load_experiments
from recu.files import canonical_json
from recu.params import load_datasets, load_defaults, load_suites, parse_workflow_config, suite_names
from recu.released import load_released

PARAMS_DIR = Path("params")

try:
    CONFIG = parse_workflow_config(config)
    CHOSEN = load_suites(PARAMS_DIR, suite_names(CONFIG))
    DATASETS = load_datasets(PARAMS_DIR)
    METHODS = load_defaults(PARAMS_DIR).methods
    EXPERIMENTS = load_experiments(PARAMS_DIR, suite_names(CONFIG))
    # Not declared as inputs, so that planning works without them and a result outlives its file; each one's size and
    # time of modification are part of its job's params instead.
    RELEASED = load_released(PARAMS_DIR, suite_names(CONFIG), Path(CONFIG.results_dir))
except RecuError as error:
    # Snakemake would show a Python exception; its user needs the one line.
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)

SUITES = {name: suite for name, suite in CHOSEN.items() if not isinstance(suite, ReleasedSuite)}
RELEASED_SUITES = {name: suite for name, suite in CHOSEN.items() if isinstance(suite, ReleasedSuite)}
USED_DATASETS = {job.dataset for job in (*EXPERIMENTS.values(), *RELEASED.values())}

DATA_DIR = Path(CONFIG.data_dir)
RESULTS_DIR = Path(CONFIG.results_dir)
REPORTS_DIR = Path(CONFIG.reports_dir)
LOGS_DIR = RESULTS_DIR / "logs"
TRACKING_DIR = RESULTS_DIR / "tracking"

EXPERIMENT_ID = "{suite}/{dataset}/{network}/{method}/seed{seed}"
RELEASED_ID = "{released_suite}/{released_file}"

# `recu` in every command below. Under conda each job's own Python runs the package from the checkout.
USES_CONDA = "conda" in {str(method) for method in workflow.deployment_settings.deployment_method}
shell.prefix(plan.shell_prefix("python" if USES_CONDA else sys.executable, str(workflow.basedir)))

# Options that must not make anything run again, so they are text of the commands and not params.
DATA_OPTIONS = plan.as_options(params_dir=PARAMS_DIR, data_dir=DATA_DIR)
RUN_OPTIONS = plan.as_options(
    params_dir=PARAMS_DIR,
    data_dir=DATA_DIR,
    results_dir=RESULTS_DIR,
    runs_dir=CONFIG.runs_dir,
    tracking_uri=CONFIG.tracking_uri,
    gpus=CONFIG.gpus,
    workers=CONFIG.workers,
)
TEACHER_OPTIONS = plan.as_options(teacher_weights=CONFIG.teacher_weights) if CONFIG.teacher_weights else ""
TRACKING_OPTIONS = plan.as_options(tracking_uri=CONFIG.tracking_uri)
COLLECT_OPTIONS = plan.as_options(results_dir=RESULTS_DIR, runs_dir=CONFIG.runs_dir)
RENDER_RELEASED_OPTIONS = plan.as_options(params_dir=PARAMS_DIR, results_dir=RESULTS_DIR, output_dir=REPORTS_DIR)
RENDER_OPTIONS = plan.as_options(params_dir=PARAMS_DIR, output_dir=REPORTS_DIR)

for dataset, where in plan.missing_data(USED_DATASETS, DATASETS, DATA_DIR, CONFIG.sources).items():
    print(f"note: dataset {dataset} is not here yet: {where}", file=sys.stderr)
for teacher, where in plan.missing_teachers(EXPERIMENTS.values(), CONFIG.teacher_weights).items():
    print(f"note: teacher {teacher}: {where}", file=sys.stderr)
for file, where in plan.missing_files(RELEASED).items():
    print(f"note: released file {file} is not here yet: {where}", file=sys.stderr)


def one_of(values):
    """A wildcard constraint that matches exactly these names, so that a mistyped target fails while planning."""
    return "|".join(sorted(map(re.escape, set(values)))) or "none"


wildcard_constraints:
    suite=one_of(SUITES),
    released_suite=one_of(RELEASED_SUITES),
    tracked_suite=one_of(CHOSEN),
    released_file=one_of(released.name for released in RELEASED.values()),
    dataset=one_of(USED_DATASETS),
    network=one_of(experiment.network for experiment in EXPERIMENTS.values()),
    method=one_of(experiment.method for experiment in EXPERIMENTS.values()),
    seed=r"\d+",


def get_experiment(wildcards):
    """The experiment that the wildcards name."""
    return EXPERIMENTS[EXPERIMENT_ID.format(**wildcards)]


def get_experiment_json(wildcards):
    """All that decides a training's result, as ONE string: Snakemake compares params as a set of unnamed values."""
    return get_experiment(wildcards).canonical


def get_released(wildcards):
    """The released file that the wildcards name."""
    return RELEASED[RELEASED_ID.format(**wildcards)]


def get_released_json(wildcards):
    """All that decides what is measured of a released file, its size and time of modification included."""
    return get_released(wildcards).canonical


def get_released_manifest(wildcards):
    """The prepared data that a released file is measured on."""
    return paths.manifest_file(RESULTS_DIR, get_released(wildcards).dataset)


def get_dataset_json(wildcards):
    """All that decides what preparation makes of a dataset."""
    return canonical_json(DATASETS[wildcards.dataset].model_dump(mode="json"))


def get_source_option(wildcards):
    """`--source PATH` where the user has a local copy, else nothing."""
    source = CONFIG.sources.get(wildcards.dataset)
    return "" if source is None else plan.as_words(source=source)


def get_parents(wildcards):
    """Published metrics, written last, of the experiments whose checkpoints this one starts from or learns from."""
    parents = get_experiment(wildcards).parents
    return [paths.train_folder(RESULTS_DIR, parent.id) / paths.METRICS for parent in parents]


def get_suite_json(wildcards):
    """All that a suite's rows and table depend on besides the results."""
    name = wildcards.suite
    facts = plan.suite_facts(name, SUITES[name], get_suite_experiments(name), DATASETS, METHODS)
    return canonical_json(facts.model_dump(mode="json"))


def get_suite_experiments(suite):
    """The experiments of one suite, by id."""
    return {identifier: found for identifier, found in EXPERIMENTS.items() if found.suite == suite}


def get_suite_train_metrics(wildcards):
    """Metrics of every training of a suite."""
    return [paths.train_folder(RESULTS_DIR, name) / paths.METRICS for name in get_suite_experiments(wildcards.suite)]


def get_suite_evaluate_metrics(wildcards):
    """Metrics of every evaluation of a suite."""
    return [paths.evaluate_folder(RESULTS_DIR, name) / paths.METRICS for name in get_suite_experiments(wildcards.suite)]


def get_released_suite_json(wildcards):
    """All that the table of a suite of released files depends on besides measurements and published numbers."""
    name = wildcards.released_suite
    facts = plan.released_facts(name, RELEASED_SUITES[name], get_suite_released(name), DATASETS)
    return canonical_json(facts.model_dump(mode="json"))


def get_suite_released(suite):
    """The released files of one suite, by id."""
    return {identifier: found for identifier, found in RELEASED.items() if found.suite == suite}


def get_suite_released_metrics(wildcards):
    """Measurements of every released file of a suite."""
    names = get_suite_released(wildcards.released_suite)
    return [paths.released_folder(RESULTS_DIR, name) / paths.METRICS for name in names]


def get_table_files(suite):
    """The files of one suite's table."""
    formats = plan.RELEASED_TABLE_FORMATS if suite in RELEASED_SUITES else plan.TABLE_FORMATS
    return plan.table_files(REPORTS_DIR, suite, formats)


def get_tables(wildcards):
    """Every table of the chosen suites."""
    return [file for suite in CHOSEN for file in get_table_files(suite)]


def get_training_threads(wildcards):
    """Cores of one training: all of them, shared among the trainings that can run side by side."""
    return plan.threads_per_training(workflow.cores or 1, EXPERIMENTS)
