rule evaluate:
    input:
        manifest=paths.manifest_file(RESULTS_DIR, "{dataset}"),
        tracking=ancient(TRACKING_DIR / "{suite}.ready"),
        checkpoint=paths.train_folder(RESULTS_DIR, paths.EXPERIMENT_ID) / paths.BEST_CHECKPOINT,
        metrics=paths.train_folder(RESULTS_DIR, paths.EXPERIMENT_ID) / paths.METRICS,
    output:
        metrics=paths.evaluate_folder(RESULTS_DIR, paths.EXPERIMENT_ID) / paths.METRICS,
    log:
        LOGS_DIR / "evaluate" / f"{paths.EXPERIMENT_ID}.log",
    benchmark:
        LOGS_DIR / "evaluate" / f"{paths.EXPERIMENT_ID}.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        gpu=1,
        attempt=get_attempt,
        batch_size_test=get_batch_size_test,
    params:
        experiment=get_experiment_json,
    message:
        "Evaluating {wildcards.network} on {wildcards.dataset}: {wildcards.method}, seed {wildcards.seed}"
    shell:
        f"{JOB} evaluate {RUN_OPTIONS} --threads {{threads}} --manifest {{input.manifest:q}}"
        f" --experiment {{params.experiment:q}} --batch_size_test {{resources.batch_size_test}} > {{log:q}} 2>&1"
