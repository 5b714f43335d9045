"""The pages over all suites: what is there is linked, what is not says what it would cost."""

import re
from html.parser import HTMLParser

import pytest

from recu.experiment.schema import Claim
from recu.report.claims import weigh
from recu.report.pages import CAPTIONS, Missing, Suite, address, claims_page, index_page
from recu.report.summary import summarise


class Links(HTMLParser):
    """Addresses, and the cells of every table line."""

    def __init__(self, page: str):
        super().__init__()
        self.addresses, self.lines = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("href", "src")]
        if tag == "tr":
            self.lines.append("")

    def handle_data(self, data):
        if self.lines:
            self.lines[-1] += f"{data} "


@pytest.fixture
def shown(row, published, suite):
    rows = [row(seed=1, top1=92.7), row(seed=2, top1=92.9), row(model="resnet20_1w1a", epochs=10)]
    return Suite(facts=suite, rows=rows, table=summarise(rows, published, suite.methods, suite.datasets))


def test_every_published_row_stands_there_run_or_not(shown, published):
    ways = {"a": "3 trainings", "b": "5 trainings"}
    missing = [Missing(published=published.results, suite=suite, cost=cost) for suite, cost in ways.items()]
    page = index_page([shown], published.results, missing, ["Suite <x> is left out."])
    lines = [" ".join(line.split()) for line in Links(page).lines]
    assert any("vanilla 600 92.80 92.80 ± 1.27" in line and "reproduced" in line for line in lines), lines
    assert any("finetune 600 93.20 - - - - not run" in line for line in lines)
    gives = "CIFAR-10 resnet18_1w1a vanilla 92.80; CIFAR-10 resnet18_1w1a finetune 93.20"
    for suite, cost in ways.items():
        assert any(line.startswith(f"snakemake --cores all --config suites={suite} {cost} {gives}") for line in lines)
    assert "2 published results: 1 run as published, 1 not. Of 1 line that may be compared" in page
    assert "Suite &lt;x&gt; is left out." in page


def test_a_result_has_the_same_numbers_in_every_place(row, published, suite):
    # Their mean is halfway between two hundredths, and so is its distance from the published 92.8.
    rows = [row(seed=1, top1=92.0), row(seed=2, top1=92.21)]
    table = summarise(rows, published, suite.methods, suite.datasets)
    index = index_page([Suite(facts=suite, rows=rows, table=table)], published.results, [], [])
    means, differences = (re.findall(form, index) for form in (r"92\.1\d ±", r"-0\.[67]\d(?!\d)"))
    assert len(means) == 2 and len(set(means)) == 1, "in the published results and in the suite's table"
    assert len(differences) == 3 and len(set(differences)) == 1, "and in the sentence above them"
    claim = Claim(name="c", claim="x", source="Paper", test="Run.", published_numbers=True)
    assert f">{differences[0]} [" in claims_page(weigh([claim], published.results, table, rows))


def test_the_caption_of_weights_says_what_the_mean_of_alpha_is_over():
    assert "alpha: the mean over the layers, each counted by its weights," in CAPTIONS["weights"]


def test_every_line_opens_the_pages_of_its_runs(shown, published):
    addresses = set(Links(index_page([shown], published.results, [], [])).addresses)
    assert {address(row.experiment_id) for row in shown.rows} <= addresses
    others = {each for each in addresses if not each.startswith("runs/")}
    forms = {f"cifar10.{form}" for form in ("md", "csv", "json", "tex", "html")}
    assert others == forms | {"#cifar10", "claims.html"}


def test_nothing_comparable_is_said(published):
    page = index_page([], published.results, [], [])
    assert "2 published results: 0 run as published" in page and "Nothing that was run may be compared" in page
