"""Figures of a suite and of one run, by matplotlib: equal results give equal bytes.

The colours are Okabe and Ito's, which people of every colour vision tell apart; what differs in colour differs in line
or marker too. Whatever is no data is drawn in one ink, which a page replaces by its own (`inline`).
"""

from __future__ import annotations

import io
import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recu.base.text import visible
from recu.report.summary import TableRow, half_width
from recu.results.records import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1b1f24"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
MARKERS = "osD^vPX"
"""As many as colours, see `look`."""
_STYLE: Any = {
    # A fixed salt makes element names repeatable; text as text keeps the file small and searchable.
    "svg.hashsalt": "recu",
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.framealpha": 0.0,
    "font.size": 9.0,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_MOST_PANELS = 24
"""Networks, or runs, of one figure: more could not be read, nor drawn in time."""
_MOST_NUMBERED = 12
"""Classes of a confusion matrix whose counts are written into it."""
_MOST_NAMED = 25
"""Classes whose names stand at the axes."""


def svg(draw: Callable[[], Figure]) -> bytes:
    """A figure as SVG."""
    return _saved(draw, "svg", {"Date": None}, transparent=True)


def panels(draw: Callable[[], Figure]) -> tuple[list[list[bytes]], str]:
    """A figure's panels line by line, each as SVG in one scale, for a page to put beside or below one another; and the
    figure's title. No panels where it shows no data.
    """
    import matplotlib
    from matplotlib.transforms import Bbox

    with matplotlib.rc_context(_STYLE):
        figure = draw()
    if len(figure.axes) < 2:
        return ([[svg(lambda: figure)]] if figure.axes else []), ""
    # Each panel stands alone, so nothing is laid out: that would take half of the time.
    figure.set_layout_engine(None)
    figure.subplots_adjust(left=0.07, right=0.98)
    for text in figure.texts:
        text.set_visible(False)
    inches = figure.dpi_scale_trans.inverted()
    boxes: dict[Axes, Bbox] = {}
    lines: dict[int, list[Axes]] = {}
    for axes in figure.axes:
        box, place = axes.get_tightbbox(), axes.get_subplotspec()
        assert box is not None and place is not None, "a panel of a grid that is drawn"
        boxes[axes] = box.transformed(inches)
        lines.setdefault(place.rowspan.start, []).append(axes)
    width = max(each.width for each in boxes.values()) + 0.1

    def panel(axes: Axes, low: float, high: float) -> bytes:
        for each in figure.axes:
            each.set_visible(each is axes)
        middle = (boxes[axes].x0 + boxes[axes].x1) / 2
        box = Bbox([[middle - width / 2, low - 0.05], [middle + width / 2, high + 0.05]])
        return _saved(lambda: figure, "svg", {"Date": None}, transparent=True, bbox_inches=box)

    drawn = [
        [panel(axes, min(boxes[each].y0 for each in line), max(boxes[each].y1 for each in line)) for axes in line]
        for line in lines.values()
    ]
    return drawn, figure.get_suptitle()


def png(draw: Callable[[], Figure]) -> bytes:
    """A figure as PNG on white."""
    return _saved(draw, "png", {"Software": None}, facecolor="white", dpi=150)


def inline(drawn: bytes) -> str:
    """An SVG of `svg` as a part of an HTML page, in the page's ink (the CSS variable --ink)."""
    text = drawn.decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], count=1, flags=re.DOTALL)
    # A page has its own sizes; those of the view box keep the proportions.
    text = re.sub(r'(<svg[^>]*?) (width|height)="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) (width|height)="[^"]*"', r"\1", text, count=1)
    return text.replace(INK, "var(--ink)")


def _saved(draw: Callable[[], Figure], form: str, metadata: dict[str, Any], **how: Any) -> bytes:
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        draw().savefig(buffer, format=form, metadata=metadata, **how)
    return buffer.getvalue()


