"""Training curves of a suite: one panel a network, one colour a method, one line a seed."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from recu.base.text import visible
from recu.report.summary import TableRow
from recu.results.records import Row

_PANELS_PER_LINE = 3
_INCHES = (4.2, 3.1)


def curves_svg(rows: Sequence[Row], table: Sequence[TableRow]) -> bytes:
    """Test top-1 (percent) by epoch, with the published value dashed where it is comparable.

    The same results give the same bytes.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((row.dataset, row.network) for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    width = min(_PANELS_PER_LINE, len(panels)) or 1
    height = math.ceil(len(panels) / width) or 1
    # A fixed salt makes element names repeatable; text as text keeps the file small and searchable.
    with matplotlib.rc_context({"svg.hashsalt": "recu", "svg.fonttype": "none"}):
        figure = Figure(figsize=(_INCHES[0] * width, _INCHES[1] * height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = list(figure.subplots(height, width, squeeze=False).flat)
        for (dataset, network), axis in zip(panels, axes, strict=False):
            here = [row for row in rows if (row.dataset, row.network) == (dataset, network)]
            lines = [line for line in table if (line.result.dataset, line.result.network) == (dataset, network)]
            _draw(axis, here, lines, methods)
            axis.set_title(_plain(f"{network} on {lines[0].dataset_title}"), fontsize="medium")
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _draw(axis: Any, rows: Sequence[Row], table: Sequence[TableRow], methods: Sequence[str]) -> None:
    labelled = set()
    curves = [(row, row.curve) for row in rows if row.curve]
    for row, curve in curves:
        label = None if row.method in labelled else _plain(row.method)
        labelled.add(row.method)
        colour = f"C{methods.index(row.method) % 10}"
        # A line through a single epoch would not be seen.
        marker = "o" if len(curve.epoch) == 1 else None
        style = {"color": colour, "linewidth": 1, "marker": marker, "markersize": 4, "alpha": 0.8, "label": label}
        axis.plot(curve.epoch, curve.test_top1, **style)
    for line in table:
        if line.difference is not None and line.published is not None:
            colour = f"C{methods.index(line.result.method) % 10}"
            axis.axhline(
                line.published.top1,
                color=colour,
                linestyle="--",
                linewidth=1,
                label=f"{_plain(line.result.method)}, published",
            )
    axis.set_xlim(-0.5, max(curve.epoch[-1] for _, curve in curves) + 0.5)
    axis.set_xlabel("epoch")
    axis.set_ylabel("test top-1 (%)")
    axis.grid(alpha=0.3)
    axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    if labelled:
        axis.legend(fontsize="small", loc="lower right")


def _plain(text: str) -> str:
    # A dollar sign would start a formula.
    return visible(text).replace("$", r"\$")
