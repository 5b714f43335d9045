rule evaluate:
    input:
        manifest=get_manifest,
        tracking=ancient(get_tracking),
        training=get_published_training,
    output:
        metrics=paths.evaluate_folder(RESULTS_DIR, "{trained}") / paths.METRICS,
    log:
        LOGS_DIR / "evaluate" / "{trained}.log",
    benchmark:
        LOGS_DIR / "evaluate" / "{trained}.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        gpu=GPUS,
        attempt=get_attempt,
        batch_size_test=get_batch_size_test,
    params:
        experiment=get_planned_json,
    message:
        "Evaluating {wildcards.trained} (log: {log})"
    shell:
        # Of an evaluation nothing is kept, so a scheduler would let one that is too long wait in its queue for ever.
        "end_time=$([[ -n ${{RECU_REMOTE-}} ]] || job_end 0); "
        f"{JOB} evaluate {RUN_OPTIONS} {DEVICES_OPTION} --threads {{threads}} --manifest {{input.manifest:q}}"
        f" --experiment {{params.experiment:q}} --batch_size_test {{resources.batch_size_test}}"
        " --end_time ${{end_time:-0}} > {log:q} 2>&1"