def blank(width: float, height: float) -> Figure:
    """A figure without panels yet, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def curves(rows: Sequence[Row], table: Sequence[TableRow]) -> Figure:
    """Accuracy and loss by epoch, training and test, a line of panels for each network; one colour a method.

    A training that started from another's weights continues where that one's epochs end. Several seeds are drawn as
    their mean, with a band of one sample standard deviation on each side.
    """
    trained = [row for row in rows if row.curve]
    networks = list(dict.fromkeys((row.dataset, row.network) for row in trained))
    shown = networks[:_MOST_PANELS]
    if not shown:
        return words("No training of this suite has a history.")
    figure = blank(9.0, 3.2 * len(shown))
    panels = figure.subplots(len(shown), 2, squeeze=False)
    methods = list(dict.fromkeys(row.method for row in trained))
    starts = starts_of(trained)
    for (dataset, network), (accuracy, loss) in zip(shown, panels, strict=True):
        here = [row for row in trained if (row.dataset, row.network) == (dataset, network)]
        lines = [line for line in table if (line.result.dataset, line.result.network) == (dataset, network)]
        title = plain(f"{network} on {lines[0].dataset_title if lines else dataset}")
        _draw_network(accuracy, loss, here, lines, methods, starts)
        accuracy.set_title(title, fontsize="medium", loc="left")
    if len(networks) > len(shown):
        figure.suptitle(f"{len(shown)} of {len(networks)} networks; every run's page has its own", color=INK)
    return figure


def look(place: int) -> dict[str, Any]:
    """Colour and marker of the line at a place, from 0: all colours before one comes again, then with another marker;
    the same look only after as many lines as there are pairs.
    """
    turn, of_colours = divmod(place, len(COLOURS))
    return {"color": COLOURS[of_colours], "marker": MARKERS[(of_colours + turn) % len(MARKERS)]}


def starts_of(rows: Sequence[Row]) -> dict[str, int]:
    """By experiment, how many epochs the trainings before it had."""
    by_id = {row.experiment_id: row for row in rows}

    def start(row: Row) -> int:
        parent = by_id.get(row.parent.id) if row.parent else None
        return start(parent) + len(parent.curve.epoch) if parent and parent.curve else 0

    return {row.experiment_id: start(row) for row in rows}


def _draw_network(
    accuracy: Axes,
    loss: Axes,
    rows: Sequence[Row],
    table: Sequence[TableRow],
    methods: Sequence[str],
    starts: Mapping[str, int],
) -> None:
    for method in dict.fromkeys(row.method for row in rows):
        shape = look(methods.index(method)) | {"markersize": 3.5}
        seeds = [row for row in rows if row.method == method]
        start = starts[seeds[0].experiment_id]
        for axes, kind in ((accuracy, "top1"), (loss, "loss")):
            for split, dashes in (("test", "-"), ("train", "--")):
                label = plain(f"{method}, {'test' if split == 'test' else 'training'}")
                # Marked, so that methods differ without colour too.
                every = max(1, len(seeds[0].curve.epoch) // 10) if seeds[0].curve else 1
                style = shape | {"linestyle": dashes, "linewidth": 1.4, "label": label, "markevery": every}
                # Of a training of one epoch, too, which has no line.
                style |= {"markerfacecolor": "none"} if split == "train" else {}
                _draw_seeds(axes, [_by_epoch(row, f"{split}_{kind}") for row in seeds], start, style)
        line = next((line for line in table if line.result.method == method), None)
        if line and line.difference is not None and line.published and line.published.top1 is not None:
            label = plain(f"{method}, published ({line.published.top1:g} %)")
            # Marked at both ends, and not filled as what was measured is.
            dotted = shape | {"linestyle": ":", "linewidth": 1.4, "markerfacecolor": "none", "clip_on": False}
            accuracy.axhline(line.published.top1, label=label, **dotted)
        if start:
            for axes in (accuracy, loss):
                axes.axvline(start + 0.5, color=INK, linewidth=0.6, alpha=0.5)
    for axes, label in ((accuracy, "top-1 (%)"), (loss, "cross-entropy (nats)")):
        by_epochs(axes, label)
    named = [
        line for line in accuracy.lines if line.get_linestyle() != "--" and not str(line.get_label()).startswith("_")
    ]
    dashed = accuracy.plot([], [], color=INK, linestyle="--", label="training")
    accuracy.legend(handles=[*named, *dashed], fontsize="small")
    if not loss.lines:
        loss.text(0.5, 0.5, "no loss in these rows", ha="center", transform=loss.transAxes)


def by_epochs(axes: Axes, label: str) -> None:
    """Label a panel over epochs, which count from 1; ticks stand only at those that it shows."""
    from matplotlib.ticker import MaxNLocator

    class Epochs(MaxNLocator):
        def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
            first, last = axes.dataLim.intervalx
            # The margins around the lines hold numbers too, such as 0.
            return [tick for tick in super().tick_values(vmin, vmax) if first <= tick <= last]

    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.grid(alpha=0.25, color=INK, linewidth=0.5)
    axes.xaxis.set_major_locator(Epochs(integer=True, min_n_ticks=1))


def _by_epoch(row: Row, name: str) -> dict[int, float]:
    assert row.curve is not None
    # Rows of earlier versions have no losses.
    return dict(zip(row.curve.epoch, getattr(row.curve, name), strict=False))


def _draw_seeds(axes: Axes, seeds: Sequence[Mapping[int, float]], start: int, style: dict[str, Any]) -> None:
    epochs = sorted(set.intersection(*(set(seed) for seed in seeds)))
    if not epochs:
        return
    places = [start + epoch + 1 for epoch in epochs]
    means = [statistics.fmean(seed[epoch] for seed in seeds) for epoch in epochs]
    axes.plot(places, means, **style)
    if len(seeds) > 1:
        spread = [statistics.stdev(seed[epoch] for seed in seeds) for epoch in epochs]
        low, high = ([mean + sign * sd for mean, sd in zip(means, spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(places, low, high, color=style["color"], alpha=0.2, linewidth=0)


def published(table: Sequence[TableRow]) -> Figure:
    """Published top-1 against ours, with the 95 % interval of our mean; open circles are not comparable."""
    quoted = [line for line in table if line.published and line.published.top1 is not None]
    lines = quoted[:_MOST_PANELS]
    if not lines:
        return words("Nothing is published that any result of this suite could stand beside.")
    figure = blank(9.0, 1.1 + 0.42 * len(lines))
    axes = figure.subplots()
    for place, line in enumerate(lines):
        assert line.published is not None and line.published.top1 is not None
        comparable = line.difference is not None
        half = half_width(line.top1_best.sd, len(line.seeds))
        ours: dict[str, Any] = {"color": COLOURS[0], "marker": "o", "markersize": 7, "linestyle": "none", "capsize": 4}
        axes.plot(line.published.top1, place, color=COLOURS[1], marker="D", markersize=7, linestyle="none")
        axes.errorbar(
            line.top1_best.mean, place, xerr=half, markerfacecolor=COLOURS[0] if comparable else "none", **ours
        )
    names = [plain(f"{line.result.model}, {line.result.labelled_method}, {line.dataset_title}") for line in lines]
    axes.set_yticks(range(len(lines)), names)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    # The interval of two seeds may reach beyond what an accuracy can be.
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, 0.0), min(high, 100.0))
    axes.set_xlabel("top-1 (%)")
    axes.grid(axis="x", alpha=0.25, color=INK, linewidth=0.5)
    point: dict[str, Any] = {"linestyle": "none", "markersize": 7}
    handles = [
        axes.plot([], [], color=COLOURS[1], marker="D", label="published", **point)[0],
        axes.plot([], [], color=COLOURS[0], marker="o", label="ours, best epoch, with 95 % interval", **point)[0],
        axes.plot([], [], color=COLOURS[0], marker="o", mfc="none", label="ours, not comparable", **point)[0],
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize="small")
    if len(quoted) > len(lines):
        figure.suptitle(f"{len(lines)} of {len(quoted)} lines; the table has all", color=INK)
    return figure


def classes(rows: Sequence[Row]) -> Figure:
    """Confusion matrix and accuracy of every class, over all seeds that have one, for each network and method."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.confusion is not None:
            groups.setdefault((row.dataset, row.network, row.method), []).append(row)
    seeds = Counter((row.dataset, row.network, row.method) for row in rows)
    if not groups:
        return words(
            "These evaluations have no confusion matrix: an earlier version made them,\n"
            "or the data have more classes than a matrix is kept for."
        )
    shown = list(groups.items())[:_MOST_PANELS]
    figure = blank(9.0, 4.0 * len(shown))
    panels = figure.subplots(len(shown), 2, squeeze=False)
    for ((dataset, network, method), group), (matrix, bars) in zip(shown, panels, strict=True):
        counts = [[sum(cell) for cell in zip(*line, strict=True)] for line in _lines_together(group)]
        names = group[0].classes or tuple(str(number) for number in range(len(counts)))
        _draw_matrix(matrix, counts, names)
        _draw_bars(bars, counts, names)
        of = _of_seeds(len(group), seeds[dataset, network, method])
        matrix.set_title(plain(f"{network}, {method}{of}, {dataset}"), fontsize="medium", loc="left")
    if len(groups) > len(shown):
        figure.suptitle(f"{len(shown)} of {len(groups)}; every run's page has its own", color=INK)
    return figure


