# Shared by all rules: what is asked for, wildcard constraints built from it, and every get_* function.
import inspect
import os
import re
import signal
import subprocess
import sys
from functools import cache

from snakemake.io import regex_from_filepattern

from recu.base import preloaded
from recu.experiment import targets
from recu.experiment.schema import ReleasedSuite
from recu.base.errors import ConfigError, RecuError, unknown_name
from recu.experiment.own import look_beside
from recu.experiment.params import all_suites, parse_file, parse_workflow_config
from recu.base.redaction import redact


def fail(error):
    """End with the one line that a user needs, where Snakemake would show a Python exception."""
    print(f"error: {redact(str(error))}", file=sys.stderr)
    sys.exit(error.exit_code)


try:
    re.compile(regex_from_filepattern(str(Path.cwd())))
except re.error:
    fail(ConfigError(f"Snakemake takes the braces in {Path.cwd()} for wildcards: move the project, or give -d FOLDER"))

try:
    # Of two equal keys Snakemake itself would take the last.
    for file in map(Path, workflow.configfiles):
        if file.suffix != ".json":
            parse_file(file, dict)
    CONFIG = parse_workflow_config(config)
    look_beside(PARAMS_DIR)
    # Released files are not declared as inputs, so that planning works without them and a result outlives its file;
    # each one's SHA-256 is part of its job's params instead.
    PLAN = plan.load_plan(PARAMS_DIR, CONFIG)
except RecuError as error:
    fail(error)

EXPERIMENTS, RELEASED, PLANNED = PLAN.experiments, PLAN.released, PLAN.planned
RELEASED_SUITES = {name for name, suite in PLAN.suites.items() if isinstance(suite, ReleasedSuite)}
FACTS = PLAN.facts()
# What tables compare with, also where the file cannot be an input (see get_published).
PUBLISHED = PLAN.published_hash
# GPUs of one training or evaluation; a cluster without any is asked for none where params/config.yaml says so.
GPUS = 0 if CONFIG.gpus.strip().lower() == "cpu" else PLAN.devices
CORES = workflow.resource_settings.cores or 1
# Cores of one training: all of them, shared among the trainings that can run side by side.
TRAINING_THREADS = plan.threads_per_training(CORES, EXPERIMENTS)

DATA_DIR = Path(CONFIG.data_dir)
RESULTS_DIR = Path(CONFIG.results_dir)
REPORTS_DIR = Path(CONFIG.reports_dir)
LOGS_DIR = RESULTS_DIR / "logs"
TRACKING_DIR = RESULTS_DIR / "tracking"

# What warns a job of its end, each of its processes, is for the training alone; Snakemake itself would end at once.
signal.signal(signal.SIGUSR1, lambda *_: None)

# `recu` and `job` in every command below. Under conda each job's own Python runs the package from the checkout.
USES_CONDA = "conda" in {str(method) for method in workflow.deployment_settings.deployment_method}
shell.prefix(
    plan.shell_prefix("python" if USES_CONDA else sys.executable, Path(workflow.basedir), remote=workflow.remote_exec)
)

# Elsewhere a job may have another Python, or another machine.
PRELOADS = CONFIG.preload and workflow.local_exec and not USES_CONDA
if CONFIG.preload and not PRELOADS:
    print("note: preload is for jobs on this machine in this environment: each job imports by itself", file=sys.stderr)

# The environment of a job under conda; Snakemake formats it, so braces in the checkout's path are doubled.
ENVIRONMENT = plan.escape_braces(str(Path(workflow.basedir) / "environment.yml"))

