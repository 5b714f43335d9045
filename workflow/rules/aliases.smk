# Readable targets for one experiment: `snakemake train-ID`, `snakemake evaluate-ID` with '-' for '/' in the id;
# `snakemake evaluate-SUITE-NAME` for one released file; `snakemake table-SUITE` for one table.
# `snakemake --list-rules` names them all.
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


for released in RELEASED.values():

    rule:
        name:
            f"evaluate-{plan.alias(released)}"
        input:
            paths.released_folder(RESULTS_DIR, released.id) / paths.METRICS,
        localrule: True


for suite in CHOSEN:

    rule:
        name:
            f"table-{suite}"
        input:
            get_table_files(suite),
        localrule: True
