"""Figures of what was measured of the binary layers (docs/diagnostics.md), in the style of `recu.report.figures`."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recu.report.figures import COLOURS, INK, MARKERS, blank, by_epochs, look, plain, starts_of, words
from recu.results.records import EpochWeights, PerLayer, Row, WeightCurves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = {
    "dead_share": ("dead weights, |v| > Q (%)", 100.0),
    "tail_share": ("|v| > Q(0.99) (%)", 100.0),
    "flipped_share": ("signs flipped in the epoch (%)", 100.0),
    "quantisation_error": ("quantisation error (v²)", 1.0),
    "entropy": ("entropy (bits a weight)", 1.0),
    "threshold": ("threshold Q (as v)", 1.0),
    "scale_mean": ("alpha: smallest, mean, largest", 1.0),
}
"""Label and factor of each quantity."""
_ENDS = ("scale_min", "scale_max")
_THIN = {"linewidth": 0.6, "markersize": 2.0}
_MOST_LINES = 2 * len(COLOURS)
_MOST_HISTOGRAMS = 8
_ROOM = 10
"""By which the axis goes on above the first histograms, for their key."""
_NOTHING = (
    "The binary layers of these trainings were not measured, or they have none;\n"
    "docs/diagnostics.md says what is measured, and of what."
)


def weights(rows: Sequence[Row]) -> Figure:
    """Each quantity of the whole network by epoch, one line for each row and method: the mean over its seeds.

    A training that started from another's weights continues where that one's epochs end.
    """
    groups, starts = _groups(rows), _starts(rows)
    if not groups:
        return words(_NOTHING)
    shown = dict(list(groups.items())[:_MOST_LINES])
    figure, panels, key = _panels()
    for place, seeds in enumerate(shown.values()):
        style = look(place) | {"linestyle": "-" if place < len(COLOURS) else "--", "markersize": 3.5, "linewidth": 1.2}
        start = starts.get(seeds[0].experiment_id, 0)
        for name, axes in panels.items():
            _draw_line(axes, _mean_by_epoch(seeds, name, start), _PANELS[name][1], style)
        for end in _ENDS:  # as lines: bands of several methods would hide one another
            _draw_line(panels["scale_mean"], _mean_by_epoch(seeds, end, start), 1.0, style | _THIN)
    names = [plain(name + _share(seeds)) for name, seeds in shown.items()]
    key.legend(panels["tail_share"].lines, names, loc="upper left", fontsize="small")
    if len(groups) > len(shown):
        figure.suptitle(f"{len(shown)} of {len(groups)}; every run's page has its own", color=INK)
    return figure


def layers(measured: Sequence[EpochWeights], start: int = 0) -> Figure:
    """Each quantity of one training's layers by epoch: the network, three layers by name, and a band over all.

    Args:
        measured: epoch by epoch, of the same layers.
        start: epochs of the trainings before this one.
    """
    if not measured:
        return words(_NOTHING)
    figure, panels, key = _panels()
    names = measured[0].layers
    lines: dict[str, dict[str, Any]] = {"network": {"color": INK, "linewidth": 2.0, "zorder": 3}}
    for place, (layer, marker) in enumerate(zip(_three(names), MARKERS, strict=False)):
        lines[layer] = {"color": COLOURS[place], "marker": marker, "markersize": 3.5, "linewidth": 1.0}
    for name, (_, factor) in _PANELS.items():
        columns = {each.epoch + start + 1: getattr(each, name) for each in measured}
        networks = {each.epoch + start + 1: each.of_network.get(name) for each in measured}
        for line, style in lines.items():
            values = networks if line == "network" else _of_layer(columns, names.index(line))
            _draw_line(panels[name], _known(values), factor, style)
        low, high = _ENDS if name == "scale_mean" else (name, name)
        _draw_band(panels[name], _ends(measured, low, min, start), _ends(measured, high, max, start), INK, factor)
    key.legend(panels["tail_share"].lines, [plain(name) for name in lines], loc="upper left", fontsize="small")
    return figure


def histograms(rows: Sequence[Row]) -> Figure:
    """Latent weights of the middle binary layer after the first, the middle and the last epoch, of each first seed."""
    starts = _starts(rows)
    found = []
    for name, seeds in _groups(rows).items():
        first = next(row for row in seeds if row.weights is not None)
        measured = first.weights.with_histograms if first.weights else ()
        if measured:
            title = name if first is seeds[0] else f"{name}, seed {first.seed}"
            found.append((title, measured, len(measured[0].layers) // 2, starts.get(first.experiment_id, 0)))
    if not found:
        return words(_NOTHING)
    shown = found[:_MOST_HISTOGRAMS]
    figure = _histograms(shown)
    if len(found) > len(shown):
        figure.suptitle(f"{len(shown)} of {len(found)}; every run's page has its own", color=INK)
    return figure


def layer_histograms(measured: Sequence[EpochWeights], start: int = 0) -> Figure:
    """The same of one training's first, middle and last binary layer.

    Args:
        measured: as `layers` takes it.
        start: likewise.
    """
    found = [each for each in measured if each.limit]
    if not found:
        return words(_NOTHING)
    return _histograms([(name, found, found[0].layers.index(name), start) for name in _three(found[0].layers)])


def _starts(rows: Sequence[Row]) -> dict[str, int]:
    return starts_of([row for row in rows if row.curve])


def _groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The seeds of each row and method of which some were measured, by what tells these apart."""
    several = len({row.dataset for row in rows}) > 1
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name = f"{row.network}, {row.method}" + (f", {row.dataset}" if several else "")
        groups.setdefault(name, []).append(row)
    return {name: seeds for name, seeds in groups.items() if any(row.weights is not None for row in seeds)}


