# A released file is a training that somebody else ran: from here on it is evaluated, collected and rendered as any other.
rule publish:
    output:
        metrics=paths.train_folder(RESULTS_DIR, "{released}") / paths.METRICS,
    log:
        LOGS_DIR / "publish" / "{released}.log",
    conda:
        ENVIRONMENT
    resources:
        attempt=get_attempt,
    params:
        released=get_planned_json,
    message:
        "Publishing released file {wildcards.released} (log: {log})"
    shell:
        f"{JOB} publish {PUBLISH_OPTIONS} --released {{params.released:q}} > {{log:q}} 2>&1"
