"""Figures of what was measured of the binary layers, against a case worked by hand."""

import re
from types import SimpleNamespace

import pytest

from recu.report import diagnostic_figures, figures
from recu.results.records import EpochWeights, WeightCurves, as_record


def epoch(number: int, *, histograms: bool = False, **more) -> EpochWeights:
    """Two layers of 100 and 300 weights."""
    columns = {
        "threshold": (1.0, 2.0),
        "dead_share": (0.04, 0.08),
        "tail_share": (0.01, 0.02),
        "flipped_share": (0.1, None),
        "quantisation_error": (0.2, 0.6),
        "entropy": (1.0, 0.8),
        "scale_min": (0.1, 0.3),
        "scale_mean": (0.2, 0.4),
        "scale_max": (0.3, 0.9),
    } | more
    if histograms:
        # Of the second layer: 30 of its weights lie beyond Q, and are clamped into the outer halves.
        columns["limit"] = (1.0, 4.0)
        columns |= {"before": ((50, 50), (15, 135, 135, 15)), "after": ((50, 50), (0, 150, 150, 0))}
    return EpochWeights(epoch=number, layers=("conv1", "conv2"), weights=(100, 300), **columns)


def row(*measured: EpochWeights, method: str = "vanilla", seed: int = 1, parent=None):
    identifier = f"s/digits/n/{method}/seed{seed}"
    curve = SimpleNamespace(epoch=tuple(range(len(measured))))
    weights = WeightCurves.of(measured)
    known = {"dataset": "digits", "network": "n", "method": method, "curve": curve, "parent": parent}
    return SimpleNamespace(experiment_id=identifier, weights=weights, seed=seed, **known)


def legend(figure) -> list[str]:
    (key,) = [axes for axes in figure.axes if not axes.axison]
    return [text.get_text() for text in key.get_legend().get_texts()]


def panels(figure) -> dict:
    return {axes.get_ylabel(): axes for axes in figure.axes if axes.axison}


def points(axes) -> list[list[tuple[float, float]]]:
    lines = [zip(line.get_xdata(), line.get_ydata(), strict=True) for line in axes.lines]
    return [[(float(x), round(float(y), 9)) for x, y in line] for line in lines]


def test_a_network_is_the_mean_over_its_weights_and_seeds_counted_from_one() -> None:
    one = row(epoch(0), epoch(1, dead_share=(0.0, 0.04)))
    two = row(epoch(0, dead_share=(0.08, 0.12)), epoch(1, dead_share=(0.04, 0.08)), seed=2)
    shown = panels(diagnostic_figures.weights([one, two]))
    # (0.04 * 100 + 0.08 * 300) / 400 = 0.07, of the other seed 0.11; then 0.03 and 0.07.
    assert points(shown["dead weights, |v| > Q (%)"]) == [[(1, 9.0), (2, 5.0)]]
    assert points(shown["|v| > Q(0.99) (%)"])[0][0] == (1, 1.75)
    assert points(shown["signs flipped in the epoch (%)"])[0][0] == (1, 10.0), "known of one layer alone"
    assert points(shown["quantisation error (v²)"])[0][0] == (1, 0.5)
    assert points(shown["entropy (bits a weight)"])[0][0] == (1, 0.85)
    assert points(shown["threshold Q (as v)"])[0][0] == (1, 1.75)
    alpha = shown["alpha: smallest, mean, largest"]
    assert [line[0] for line in points(alpha)] == [(1, 0.35), (1, 0.1), (1, 0.9)], "the mean, then both ends"
    assert all(axes.get_xlabel() == "epoch" for axes in shown.values()) and len(shown) == 7


def test_a_mean_over_some_of_the_seeds_says_over_how_many() -> None:
    some = [row(seed=1), row(epoch(0), epoch(1), seed=2), row(seed=3)]
    later = [row(epoch(1), method="finetune", seed=1), row(epoch(0), epoch(1), method="finetune", seed=2)]
    figure = diagnostic_figures.weights([*some, *later, row(epoch(0), method="two-stage")])
    assert legend(figure) == ["n, vanilla (1 of 3 seeds)", "n, finetune (1 to 2 of 2 seeds)", "n, two-stage"]


def test_a_finetune_continues_the_epochs_of_its_parent() -> None:
    vanilla = row(epoch(0), epoch(1))
    finetune = row(epoch(0), method="finetune", parent=SimpleNamespace(id=vanilla.experiment_id))
    axes = panels(diagnostic_figures.weights([vanilla, finetune]))["entropy (bits a weight)"]
    assert [[x for x, _ in line] for line in points(axes)] == [[1, 2], [3]]


