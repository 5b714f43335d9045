"""`snakemake --report`: one page, made of the tables and figures of a finished suite."""

import json

import pytest

from recu.experiment.plan import FIGURES
from tests.browser.visitor import SCREENS

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("finished")]


@pytest.fixture(scope="module")
def report(finished, tmp_path_factory):
    file = tmp_path_factory.mktemp("report") / "report.html"
    made = finished.snakemake("--report", str(file))
    assert made.returncode == 0, made.stderr
    return file


@pytest.fixture
def page(visitor, report):
    opened = visitor.open(report, SCREENS[0])
    opened.reload()
    yield opened
    assert visitor.asked_elsewhere == [] and visitor.errors == []


def test_it_begins_with_what_it_is_about(page):
    assert "ReCU, reproduced." in page.locator("#app").inner_text()


def test_every_table_and_figure_has_labels_and_a_caption(page):
    results = json.loads(page.evaluate("() => JSON.stringify(results)"))
    assert set(results) == {"reports/smallest.html", *(f"reports/figures/smallest/{name}.svg" for name in FIGURES)}
    for name, result in results.items():
        assert result["labels"]["suite"] == "smallest" and len(result["labels"]) == 2, name
        assert len(result["caption"]) > 50, name


def test_the_table_is_the_suites_and_has_no_dead_link(page, visitor, finished):
    page.get_by_role("link", name="Tables").click()
    page.locator("a[iconname=eye]").click()
    table = page.frame_locator("iframe")
    table.get_by_role("heading", name="Results").wait_for()
    assert table.locator("a").count() == 0
    shown = table.locator("td").all_text_contents()
    own = visitor.open(finished.folder / "reports/smallest.html", SCREENS[0])
    assert shown == own.locator("td").all_text_contents() and len(shown) > 40


def test_each_figure_is_drawn(page):
    page.get_by_role("link", name="Figures").click()
    shown = set()
    for place in range(len(FIGURES)):
        page.locator("a[iconname=eye]").nth(place).click()
        # Beside the logo.
        drawn = page.locator("#app img").nth(1)
        drawn.wait_for()
        assert drawn.evaluate("each => each.decode().then(() => each.naturalWidth)") > 300
        shown.add(drawn.get_attribute("src").partition("filename=")[2].partition(".svg")[0])
    assert shown == set(FIGURES)
