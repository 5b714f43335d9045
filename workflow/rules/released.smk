rule evaluate_released:
    input:
        manifest=get_released_manifest,
        tracking=ancient(TRACKING_DIR / "{released_suite}.ready"),
    output:
        metrics=paths.released_folder(RESULTS_DIR, RELEASED_ID) / paths.METRICS,
    log:
        LOGS_DIR / "released" / f"{RELEASED_ID}.log",
    benchmark:
        LOGS_DIR / "released" / f"{RELEASED_ID}.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        gpu=1,
        attempt=get_attempt,
    params:
        released=get_released_json,
    message:
        "Measuring released file {wildcards.released_file}"
    shell:
        f"{JOB} evaluate {RUN_OPTIONS} --threads {{threads}} --manifest {{input.manifest:q}}"
        f" --released {{params.released:q}} --output {{output.metrics:q}}"
        " > {log:q} 2>&1"


rule report_released:
    input:
        metrics=get_suite_released_metrics,
        published=get_published,
    output:
        markdown=report(REPORTS_DIR / "{released_suite}.md", category="Tables", caption="../report/released.rst"),
        csv=REPORTS_DIR / "{released_suite}.csv",
        html=report(REPORTS_DIR / "{released_suite}.html", category="Tables", caption="../report/released.rst"),
    log:
        LOGS_DIR / "report" / "{released_suite}.released.log",
    conda:
        ENVIRONMENT
    resources:
        attempt=get_attempt,
    params:
        suite=get_released_suite_facts,
        published=PUBLISHED,
    message:
        "Rendering the table of released files {wildcards.released_suite}"
    shell:
        f"{JOB} report released {RENDER_RELEASED_OPTIONS} --suite {{params.suite:q}} > {{log:q}} 2>&1"
