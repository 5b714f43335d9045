rule collect:
    input:
        train=get_suite_train_metrics,
        evaluate=get_suite_evaluate_metrics,
        packed=get_suite_packed_metrics,
        speeds=get_suite_speeds,
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
        f"{JOB} report collect {COLLECT_OPTIONS} {PACKED_OPTION} --suite {{params.suite:q}} --output {{output.rows:q}} > {{log:q}} 2>&1"


rule report:
    input:
        rows=paths.rows_file(RESULTS_DIR, "{suite}"),
        published=get_published,
    output:
        markdown=REPORTS_DIR / "{suite}.md",
        csv=REPORTS_DIR / "{suite}.csv",
        json=REPORTS_DIR / "{suite}.json",
        latex=REPORTS_DIR / "{suite}.tex",
        html=report(
            REPORTS_DIR / "{suite}.html",
            category="Tables",
            labels={"suite": "{suite}", "table": "published and measured, costs, notes"},
            caption="../report/table.rst",
        ),
        curves=report(
            paths.figures_folder(REPORTS_DIR, "{suite}") / "curves.svg",
            category="Figures",
            labels={"suite": "{suite}", "figure": "accuracy and loss by epoch"},
            caption="../report/curves.rst",
        ),
        against=report(
            paths.figures_folder(REPORTS_DIR, "{suite}") / "published.svg",
            category="Figures",
            labels={"suite": "{suite}", "figure": "published against ours"},
            caption="../report/published.rst",
        ),
        classes=report(
            paths.figures_folder(REPORTS_DIR, "{suite}") / "classes.svg",
            category="Figures",
            labels={"suite": "{suite}", "figure": "confusion matrix, accuracy by class"},
            caption="../report/classes.rst",
        ),
        weights=report(
            paths.figures_folder(REPORTS_DIR, "{suite}") / "weights.svg",
            category="Figures",
            labels={"suite": "{suite}", "figure": "binary layers by epoch"},
            caption="../report/weights.rst",
        ),
        histograms=report(
            paths.figures_folder(REPORTS_DIR, "{suite}") / "histograms.svg",
            category="Figures",
            labels={"suite": "{suite}", "figure": "latent weights before and after ReCU"},
            caption="../report/histograms.rst",
        ),
        pictures=[paths.figures_folder(REPORTS_DIR, "{suite}") / f"{figure}.png" for figure in plan.FIGURES],
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
        markdown=REPORTS_DIR / "{suite}.md",
        csv=REPORTS_DIR / "{suite}.csv",
        json=REPORTS_DIR / "{suite}.json",
        latex=REPORTS_DIR / "{suite}.tex",
        html=report(
            REPORTS_DIR / "{suite}.html",
            category="Tables",
            labels={"suite": "{suite}", "table": "published, claimed and measured"},
            caption="../report/released.rst",
        ),
    wildcard_constraints:
        suite=one_of(RELEASED_SUITES),


rule pages:
    input:
        rows=paths.rows_file(RESULTS_DIR, "{suite}"),
        table=REPORTS_DIR / "{suite}.json",
        published=get_published,
    output:
        pages=directory(paths.runs_pages(REPORTS_DIR, "{suite}")),
    log:
        LOGS_DIR / "report" / "{suite}.pages.log",
    conda:
        ENVIRONMENT
    resources:
        attempt=get_attempt,
    params:
        suite=get_suite_facts,
        published=PUBLISHED,
    message:
        "Writing the pages of the runs of suite {wildcards.suite}"
    shell:
        f"{JOB} report pages {PAGES_OPTIONS} --suite {{params.suite:q}} --rows {{input.rows:q}} > {{log:q}} 2>&1"


# Over every suite that has results, whether it is chosen now or not.
rule index:
    input:
        rows=get_all_rows,
        pages=get_pages,
        published=get_published,
        claims=get_claims,
    output:
        pages=[REPORTS_DIR / "index.html", REPORTS_DIR / "claims.html"],
    log:
        LOGS_DIR / "report" / "index.log",
    conda:
        ENVIRONMENT
    resources:
        attempt=get_attempt,
    params:
        suites=get_index_facts,
        published=PUBLISHED,
    message:
        "Writing the pages over all suites"
    shell:
        f"{JOB} report index {PAGES_OPTIONS} > {{log:q}} 2>&1"
