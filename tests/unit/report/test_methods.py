"""Methods side by side: the best is marked only where the intervals decide it."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from recu.report.methods import markdown_grid, side_by_side
from recu.report.summary import compared_binarisers, leaders_of, spread


@dataclass
class Line:
    method: str
    binariser: str
    values: tuple[float, ...]
    stage: int = 2
    published: object = None
    verdict: str = "not comparable"
    leads: bool | None = None
    dataset_title: str = "Digits"
    dataset: str = "digits"
    network: str = "cifar.n"
    result: object = field(init=False)

    def __post_init__(self) -> None:
        words = {"method": self.method, "binariser": self.binariser, "stage": self.stage, "claim": None}
        words["dataset"] = self.dataset
        self.result = SimpleNamespace(network=self.network, **words)

    @property
    def top1_best(self):
        return spread(self.values)

    @property
    def seeds(self):
        return tuple(range(len(self.values)))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((90.0, 90.1, 90.2), (80.0, 80.1, 80.2), ["vanilla"]),
        ((80.0, 80.1, 80.2), (90.0, 90.1, 90.2), ["ir-net"]),
        ((90.0, 91.0, 92.0), (88.0, 89.0, 90.0), []),  # the intervals meet
        ((90.0, 90.0, 90.0), (80.0, 80.1, 80.2), []),  # one accuracy shows no spread, not a spread of 0
        ((90.0, 90.1, 90.2), (80.0, 80.0, 80.0), []),
        ((90.0,), (80.0,), []),
        ((90.0, 90.1), (80.0,), []),
    ],
)
def test_the_best_leads_only_where_its_interval_lies_above(first, second, expected):
    lines = [Line("vanilla", "recu", first), Line("ir-net", "ir-net", second)]
    assert [line.method for line in leaders_of(compared_binarisers(lines))] == expected


def test_only_the_leading_cell_is_bold():
    lines = [Line("vanilla", "recu", (90.0,), leads=True), Line("ir-net", "ir-net", (80.0,), leads=False)]
    assert "| **90.00** (1 seed)" in (text := markdown_grid(side_by_side(lines), str)) and text.count("**") == 2


def test_one_binariser_has_no_leader():
    assert compared_binarisers([Line("vanilla", "recu", (90.0, 90.1)), Line("finetune", "recu", (95.0, 95.1))]) == []


def test_a_cell_says_what_was_measured_and_published_and_the_verdict():
    other = SimpleNamespace(top1=87.8, source="users")
    published = SimpleNamespace(top1=90.4, source="paper", elsewhere=(other,))
    lines = [
        Line("vanilla", "recu", (90.0, 92.0)),
        Line("ir-net", "ir-net", (90.5,), published=published, verdict="single run, within 0.3"),
        Line("biper-stage1", "biper", (99.0, 99.0), stage=1),
    ]
    text = markdown_grid(side_by_side(lines), str)
    assert "91.00 ± 12.71 (2 seeds); nothing published; not comparable" in text
    assert "90.50 (1 seed); published 90.40 [87.80]; single run, within 0.3" in text
    assert "published 90.40 (paper); 87.80 (users)" in text and "biper" not in text


def test_rows_of_a_binariser_each_are_no_comparison():
    """Those of an ablation, which the suite's table has below one another."""
    lines = [Line("vanilla", "recu", (90.0,)), Line("vanilla", "recu-b1", (91.0,), network="cifar.n+b-1")]
    assert side_by_side(lines) is None


def test_one_binariser_is_no_comparison():
    assert side_by_side([Line("vanilla", "recu", (90.0,)), Line("finetune", "recu", (91.0,))]) is None


def test_datasets_of_one_title_have_a_line_each():
    lines = [Line("vanilla", "recu", (90.0,)), Line("ir-net", "ir-net", (80.0,))]
    lines += [Line("vanilla", "recu", (70.0,), dataset="other"), Line("ir-net", "ir-net", (60.0,), dataset="other")]
    found = [[cell.measured for cell in cells] for _, cells in side_by_side(lines).lines]
    assert found == [["90.00", "80.00"], ["70.00", "60.00"]]
