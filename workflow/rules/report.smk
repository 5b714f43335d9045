rule collect:
    input:
        train=get_suite_train_metrics,
        evaluate=get_suite_evaluate_metrics,
    output:
        rows=paths.rows_file(RESULTS_DIR, "{suite}"),
    log:
        LOGS_DIR / "report" / "{suite}.collect.log",
    conda:
        ENVIRONMENT
    resources:
        attempt=get_attempt,
    params:
        suite=get_suite_facts,
    message:
        "Collecting the results of suite {wildcards.suite} (log: {log})"
    shell:
        f"{JOB} report collect {COLLECT_OPTIONS} --suite {{params.suite:q}} --output {{output.rows:q}} > {{log:q}} 2>&1"


rule report:
    input:
        rows=paths.rows_file(RESULTS_DIR, "{suite}"),
        published=get_published,
    output:
        markdown=report(REPORTS_DIR / "{suite}.md", category="Tables", caption="../report/table.rst"),
        csv=REPORTS_DIR / "{suite}.csv",
        html=report(REPORTS_DIR / "{suite}.html", category="Tables", caption="../report/table.rst"),
        curves=report(REPORTS_DIR / "{suite}.svg", category="Training curves", caption="../report/curves.rst"),
    log:
        LOGS_DIR / "report" / "{suite}.render.log",
    wildcard_constraints:
        suite=one_of(set(PLAN.suites) - RELEASED_SUITES),
    conda:
        ENVIRONMENT
    resources:
        attempt=get_attempt,
    params:
        suite=get_suite_facts,
        published=PUBLISHED,
    message:
        "Rendering the table of suite {wildcards.suite} (log: {log})"
    shell:
        f"{JOB} report render {RENDER_OPTIONS} --suite {{params.suite:q}} --rows {{input.rows:q}} > {{log:q}} 2>&1"


# The same of a suite of released files, which has no curves.
use rule report as report_released with:
    output:
        markdown=report(REPORTS_DIR / "{suite}.md", category="Tables", caption="../report/released.rst"),
        csv=REPORTS_DIR / "{suite}.csv",
        html=report(REPORTS_DIR / "{suite}.html", category="Tables", caption="../report/released.rst"),
    wildcard_constraints:
        suite=one_of(RELEASED_SUITES),