# Options that must not make anything run again, so they are text of the commands and not params.
DATA_OPTIONS = plan.as_options(params_dir=PARAMS_DIR, data_dir=DATA_DIR)
# So that a batch size that leaves one image over is refused once the images are counted, and before any training.
BATCH_SIZES = " ".join(("--batch_sizes", *plan.batch_sizes(EXPERIMENTS.values())))
# In commands of preparation: datasets of which the test images are enough.
TEST_IS_ENOUGH = " ".join(("--test_is_enough_for", *sorted(PLAN.only_evaluated_on)))
RUN_OPTIONS = plan.as_options(
    params_dir=PARAMS_DIR,
    data_dir=DATA_DIR,
    results_dir=RESULTS_DIR,
    runs_dir=CONFIG.runs_dir,
    tracking_uri=CONFIG.tracking_uri,
    gpus=CONFIG.gpus,
    workers=CONFIG.workers,
    kernels=CONFIG.kernels,
)
# One process a device; one alone needs no word.
DEVICES_OPTION = plan.as_options(processes=PLAN.devices) if PLAN.devices > 1 else ""
TEACHER_OPTIONS = plan.as_options(teacher_weights=CONFIG.teacher_weights) if CONFIG.teacher_weights else ""
KEEP_OPTION = "--keep_resumable" if CONFIG.keep_resumable else ""
TRACKING_OPTIONS = plan.as_options(tracking_uri=CONFIG.tracking_uri, params_dir=PARAMS_DIR)
COLLECT_OPTIONS = plan.as_options(results_dir=RESULTS_DIR, runs_dir=CONFIG.runs_dir)
PACKED_OPTION = "--speed" if CONFIG.benchmark else "--packed" if CONFIG.packed else ""
EXPORT_OPTIONS = plan.as_options(params_dir=PARAMS_DIR, data_dir=DATA_DIR, results_dir=RESULTS_DIR)
PUBLISH_OPTIONS = plan.as_options(params_dir=PARAMS_DIR, results_dir=RESULTS_DIR)
PAGES_OPTIONS = plan.as_options(
    params_dir=PARAMS_DIR,
    data_dir=DATA_DIR,
    results_dir=RESULTS_DIR,
    runs_dir=CONFIG.runs_dir,
    reports_dir=REPORTS_DIR,
    **({"teacher_weights": CONFIG.teacher_weights} if CONFIG.teacher_weights else {}),
)
RENDER_OPTIONS = plan.as_options(params_dir=PARAMS_DIR, output_dir=REPORTS_DIR)

# Around the commands of jobs that Snakemake may attempt again.
JOB = "job {resources.attempt} {log:q}"

for note in PLAN.notes():
    print(f"note: {redact(note)}", file=sys.stderr)
if not PARAMS_DIR.is_relative_to("params"):
    print(f"note: there is no params/ in {Path.cwd()}, so {PARAMS_DIR} is used", file=sys.stderr)


def check_slurm_gpus():
    """Say so where jobs ask for GPUs of a Slurm cluster that has none: its own answer to each of them says not what to do."""
    jobs = [job for job in workflow.dag.needrun_jobs() if not job.is_local]
    if not any(job.resources.get("gpu") or "gpu" in str(job.resources.get("gres", "")) for job in jobs):
        return
    offered = subprocess.run(["sinfo", "--noheader", "--format", "%G"], capture_output=True, text=True, check=False)
    if offered.returncode == 0 and "gpu" not in offered.stdout:
        fail(
            ConfigError(
                "trainings and evaluations ask for a GPU, and this Slurm cluster has none (sinfo): let them use CPUs with"
                " --config gpus=cpu, or gpus: cpu in params/config.yaml"
            )
        )


# Not words of a command: those of a large suite would not fit.
onstart:
    if workflow.executor_plugin.name == "slurm":
        check_slurm_gpus()
    if PRELOADS:
        try:
            preloaded.start(sys.executable, Path(workflow.basedir), TRAINING_THREADS)
        except OSError as error:
            print(f"note: preload: each job imports by itself ({error})", file=sys.stderr)
        # A limit of jobs a second has Snakemake choose again a second after each choice, so that it chooses as many
        # times a second as jobs have ended: after some hundred of them that takes a core.
        workflow.scheduler.job_rate_limiter = None
    for suite, facts in FACTS.items():
        plan.write_facts(paths.report_folder(RESULTS_DIR, suite), facts)