def test_of_one_run_layers_have_their_lines_and_a_band() -> None:
    figure = diagnostic_figures.layers([epoch(0), epoch(1)], start=3)
    dead = panels(figure)["dead weights, |v| > Q (%)"]
    assert points(dead) == [[(4, 7.0), (5, 7.0)], [(4, 4.0), (5, 4.0)], [(4, 8.0), (5, 8.0)]]
    band = dead.collections[0].get_paths()[0].vertices[:, 1]
    assert (min(band), max(band)) == (4.0, 8.0)
    flipped = panels(figure)["signs flipped in the epoch (%)"]
    assert points(flipped)[2] == [], "of the second layer it is not known"
    assert legend(figure) == ["network", "conv1", "conv2"]


def test_rows_of_an_earlier_version_lack_threshold_and_alpha_and_still_draw() -> None:
    old = row(epoch(0))
    plain = {name: value for name, value in old.weights.as_plain().items() if not name.startswith(("thresh", "scale"))}
    old.weights = as_record(plain, WeightCurves)
    shown = panels(diagnostic_figures.weights([old]))
    assert points(shown["threshold Q (as v)"]) == [[]] and points(shown["|v| > Q(0.99) (%)"]) == [[(1, 1.75)]]


def test_histograms_are_shares_of_the_layer_before_and_after() -> None:
    measured = [epoch(0, histograms=True), epoch(1), epoch(2, histograms=True)]
    for figure, lines in (
        (diagnostic_figures.histograms([row(*measured), row(*measured, seed=2)]), ["n, vanilla\nconv2, "]),
        (diagnostic_figures.layer_histograms(measured), ["conv1\n", "conv2\n"]),
    ):
        assert len(figure.axes) == 2 * len(lines), "the first and the last epoch have some, here no middle one"
        expected = [f"{line}epoch {number}" for line in lines for number in (1, 3)]
        assert [axes.get_title(loc="left") for axes in figure.axes] == expected
        first = figure.axes[-2]
        before, after = first.patches
        assert list(before.get_data().values) == [5, 45, 45, 5] and list(after.get_data().values) == [0, 50, 50, 0]
        assert list(before.get_data().edges) == [-4, -2, 0, 2, 4]
        assert sorted(line.get_xdata()[0] for line in first.lines) == [-2.0, 2.0], "-Q and Q"
        assert (first.get_xlabel(), first.get_ylabel(), first.get_yscale()) == ("latent weight", "weights (%)", "log")


def test_histograms_count_the_epochs_of_a_finetune_on_from_its_parents() -> None:
    vanilla = row(epoch(0), epoch(1))
    measured = [epoch(0, histograms=True), epoch(1, histograms=True)]
    finetune = row(*measured, method="finetune", parent=SimpleNamespace(id=vanilla.experiment_id))
    for figure in (
        diagnostic_figures.histograms([vanilla, finetune]),
        diagnostic_figures.layer_histograms(measured, 2),
    ):
        ends = [axes.get_title(loc="left").rpartition(" ")[2] for axes in figure.axes[:2]]
        assert ends == ["3", "4"]


def test_histograms_of_another_than_the_first_seed_name_it() -> None:
    figure = diagnostic_figures.histograms([row(), row(epoch(0, histograms=True), seed=2)])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["n, vanilla, seed 2\nconv2, epoch 1"]


def test_where_nothing_was_measured_the_figure_says_so() -> None:
    for figure in (
        diagnostic_figures.weights([row()]),
        diagnostic_figures.histograms([row(epoch(0))]),
        diagnostic_figures.layers([]),
        diagnostic_figures.layer_histograms([]),
    ):
        assert not figure.axes and "were not measured" in figure.texts[0].get_text()


@pytest.mark.parametrize("count", [3, 20])
def test_many_rows_are_told_apart_and_named(count) -> None:
    figure = diagnostic_figures.weights([row(epoch(0), method=f"m{number}") for number in range(count)])
    lines = panels(figure)["|v| > Q(0.99) (%)"].lines
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}
    assert len(looks) == len(lines) == min(count, 14)
    assert (figure.get_suptitle() == "") == (count == 3)
    assert len({line.get_color() for line in lines}) == min(count, 7), "all colours before one comes again"
    marks = {(line.get_color(), line.get_marker()) for line in lines}
    assert len(marks) == len(lines), "where a dash cannot be seen, too"


def test_equal_rows_give_equal_bytes() -> None:
    def draw():
        return diagnostic_figures.weights([row(epoch(0), epoch(1))])

    one, two = (figures.svg(draw) for _ in range(2))
    assert one == two and not re.search(rb"<image", one)
