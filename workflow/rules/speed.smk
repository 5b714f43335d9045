# How fast the packed file is beside the float network of its shape: for tables where params/config.yaml says
# `benchmark: true`, else by name. It takes every core, so that no other job of the workflow disturbs it.
rule speed:
    input:
        manifest=get_manifest,
        training=get_published_training,
        packed=rules.export.output.packed,
    output:
        metrics=paths.speed_folder(RESULTS_DIR, "{trained}") / paths.METRICS,
    log:
        LOGS_DIR / "speed" / "{trained}.log",
    conda:
        ENVIRONMENT
    threads: CORES
    resources:
        attempt=get_attempt,
    params:
        experiment=get_planned_json,
        program=get_what_computes,
    message:
        "Measuring the speed of {wildcards.trained} (log: {log})"
    shell:
        # By itself, and not by a fork, where PyTorch would have this program's settings.
        "unset RECU_PRELOADED; "
        f"{JOB} speed {{wildcards.trained:q}} --packed {{input.packed:q}} --threads {{threads}}"
        f" --record {{output.metrics:q}} {EXPORT_OPTIONS} > {{log:q}} 2>&1"
