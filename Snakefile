# The whole pipeline: prepare -> train (vanilla, then what starts from it) -> evaluate -> collect -> report.
# Of released checkpoint files: publish in place of train.
# `snakemake --cores all` renders the tables of the suites chosen in params/config.yaml.
from pathlib import Path

from snakemake.utils import min_version

from recu.experiment import paths, plan

min_version("9.27")

PARAMS_DIR = paths.find_params(Path(workflow.basedir) / "params")


configfile: str(paths.params_file(PARAMS_DIR, "config"))


# What `snakemake --report` begins with.
report: "workflow/report/front.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/publish.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/speed.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/aliases.smk"


# The default target must stand in this file: Snakemake never takes it from an included one.
rule all:
    default_target: True
    input:
        get_tables,
        get_pages,
        pages=rules.index.output,
    localrule: True


# What everything was run for, and where to look.
onsuccess:
    show_tables()


# What Snakemake measures of a job's processes would be those that ask for a fork, and not the fork.
if PRELOADS:
    for measured in workflow.rules:
        measured._benchmark = None


# Last, since Snakemake asks the same of every new rule.
workflow.is_rule = check_target
