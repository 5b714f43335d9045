rule prepare_tracking:
    output:
        ready=touch(TRACKING_READY),
    log:
        LOGS_DIR / "prepare_tracking.log",
    localrule: True
    conda:
        "../../environment.yml"
    message:
        "Creating the MLflow store (once, before any job logs to it)"
    shell:
        "{RECU} store --tracking_uri {CONFIG.tracking_uri:q} --suites {SUITES:q} > {log:q} 2>&1"


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
        "{RECU} prepare {wildcards.dataset:q} --data_dir {DATA_DIR:q} --params_dir {PARAMS_DIR:q} {params.source}"
        " --workers {threads} --output {output.manifest:q} > {log:q} 2>&1"
