"""Training curves: what a reader must be able to see in the picture."""

import re
from types import SimpleNamespace

from recu.report.curves import curves_svg
from recu.results.records import Curve, Row


def row(network: str, method: str, top1: list[float]) -> Row:
    curve = Curve(epoch=tuple(range(len(top1))), test_top1=tuple(top1), train_top1=tuple(top1))
    return Row.model_construct(dataset="digits", network=network, method=method, curve=curve)


def picture(*rows: Row) -> str:
    lines = {row.network: SimpleNamespace(result=row, dataset_title="Digits", difference=None) for row in rows}
    return curves_svg(rows, list(lines.values())).decode()


def test_a_training_of_one_epoch_is_a_point_and_its_axis_counts_whole_epochs() -> None:
    text = picture(row("a", "vanilla", [60.0]))
    assert "fill: #1f77b4" in text, "a line has no filled marker"
    ticks = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    assert "0" in ticks and not any("0.2" in tick or "0.4" in tick for tick in ticks)


def test_a_panel_without_a_network_is_not_drawn() -> None:
    rows = [row(name, "vanilla", [50.0, 60.0]) for name in "abcd"]
    assert picture(*rows).count("test top-1") == 4
    assert "0.0" not in re.findall(r"<text[^>]*>([^<]*)</text>", picture(*rows)), "ticks of an empty axis"


def test_the_same_rows_give_the_same_bytes() -> None:
    assert picture(row("a", "vanilla", [50.0, 60.0])) == picture(row("a", "vanilla", [50.0, 60.0]))
