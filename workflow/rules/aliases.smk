# Readable targets for one experiment: `snakemake train-ID`, `snakemake evaluate-ID` with '-' for '/' in the id, and
# `snakemake table-SUITE` for one table. `snakemake --list-rules` names them all.
for experiment in EXPERIMENTS.values():

    rule:
        name:
            f"train-{plan.alias(experiment)}"
        input:
            paths.train_folder(RESULTS_DIR, experiment.id) / paths.METRICS,
        localrule: True

    rule:
        name:
            f"evaluate-{plan.alias(experiment)}"
        input:
            paths.evaluate_folder(RESULTS_DIR, experiment.id) / paths.METRICS,
        localrule: True


for suite in SUITES:

    rule:
        name:
            f"table-{suite}"
        input:
            plan.table_files(REPORTS_DIR, suite),
        localrule: True