def _share(seeds: Sequence[Row]) -> str:
    """Of how many of its seeds a line is the mean, where it is not of all; epochs may differ in that."""
    counts = Counter(epoch for row in seeds if row.weights is not None for epoch in row.weights.epoch).values()
    fewest, most = min(counts), max(counts)
    if fewest == len(seeds):
        return ""
    some = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return f" ({some} of {len(seeds)} seeds)"


def _three(names: Sequence[str]) -> list[str]:
    """The first, the middle and the last of them; fewer where these are the same."""
    return list(dict.fromkeys(names[place] for place in (0, len(names) // 2, -1)))


def _panels() -> tuple[Figure, dict[str, Axes], Axes]:
    """A panel for each quantity, and one for the key."""
    from matplotlib.ticker import SymmetricalLogLocator

    figure = blank(9.0, 10.5)
    *panels, key = figure.subplots(4, 2).flat
    key.set_axis_off()
    for axes, (label, _) in zip(panels, _PANELS.values(), strict=True):
        by_epochs(axes, label)
    # Single filters may have a scale a hundred times the usual one, which lies within 1.
    panels[-1].set_yscale("symlog", linthresh=1.0)
    panels[-1].yaxis.set_major_locator(SymmetricalLogLocator(base=10.0, linthresh=1.0, subs=(1.0, 2.0, 5.0)))
    panels[-1].yaxis.set_major_formatter("{x:g}")
    return figure, dict(zip(_PANELS, panels, strict=True)), key


def _mean_by_epoch(seeds: Sequence[Row], name: str, start: int) -> dict[int, float]:
    """Over those seeds that have a value, by the number of the epoch."""
    found: dict[int, list[float]] = {}
    for row in seeds:
        curves: WeightCurves | None = row.weights
        # Rows of earlier versions lack some.
        for epoch, value in zip(curves.epoch, getattr(curves, name), strict=False) if curves else ():
            if value is not None:
                found.setdefault(start + epoch + 1, []).append(value)
    return {epoch: statistics.fmean(found[epoch]) for epoch in sorted(found)}


def _of_layer(columns: Mapping[int, PerLayer], place: int) -> dict[int, float | None]:
    return {epoch: column[place] for epoch, column in columns.items()}


def _known(values: Mapping[int, float | None]) -> dict[int, float]:
    return {epoch: value for epoch, value in values.items() if value is not None}


def _ends(measured: Sequence[EpochWeights], name: str, end: Any, start: int) -> dict[int, float]:
    """The smallest or the largest value of an epoch's layers."""
    known = {each.epoch: [value for value in getattr(each, name) if value is not None] for each in measured}
    return {start + epoch + 1: end(column) for epoch, column in known.items() if column}


def _draw_line(axes: Axes, values: Mapping[int, float], factor: float, style: Mapping[str, Any]) -> None:
    every = max(1, len(values) // 10)
    axes.plot(list(values), [factor * value for value in values.values()], markevery=every, **style)


def _draw_band(
    axes: Axes, low: Mapping[int, float], high: Mapping[int, float], colour: str, factor: float = 1.0
) -> None:
    epochs = sorted(low.keys() & high.keys())
    lowest, highest = ([factor * values[epoch] for epoch in epochs] for values in (low, high))
    axes.fill_between(epochs, lowest, highest, color=colour, alpha=0.12, linewidth=0.8)
    if len(epochs) == 1:  # which has no breadth
        axes.vlines(epochs, lowest, highest, color=colour, alpha=0.4, linewidth=2.0)


def _histograms(lines: Sequence[tuple[str, Sequence[EpochWeights], int, int]]) -> Figure:
    """A line of panels for each title, measured epochs, place of the layer, and epochs of the trainings before."""
    figure = blank(9.0, 2.3 * len(lines) + 0.3)
    panels = figure.subplots(len(lines), max(len(measured) for _, measured, _, _ in lines), squeeze=False)
    for number, (line, (title, measured, place, start)) in enumerate(zip(panels, lines, strict=True)):
        for axes, each in zip(line, measured, strict=False):
            _draw_histograms(axes, each, place)
            layer = "" if each.layers[place] == title else f"{plain(each.layers[place])}, "
            axes.set_title(f"{plain(title)}\n{layer}epoch {start + each.epoch + 1}", fontsize="small", loc="left")
            if number == 0:
                axes.set_ylim(top=_ROOM * axes.get_ylim()[1])
                axes.legend(loc="upper center", ncols=3, fontsize="x-small", handlelength=1.0, columnspacing=1.0)
        for axes in line[len(measured) :]:
            axes.set_axis_off()
    return figure


def _draw_histograms(axes: Axes, measured: EpochWeights, place: int) -> None:
    limit, total = measured.limit[place], max(1, measured.weights[place])
    before, after = ([100 * count / total for count in counts[place]] for counts in (measured.before, measured.after))
    edges = [limit * (2 * number / len(before) - 1) for number in range(len(before) + 1)]
    # On a logarithmic axis the tails show, which are the matter, beside the bars that clamped weights make.
    least = 50 / total
    axes.stairs(before, edges, baseline=least, fill=True, color=COLOURS[5], alpha=0.7, label="before, v")
    axes.stairs(after, edges, baseline=least, color=COLOURS[1], linewidth=1.2, label="after, u")
    threshold = measured.threshold[place]
    for end in () if threshold is None else (-threshold, threshold):
        axes.axvline(end, ymax=0.85, color=INK, linestyle=":", linewidth=0.8, label="-Q and Q" if end < 0 else None)
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=least)
    axes.set_xlabel("latent weight", fontsize="small")
    axes.set_ylabel("weights (%)", fontsize="small")
    axes.grid(alpha=0.25, color=INK, linewidth=0.5)
