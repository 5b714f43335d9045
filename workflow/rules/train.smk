rule train:
    input:
        manifest=paths.manifest_file(RESULTS_DIR, "{dataset}"),
        tracking=ancient(TRACKING_DIR / "{suite}.ready"),
        parents=get_parents,
    output:
        checkpoint=paths.train_folder(RESULTS_DIR, paths.EXPERIMENT_ID) / paths.BEST_CHECKPOINT,
        metrics=paths.train_folder(RESULTS_DIR, paths.EXPERIMENT_ID) / paths.METRICS,
    log:
        LOGS_DIR / "train" / f"{paths.EXPERIMENT_ID}.log",
    benchmark:
        LOGS_DIR / "train" / f"{paths.EXPERIMENT_ID}.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: get_training_threads
    resources:
        gpu=1,
        attempt=get_attempt,
        batch_size_test=get_batch_size_test,
    params:
        experiment=get_experiment_json,
    message:
        "Training {wildcards.network} on {wildcards.dataset}: {wildcards.method}, seed {wildcards.seed}"
    shell:
        f"{JOB} train {RUN_OPTIONS} {TEACHER_OPTIONS} --threads {{threads}} --manifest {{input.manifest:q}}"
        f" --experiment {{params.experiment:q}} --batch_size_test {{resources.batch_size_test}} {KEEP_OPTION}"
        " > {log:q} 2>&1"