def one_of(values):
    """A wildcard constraint that matches exactly these names, so that a mistyped target fails while planning."""
    return "(?:" + ("|".join(sorted(map(re.escape, set(values)))) or "(?!)") + ")"


# Part by part: an expression with every experiment of a large suite would take minutes to match.
AN_EXPERIMENT = paths.EXPERIMENT_ID.format(
    **{
        part: one_of(getattr(experiment, part) for experiment in EXPERIMENTS.values())
        for part in ("suite", "dataset", "labelled_network", "method")
    },
    seed=r"\d+",
)
A_RELEASED_FILE = f"{one_of(RELEASED_SUITES)}/{one_of(released.name for released in RELEASED.values())}"


wildcard_constraints:
    suite=one_of(PLAN.suites),
    dataset=one_of(PLAN.used_datasets),
    experiment=AN_EXPERIMENT,
    released=A_RELEASED_FILE,
    trained=f"{AN_EXPERIMENT}|{A_RELEASED_FILE}",


def get_attempt(wildcards, attempt):
    """How often Snakemake has begun a job, this time included."""
    return attempt


def get_planned(wildcards):
    """The experiment or released file that the one wildcard names."""
    (identifier,) = wildcards
    if identifier not in PLANNED:  # each part of it may be right and the whole still name none
        fail(unknown_name("experiment or released file", identifier, PLANNED))
    return PLANNED[identifier]


def get_planned_json(wildcards):
    """All that decides a training's result, as ONE string: Snakemake compares params as a set of unnamed values."""
    return get_planned(wildcards).canonical


def get_batch_size_test(wildcards):
    """Of a training or its evaluation; no parameter, since it changes no result."""
    return get_planned(wildcards).measured_with[0]


def get_diagnostics(wildcards):
    """Whether a training measures its binary layers, 1 or 0; no parameter, since it changes no result."""
    return int(PLAN.suites[get_planned(wildcards).suite].diagnostics)


def get_manifest(wildcards):
    """The prepared data that it is trained or measured on."""
    return paths.manifest_file(RESULTS_DIR, get_planned(wildcards).dataset)


def get_tracking(wildcards):
    """What says that the MLflow experiment of its suite is there."""
    return TRACKING_DIR / f"{get_planned(wildcards).suite}.ready"


def get_published_training(wildcards):
    """What a training publishes; of a released file only the metrics, written last: Snakemake dates its outputs anew, and
    the checkpoint is the user's own file."""
    folder = paths.train_folder(RESULTS_DIR, wildcards.trained)
    return [folder / paths.METRICS, *([folder / paths.BEST_CHECKPOINT] if wildcards.trained in EXPERIMENTS else [])]


@cache
def preparation(dataset):
    """See `Plan.preparation`; a source of a million images is looked at once."""
    try:
        return PLAN.preparation(dataset)
    except RecuError as error:
        fail(error)


def get_preparation_json(wildcards):
    """All that decides what preparing a dataset gives, as ONE string: Snakemake compares params as a set."""
    return preparation(wildcards.dataset)


def get_source_option(wildcards):
    """`--source PATH` where the user has a local copy, else nothing."""
    source = CONFIG.sources.get(wildcards.dataset)
    return "" if source is None else plan.as_words(source=source)


def get_parents(wildcards):
    """Published metrics, written last, of the experiments whose checkpoints this one starts from or learns from."""
    parents = get_planned(wildcards).parents
    return [paths.train_folder(RESULTS_DIR, parent.id) / paths.METRICS for parent in parents]


def get_suite_facts(wildcards):
    """All that a suite's rows and table depend on besides the results, as a file whose name changes with it."""
    return str(plan.facts_file(paths.report_folder(RESULTS_DIR, wildcards.suite), FACTS[wildcards.suite]))


