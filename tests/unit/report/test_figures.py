"""Figures: what a reader must be able to see in the picture."""

import re
from types import SimpleNamespace

import pytest

from recu.report import figures
from recu.report.summary import spread
from recu.results.records import Curve, Row, Source


def row(network: str, method: str, top1: list[float], seed: int = 1, parent: Row | None = None, **more) -> Row:
    epochs, loss = tuple(range(len(top1))), tuple(1.0 / (1 + value) for value in top1)
    curve = Curve(epoch=epochs, test_top1=tuple(top1), train_top1=tuple(top1), test_loss=loss, train_loss=loss)
    source = Source(id=parent.experiment_id, spec_hash="p") if parent else None
    identifier = f"s/digits/{network}/{method}/seed{seed}"
    known = {"dataset": "digits", "network": network, "method": method, "curve": curve, "parent": source}
    known |= {"confusion": None, "classes": None}
    return Row.model_construct(experiment_id=identifier, **known | more)


def lines(*rows: Row):
    return [SimpleNamespace(result=row, dataset_title="Digits", difference=None) for row in rows]


def curves(*rows: Row):
    return figures.curves(rows, lines(*rows))


def test_a_training_of_one_epoch_is_a_point_and_its_axis_counts_whole_epochs_from_one() -> None:
    text = figures.svg(lambda: curves(row("a", "vanilla", [60.0]))).decode()
    assert "fill: #0072b2" in text, "a line has no filled marker"
    ticks = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    assert "1" in ticks and not any("0.2" in tick or "1.2" in tick for tick in ticks)


@pytest.mark.parametrize("count", [2, 20, 60, 600])
def test_ticks_stand_at_epochs_that_there_are(count) -> None:
    vanilla = row("a", "vanilla", [50.0] * count)
    for axes in curves(vanilla, row("a", "finetune", [60.0] * count, parent=vanilla)).axes:
        ticks = list(axes.get_xticks())
        assert len(ticks) > 2 and min(ticks) >= 1 and max(ticks) <= 2 * count
        assert all(tick == int(tick) for tick in ticks)


def test_a_finetune_continues_the_epochs_of_its_parent() -> None:
    vanilla = row("a", "vanilla", [50.0, 60.0, 70.0])
    accuracy, loss = curves(vanilla, row("a", "finetune", [71.0, 72.0], parent=vanilla)).axes
    for axes in (accuracy, loss):
        places = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
        assert places["vanilla, test"] == [1, 2, 3] and places["finetune, test"] == [4, 5]
        assert places["finetune, training"] == [4, 5]
    assert (accuracy.get_ylabel(), loss.get_ylabel()) == ("top-1 (%)", "cross-entropy (nats)")


def test_seeds_are_their_mean_with_a_band() -> None:
    accuracy, _ = curves(row("a", "vanilla", [50.0, 60.0]), row("a", "vanilla", [54.0, 66.0], seed=2)).axes
    test = next(line for line in accuracy.lines if line.get_label() == "vanilla, test")
    assert list(test.get_ydata()) == [52.0, 63.0]
    band = accuracy.collections[0].get_paths()[0].vertices[:, 1]
    assert min(band) == 52 - 8**0.5 and max(band) == 63 + 18**0.5, "one sample standard deviation"
    assert not curves(row("a", "vanilla", [50.0, 60.0])).axes[0].collections, "one seed has no band"


def test_many_methods_are_told_apart() -> None:
    accuracy, _ = curves(*(row("a", f"m{number}", [50.0, 60.0]) for number in range(49))).axes
    tests = [line for line in accuracy.lines if str(line.get_label()).endswith(", test")]
    assert len({(line.get_color(), line.get_marker()) for line in tests}) == len(tests) == 49
    assert len({line.get_color() for line in tests[:7]}) == 7, "all colours before one comes again"


def test_a_published_number_has_the_look_of_its_method() -> None:
    rows = [row("a", f"m{number}", [50.0, 60.0]) for number in range(8)]
    table = lines(*rows)
    for line in table:
        line.difference, line.published = 1.0, SimpleNamespace(top1=55.0)
    accuracy, _ = figures.curves(rows, table).axes
    looks = {line.get_label(): (line.get_color(), line.get_marker()) for line in accuracy.lines}
    assert all(looks[f"m{number}, test"] == looks[f"m{number}, published (55 %)"] for number in range(8))


def test_rows_of_an_earlier_version_have_no_losses_and_say_so() -> None:
    old = row("a", "vanilla", [50.0])
    old = old.model_copy(update={"curve": old.curve.model_copy(update={"test_loss": (), "train_loss": ()})})
    _, loss = curves(old).axes
    assert not loss.lines and [text.get_text() for text in loss.texts] == ["no loss in these rows"]


