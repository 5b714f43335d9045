"""`make test-browser`: what people see in a browser. Headless Chromium, driven by Playwright; contrast by axe-core.

The pages are those of a finished suite of two methods and seeds, on images of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.chromium import program
from tests.browser.visitor import LOOKS, Visitor
from tests.workflow.conftest import Project, make_project

PUBLISHED = """results:
  - {dataset: Tiny, model: resnet20_1w1a, method: vanilla, batch_size: 8, epochs: 2, top1: 70.0, source: nowhere}
  - {dataset: Tiny, model: resnet20_1w1a, method: finetune, batch_size: 8, epochs: 9, top1: 71.5, source: nowhere}
"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, which finds no other machine."""
    for package in ("playwright", "axe_playwright_python", "pypdf"):
        pytest.importorskip(package, reason=f"needs {package}, of the extra `browser`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = program(playwright)
        if chromium is None:
            pytest.skip("needs Chromium: `playwright install chromium`, or Debian's package chromium")
        nowhere = ["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        started = playwright.chromium.launch(executable_path=chromium, args=nowhere)
        yield started
        started.close()


@pytest.fixture(scope="module")
def visitor(browser: Any) -> Iterator[Visitor]:
    """Opens pages, one at a time."""
    visitor = Visitor(browser)
    yield visitor
    visitor.leave()


@pytest.fixture(params=LOOKS, ids=lambda look: look.name)
def look(request: pytest.FixtureRequest) -> Any:
    """Width, colours and medium that a page is seen in."""
    return request.param


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Project:
    """A project whose suite was run: one line may be compared with a published number, one may not."""
    project = make_project(tmp_path_factory.mktemp("browser"))
    project.edit("suites/smallest.yaml", "seeds: [1]", "seeds: [1, 2]")
    project.edit("datasets.yaml", "title: Tiny", "title: Tiny\n  published_as: Tiny")
    project.edit("published.yaml", "results:\n", PUBLISHED)
    project.edit("config.yaml", "preload: false", "preload: true")
    result = project.snakemake(timeout=500)
    assert result.returncode == 0, result.stdout + result.stderr
    return project