def get_published(wildcards):
    """The published numbers; not where they lie beside a Snakefile whose path holds braces, Snakemake's wildcards."""
    file = str(paths.params_file(PARAMS_DIR, "published"))
    return [] if "{" in file else file


def get_suite_train_metrics(wildcards):
    """Metrics of every training or released file of a suite."""
    return [paths.train_folder(RESULTS_DIR, name) / paths.METRICS for name in PLAN.planned_of(wildcards.suite)]


def get_suite_evaluate_metrics(wildcards):
    """Metrics of every evaluation of a suite."""
    return [paths.evaluate_folder(RESULTS_DIR, name) / paths.METRICS for name in PLAN.planned_of(wildcards.suite)]


def get_suite_packed_metrics(wildcards):
    """What is said of every packed file of a suite, where they are wanted."""
    wanted = PLAN.planned_of(wildcards.suite) if CONFIG.packed or CONFIG.benchmark else ()
    return [paths.export_folder(RESULTS_DIR, name) / paths.METRICS for name in wanted]


def get_suite_speeds(wildcards):
    """How fast each of those is, where it is wanted."""
    wanted = PLAN.planned_of(wildcards.suite) if CONFIG.benchmark else ()
    return [paths.speed_folder(RESULTS_DIR, name) / paths.METRICS for name in wanted]


@cache
def what_computes():
    """See `recu.results.provenance.what_computes`, which reads files."""
    from recu.results import provenance

    return provenance.what_computes()


def get_what_computes(wildcards):
    """Code and packages, other ones of which have other speeds."""
    return what_computes()


def get_tables(wildcards):
    """Every table of the chosen suites."""
    return [file for name, suite in PLAN.suites.items() for file in plan.table_files(REPORTS_DIR, name, suite)]


def get_pages(wildcards):
    """Pages of the runs of the chosen suites."""
    return [paths.runs_pages(REPORTS_DIR, suite) for suite in PLAN.suites]


def get_all_rows(wildcards):
    """Rows of the chosen suites, and of those that have some already."""
    names = dict.fromkeys((*PLAN.suites, *all_suites(PARAMS_DIR)))
    files = {name: paths.rows_file(RESULTS_DIR, name) for name in names}
    return [file for name, file in files.items() if name in PLAN.suites or file.exists()]


def get_index_facts(wildcards):
    """What the tables of the chosen suites depend on besides results, in one text."""
    return " ".join(plan.facts_file(Path(name), facts).name for name, facts in FACTS.items())


def get_claims(wildcards):
    """What the paper claims; as `get_published`."""
    file = paths.params_file(PARAMS_DIR, "claims")
    return [] if "{" in str(file) or not file.exists() else str(file)


def show_tables():
    """Print the tables that this run was asked for, and where everything is."""
    if not any(job.rule.name == "all" for job in workflow.dag.jobs):
        return
    # Not while planning, which needs neither.
    import shutil

    from recu.stages.report import shown_in_terminal, where_to_look

    for suite in PLAN.suites:
        print(shown_in_terminal(REPORTS_DIR, suite, shutil.get_terminal_size().columns), end="\n\n")
    print(where_to_look(REPORTS_DIR))


# Snakemake asks what each of them takes whenever it calls one, and Python takes long to find out.
for function in [value for name, value in globals().items() if name.startswith("get_")]:
    function.__signature__ = inspect.signature(function)


def check_target(name, is_rule=workflow.is_rule):
    """Snakemake asks this of every target before it plans: whether it is a rule. What cannot be made ends here."""
    if is_rule(name):
        return True
    file = os.path.relpath(name)
    if not os.path.exists(file) and not any(each.is_producer(file) for each in workflow.rules):
        fail(targets.unknown_target(name, PLAN, [each.name for each in workflow.rules], all_suites(PARAMS_DIR)))
    return False
