# Readable targets for one experiment: `snakemake train-ID`, `snakemake evaluate-ID` with '-' for '/' in the id;
# `snakemake evaluate-SUITE-NAME` for one released file; `snakemake prepare-DATASET`; `snakemake table-SUITE` for one table.
# `snakemake --list-rules` names them all.
for target, files in targets.targets(PLAN).items():

    rule:
        name:
            target
        input:
            files,
        localrule: True


# Snakemake copies its global names for each text that it formats, and needs none of these.
for target in targets.targets(PLAN):
    workflow.globals.pop(f"__{target}")
