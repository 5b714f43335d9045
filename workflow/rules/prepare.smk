rule prepare_tracking:
    output:
        ready=touch(TRACKING_DIR / "{suite}.ready"),
    log:
        LOGS_DIR / "tracking" / "{suite}.log",
    localrule: True
    conda:
        ENVIRONMENT
    message:
        "Creating the MLflow experiment of suite {wildcards.suite} (once, before any job logs to it; log: {log})"
    shell:
        # Shown, too: a store that does not work stops nothing, and its user should hear of it before the trainings.
        f"recu store {TRACKING_OPTIONS} --suites {{wildcards.suite:q}} 2>&1 | tee {{log:q}}"


# A checkpoint, so that what rests on the data is judged again by the manifest's content once this has run: a source that
# only moved, or was touched, makes nothing else run.
checkpoint prepare:
    output:
        manifest=paths.manifest_file(RESULTS_DIR, "{dataset}"),
    log:
        LOGS_DIR / "prepare" / "{dataset}.log",
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        attempt=get_attempt,
    params:
        preparation=get_preparation_json,
        source=get_source_option,
    message:
        "Preparing dataset {wildcards.dataset} (log: {log})"
    shell:
        f"{JOB} prepare {{wildcards.dataset:q}} {DATA_OPTIONS} {{params.source}} --workers {{threads}} {BATCH_SIZES}"
        f" {TEST_IS_ENOUGH} --output {{output.manifest:q}} > {{log:q}} 2>&1"
