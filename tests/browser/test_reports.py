"""index.html, claims.html and the page of a run."""

import io
import json

import pytest

from recu.experiment.plan import FIGURES
from tests.browser.visitor import LOOKS, SCREENS, dead_links, unreadable, wider_than_the_window

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("finished")]

RUN = "runs/smallest/tiny/cifar.resnet20_1w1a/finetune/seed1.html"
PAGES = ("index.html", "claims.html", "smallest.html", RUN)


@pytest.fixture(scope="module")
def reports(finished):
    return finished.folder / "reports"


@pytest.fixture(scope="module")
def accuracies(reports):
    """Every accuracy of the suite's table, as it is shown."""
    names = ("published_top1", "top1_best_mean", "top1_last_mean", "top5_best_mean")
    lines = json.loads((reports / "smallest.json").read_text())["rows"]
    return [f"{line[name]:.2f}" for line in lines for name in names]


@pytest.fixture(params=PAGES)
def page(request, visitor, reports, look):
    opened = visitor.open(reports / request.param, look)
    yield opened
    assert visitor.asked_elsewhere == [] and visitor.errors == []


def test_a_page_does_not_scroll_sideways(page):
    assert wider_than_the_window(page) == []


def test_a_page_can_be_read(page):
    # Both colours of verdicts, on both kinds of lines.
    page.evaluate(
        """() => document.querySelectorAll("tbody tr").forEach(
            (line, place) => line.classList.add(place % 4 < 2 ? "good" : "bad"))"""
    )
    assert unreadable(page, "wcag2a", "wcag2aa") == []


def test_verdicts_are_in_sight(page, look):
    seen = page.evaluate(
        """() => [...document.querySelectorAll("td.verdict")].map(each => each.getBoundingClientRect())
            .map(box => box.width > 40 && box.height > 10 && box.left >= 0 && box.right <= innerWidth)"""
    )
    assert all(seen) and len(seen) >= (0 if "runs/" in page.url else 2)


def test_figures_are_drawn_and_fit(page, look):
    boxes = page.evaluate(
        """() => [...document.querySelectorAll(".panels")].map(panels => ({
            room: panels.getBoundingClientRect().width,
            drawn: [...panels.querySelectorAll("svg")].map(each => each.getBoundingClientRect().width)}))"""
    )
    shown = {"index.html": 2, "claims.html": 0, "smallest.html": len(FIGURES)}
    assert len(boxes) == shown.get(page.url.rpartition("/")[2], len(FIGURES) - 1), "a run is beside nothing published"
    for box in boxes:
        assert box["drawn"] and min(box["drawn"]) > 200
        assert len(box["drawn"]) == 1 or max(box["drawn"]) <= box["room"] + 1, "panels stand below one another"


@pytest.mark.parametrize("look", SCREENS[:1], indirect=True, ids=["desktop"])
def test_links_lead_somewhere(page, reports):
    assert dead_links(page, reports) == []


@pytest.mark.parametrize("look", SCREENS, ids=lambda look: look.name)
def test_a_table_sorts_by_a_click_and_by_the_keyboard(visitor, reports, look):
    page = visitor.open(reports / "index.html", look)
    table = page.locator("table.sortable").first
    published, difference = 5, 9

    def column(place: int) -> list[str]:
        return [text.strip() for text in table.locator(f"tbody td:nth-child({place})").all_text_contents()]

    button = table.locator(f"th:nth-child({published}) button")
    before = [float(text) for text in column(published)]
    for press in (button.click, lambda: button.press("Enter")):
        press()
        order = [float(text) for text in column(published)]
        assert order == sorted(before, reverse=order[0] > order[-1]) and order != before
        before = order
    assert table.locator("th[aria-sort=descending]").all_text_contents() == ["published"]
    for _ in range(2):
        table.locator(f"th:nth-child({difference}) button").click()
        assert column(difference)[0] != "-" and column(difference)[-1] == "-", "what has no value stays last"


def test_a_line_opens_its_run_and_the_run_leads_back(visitor, reports):
    page = visitor.open(reports / "index.html", SCREENS[0])
    page.locator("#smallest ~ table").first.locator("tbody tr").nth(1).locator("td a").first.click()
    assert page.url == (reports / RUN).as_uri()
    assert page.locator("h1").inner_text() == "smallest/tiny/cifar.resnet20_1w1a/finetune/seed1"
    page.get_by_text("All results").click()
    assert page.url == (reports / "index.html").as_uri()


@pytest.mark.parametrize("name", ["index.html", "smallest.html"])
def test_the_pdf_has_every_accuracy(visitor, reports, accuracies, name):
    from pypdf import PdfReader

    page = visitor.open(reports / name, LOOKS[-1])
    printed = PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True)))
    words = " ".join(sheet.extract_text() for sheet in printed.pages).split()
    missing = [accuracy for accuracy in accuracies if words.count(accuracy) < accuracies.count(accuracy)]
    assert len(accuracies) == 8 and missing == []
