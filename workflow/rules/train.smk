rule train:
    input:
        manifest=get_manifest,
        tracking=ancient(get_tracking),
        parents=get_parents,
    output:
        checkpoint=paths.train_folder(RESULTS_DIR, "{experiment}") / paths.BEST_CHECKPOINT,
        metrics=paths.train_folder(RESULTS_DIR, "{experiment}") / paths.METRICS,
    log:
        LOGS_DIR / "train" / "{experiment}.log",
    benchmark:
        LOGS_DIR / "train" / "{experiment}.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: TRAINING_THREADS
    resources:
        gpu=GPUS,
        runtime=0,  # minutes; 0: no limit
        attempt=get_attempt,
        batch_size_test=get_batch_size_test,
        diagnostics=get_diagnostics,
    params:
        experiment=get_planned_json,
    message:
        "Training {wildcards.experiment} (log: {log})"
    shell:
        "end_time=$(job_end {resources.runtime}); "
        f"{JOB} train {RUN_OPTIONS} {DEVICES_OPTION} {TEACHER_OPTIONS} --threads {{threads}} --manifest {{input.manifest:q}}"
        f" --experiment {{params.experiment:q}} --batch_size_test {{resources.batch_size_test}} {KEEP_OPTION}"
        " --diagnostics {resources.diagnostics}"
        " --end_time $end_time > {log:q} 2>&1"
