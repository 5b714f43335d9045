rule prepare_tracking:
    output:
        ready=touch(TRACKING_READY),
    log:
        LOGS_DIR / "prepare_tracking.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        suites=list(CHOSEN),
    message:
        "Creating the MLflow store (once, before any job logs to it)"
    shell:
        f"recu store {TRACKING_OPTIONS} --suites {{params.suites:q}} > {{log:q}} 2>&1"


rule prepare:
    output:
        manifest=RESULTS_DIR / "prepare" / "{dataset}" / paths.MANIFEST,
    log:
        LOGS_DIR / "prepare" / "{dataset}.log",
    conda:
        "../../environment.yml"
    threads: 2
    params:
        dataset=get_dataset_json,
        source=get_source_option,
    message:
        "Preparing dataset {wildcards.dataset}"
    shell:
        f"recu prepare {{wildcards.dataset:q}} {DATA_OPTIONS} {{params.source}} --workers {{threads}}"
        " --output {output.manifest:q} > {log:q} 2>&1"