def _of_seeds(counted: int, there: int) -> str:
    if counted < there:
        return f", {counted} of {there} seeds"
    return "" if there == 1 else f", {there} seeds"


def _lines_together(group: Sequence[Row]) -> list[list[tuple[int, ...]]]:
    """Line by line of the matrices, the lines of all of them."""
    return [list(lines) for lines in zip(*(row.confusion for row in group if row.confusion), strict=True)]


def _draw_matrix(axes: Axes, counts: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    shares = [[value / max(1, sum(line)) for value in line] for line in counts]
    size = len(counts)
    axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, rasterized=size > _MOST_NAMED)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    if size <= _MOST_NUMBERED:
        for line, values in enumerate(counts):
            for place, value in enumerate(values):
                # On the map's own colours, light or dark, whatever the page's ink.
                colour = "#ffffff" if shares[line][place] > 0.5 else "#101010"
                if value:
                    axes.text(place + 0.5, line + 0.5, str(value), ha="center", va="center", color=colour, fontsize=6.5)
    if size <= _MOST_NAMED:
        middles = [place + 0.5 for place in range(size)]
        axes.set_xticks(middles, [plain(name) for name in names], rotation=90, fontsize=7)
        axes.set_yticks(middles, [plain(name) for name in names], fontsize=7)
    axes.set_xlabel("predicted class (images)")
    axes.set_ylabel("true class")


def _draw_bars(axes: Axes, counts: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    places = [place for place, line in enumerate(counts) if sum(line)]
    heights = [100 * counts[place][place] / sum(counts[place]) for place in places]
    axes.barh(places, heights, color=COLOURS[0], height=0.75)
    if len(counts) <= _MOST_NAMED:
        axes.set_yticks(range(len(counts)), [plain(name) for name in names], fontsize=7)
        for place, height in zip(places, heights, strict=True):
            within: dict[str, Any] = (
                {"ha": "right", "color": "#ffffff"} if height > 12 else {"ha": "left", "color": INK}
            )
            axes.text(max(1.0, height - 1.0), place, f"{height:.1f}", va="center", fontsize=7, **within)
    axes.set_ylim(len(counts) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy of the class (%)")


def words(text: str) -> Figure:
    """In place of a figure that has nothing to show: why."""
    figure = blank(9.0, 0.9)
    figure.text(0.5, 0.5, text, ha="center", va="center", color=INK)
    return figure


def plain(text: str) -> str:
    """A name from elsewhere, as a figure shows it."""
    # A dollar sign would start a formula.
    return visible(text).replace("$", r"\$")
