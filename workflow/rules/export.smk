# The best checkpoint with one bit a binary weight: for tables where params/config.yaml says `packed: true`, else by name.
rule export:
    input:
        manifest=get_manifest,
        training=get_published_training,
    output:
        packed=paths.export_folder(RESULTS_DIR, "{trained}") / paths.PACKED,
        metrics=paths.export_folder(RESULTS_DIR, "{trained}") / paths.METRICS,
    log:
        LOGS_DIR / "export" / "{trained}.log",
    conda:
        ENVIRONMENT
    resources:
        attempt=get_attempt,
    params:
        experiment=get_planned_json,
    message:
        "Exporting {wildcards.trained} as a packed file (log: {log})"
    shell:
        f"{JOB} export {{wildcards.trained:q}} --to packed --output {{output.packed:q}} --overwrite"
        f" --record {{output.metrics:q}} {EXPORT_OPTIONS} > {{log:q}} 2>&1"