def test_each_network_has_its_line_of_panels_up_to_what_can_be_read() -> None:
    assert len(curves(*(row(name, "vanilla", [50.0, 60.0]) for name in "abcd")).axes) == 8
    many = curves(*(row(f"n{number}", "vanilla", [50.0]) for number in range(30)))
    assert len(many.axes) == 48 and many.get_suptitle().startswith("24 of 30 networks")


def test_published_and_ours_with_their_interval() -> None:
    def line(difference, *top1):
        result = SimpleNamespace(model="m", labelled_method="vanilla, tau-0.9")
        return SimpleNamespace(
            result=result, dataset_title="D", published=SimpleNamespace(top1=92.8), difference=difference,
            top1_best=spread(top1), seeds=tuple(range(len(top1))),
        )  # fmt: skip

    (axes,) = figures.published([line(0.0, 92.7, 92.9), line(None, 60.0)]).axes
    assert axes.get_yticklabels()[0].get_text() == "m, vanilla, tau-0.9, D"
    (compared, alone) = (bar for bar in axes.containers)
    assert compared.lines[0].get_markerfacecolor() != "none" and alone.lines[0].get_markerfacecolor() == "none"
    low, high = compared.lines[2][0].get_segments()[0][:, 0]
    assert high - low > 2.5 and not alone.has_xerr, "t of two seeds; one has no interval"
    assert figures.published([line(0.0, 92.7)] * 30).get_suptitle() == "24 of 30 lines; the table has all"
    (wide,) = figures.published([line(0.0, 50.0, 100.0)]).axes
    assert wide.get_xlim() == (0.0, 100.0), "t of two seeds reaches from -240 to 390"
    assert "Nothing is published" in figures.published([]).texts[0].get_text()


def test_a_confusion_matrix_counts_all_seeds() -> None:
    one = row("a", "vanilla", [50.0], confusion=((3, 1), (0, 4)), classes=("cat", "dog"))
    two = row("a", "vanilla", [50.0], seed=2, confusion=((2, 2), (1, 3)), classes=("cat", "dog"))
    matrix, bars = figures.classes([one, two]).axes
    assert sorted(int(text.get_text()) for text in matrix.texts) == [1, 3, 5, 7]
    assert [patch.get_width() for patch in bars.patches] == [62.5, 87.5]
    assert [label.get_text() for label in matrix.get_yticklabels()] == ["cat", "dog"]
    assert matrix.get_title(loc="left") == "a, vanilla, 2 seeds, digits"
    some = figures.classes([one, two, row("a", "vanilla", [50.0], seed=3)]).axes[0]
    assert some.get_title(loc="left") == "a, vanilla, 2 of 3 seeds, digits"
    assert "have no confusion matrix" in figures.classes([row("a", "vanilla", [1.0])]).texts[0].get_text()


def test_a_page_gets_a_figures_panels_in_one_scale_and_nothing_where_there_is_no_data() -> None:
    lines, title = figures.panels(lambda: curves(*(row(name, "vanilla", [50.0, 60.0]) for name in "ab")))
    texts = [[panel.decode() for panel in line] for line in lines]
    for (accuracy, loss), name in zip(texts, "ab", strict=True):
        assert f">{name} on Digits<" in accuracy and ">top-1 (%)<" in accuracy and ">cross-entropy" not in accuracy
        assert ">cross-entropy (nats)<" in loss and ">top-1 (%)<" not in loss
    widths = {float(re.search(r'viewBox="0 0 ([0-9.]+)', text)[1]) for line in texts for text in line}
    assert len(widths) == 1 and 300 < widths.pop() < 360, "half of nine inches, in points"
    assert title == "" and figures.panels(lambda: figures.published([])) == ([], "")


def test_the_title_of_a_figure_is_beside_its_panels(monkeypatch) -> None:
    monkeypatch.setattr(figures, "_MOST_PANELS", 2)
    lines, title = figures.panels(lambda: curves(*(row(name, "vanilla", [50.0]) for name in "abc")))
    assert (
        title.startswith("2 of 3 networks")
        and len(lines) == 2
        and title.encode() not in b"".join(line[0] for line in lines)
    )


def test_the_same_rows_give_the_same_bytes_in_both_forms() -> None:
    for save in (figures.svg, figures.png):
        one, two = (save(lambda: curves(row("a", "vanilla", [50.0, 60.0]))) for _ in range(2))
        assert one == two


def test_within_a_page_a_figure_has_the_pages_ink_and_size() -> None:
    text = figures.inline(figures.svg(lambda: curves(row("a", "vanilla", [50.0, 60.0]))))
    assert text.startswith("<svg") and "var(--ink)" in text and "#1b1f24" not in text and "<metadata" not in text
    assert "viewBox" in text and not re.search(r'<svg[^>]* (width|height)="', text)
