"""A suite's table as Markdown, CSV, JSON, LaTeX and in a terminal. What it shows is described once, in `COLUMNS`."""

from __future__ import annotations

import csv as csv_module
import io
import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import attrgetter
from typing import Any, Literal, get_args

from recu.base.text import csv_text, markdown_paragraph, markdown_text, visible
from recu.experiment.suite_facts import SuiteFacts
from recu.report.methods import Cell, Grid, markdown_grid, side_by_side
from recu.report.notes import SPEED, Notes
from recu.report.summary import Spread, TableRow, half_width, rounded
from recu.results.seal import SEAL, content_hash

_NONE = "-"

Read = Callable[[Any], Any]
"""A value of one line of the table, a `TableRow`."""
Line = Mapping[str, Any]
"""The values of one line of the table, by the names of all columns of `columns_of`."""


Part = Literal["results", "costs", "speed"]
PARTS: tuple[Part, ...] = get_args(Part)
"""The tables of a suite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column: the plain values that stand for it in CSV and JSON, and how people read them."""

    header: str
    text: Callable[[Line], str]
    values: Mapping[str, Read] = field(default_factory=dict)
    """By name in CSV and JSON."""
    numeric: bool = False
    released: bool | None = None
    """Whether it stands in tables of released files alone; None for in every table, False for in all others."""
    parts: tuple[Part, ...] = ("results",)
    """Which tables it stands in."""
    rank: int | None = None
    """Place among the columns that a narrow table keeps, 0 first; None for none."""
    optional: str | None = None
    """Name of a value, where it stands only in tables of which some line has that."""

    @property
    def first(self) -> str:
        """Name of its first value."""
        return next(iter(self.values))


def plain_column(
    name: str,
    header: str | None = None,
    *,
    numeric: bool = False,
    released: bool | None = None,
    parts: tuple[Part, ...] = ("results",),
    rank: int | None = None,
) -> Column:
    """A column of one attribute of the result as it is."""
    return Column(
        header=header or name,
        text=lambda line: str(line[name]),
        values={name: attrgetter(f"result.{name}")},
        numeric=numeric,
        released=released,
        parts=parts,
        rank=rank,
    )


def of_result(*names: str) -> dict[str, Read]:
    """Attributes of a line's result, as `Column.values`."""
    return {name: attrgetter(f"result.{name}") for name in names}


def number_column(
    header: str, name: str, read: Read, form: str = ".2f", *, released: bool | None, rank: int | None = None
) -> Column:
    """A column of one number, a dash where there is none."""
    return Column(
        header=header,
        text=lambda line: number(line[name], form),
        values={name: read},
        numeric=True,
        released=released,
        rank=rank,
    )


def number(value: float | None, form: str = ".2f") -> str:
    """A number in a cell; a dash for none."""
    return _NONE if value is None else format(value, form)


def _spread_column(header: str, name: str, rank: int | None = None, more: Mapping[str, Read] | None = None) -> Column:
    def part(of: Callable[[Spread, int], float | None]) -> Read:
        return lambda line: of(getattr(line, name), len(line.seeds))

    return Column(
        header=header,
        text=lambda line: Spread(line[f"{name}_mean"], line[f"{name}_sd"]).with_interval(line["seeds"]),
        values={
            f"{name}_mean": part(lambda value, _: value.mean),
            f"{name}_sd": part(lambda value, _: value.sd),
            f"{name}_ci95": part(lambda value, n: half_width(value.sd, n)),
            **(more or {}),
        },
        numeric=True,
        released=False,
        rank=rank,
    )


def _cost_column(name: str, header: str, unit: int = 1) -> Column:
    return Column(
        header=header,
        text=lambda line: _count(line[name] / unit),
        values={name: attrgetter(f"result.cost.{name}")},
        numeric=True,
        parts=("costs",),
    )


def _count(value: float) -> str:
    """Four significant digits, with a power of ten for what nobody can read otherwise."""
    return f"{value:.3e}" if value >= 1e5 else f"{value:.4g}"


def _speed_column(header: str, text: Callable[[float], str], **values: str) -> Column:
    """Of attributes of a line's `SpeedRecord`, the first of which is shown; a star where others used the machine."""

    def shown(line: Line) -> str:
        value = line[next(iter(values))]
        return "not measured" if value is None else text(value) + ("*" if line["speed_busy"] else "")

    read = {name: _of_speed(attribute) for name, attribute in values.items()}
    return Column(header=header, text=shown, values=read, numeric=True, parts=("speed",), optional="packed_ms")


def _of_speed(attribute: str) -> Read:
    """None where there is none, or it was not measured."""
    parts = ("speed", *attribute.split("."))
    return lambda line: reduce(lambda value, part: getattr(value, part, None), parts, line.result)


def _published(name: str) -> Read:
    return lambda line: getattr(line.published, name, None)


def _quoted(line: Line) -> str:
    there = line["published_source"] is not None and line["published_top1"] is None
    return "not quoted" if there else number(line["published_top1"])


def _labelled(line: Line) -> str:
    """The method, and the name of the suite's row where it has one, as `Row.labelled_method`."""
    return f"{line['method']}, {line['row']}" if line["row"] else str(line["method"])


COLUMNS: tuple[Column, ...] = (
    Column(
        header="file",
        text=lambda line: str(line["file"]),
        values={
            "file": attrgetter("result.claim.name"),
            "path": attrgetter("result.claim.path"),
            **of_result("checkpoint_sha256"),
        },
        released=True,
        parts=PARTS,
        rank=0,
    ),
    Column(
        header="dataset",
        text=lambda line: str(line["dataset_title"]),
        values={**of_result("dataset"), "dataset_title": attrgetter("dataset_title")},
        parts=PARTS,
        rank=7,
    ),
    plain_column("model", parts=PARTS, rank=1),
    Column(
        header="family",
        text=lambda line: line["family"] + (f" ({line['variant']})" if line["variant"] else ""),
        values=of_result("family", "variant"),
        parts=PARTS,
        rank=6,
    ),
    plain_column("shortcut", "shortcuts", parts=("costs",)),
    _cost_column("parameters", "parameters"),
    _cost_column("checkpoint_bytes", "size (KB)", unit=1000),
    Column(
        header="packed file (KB)",
        text=lambda line: _NONE if line["packed_bytes"] is None else _count(line["packed_bytes"] / 1000),
        values={
            "packed_bytes": lambda line: getattr(line.result.packed, "size_bytes", None),
            "packed_other_class": lambda line: getattr(line.result.packed, "other_class", None),
        },
        numeric=True,
        parts=("costs", "speed"),
        optional="packed_bytes",
    ),
    _speed_column("ms an image (packed)", _count, packed_ms="packed.ms", float_ms="float32.ms", speed_busy="busy"),
    _speed_column(
        "images/s (packed)",
        _count,
        packed_images_per_s="packed.images_per_s",
        float_images_per_s="float32.images_per_s",
    ),
    _speed_column("speed-up over float (one image)", number, speedup_one="speed_up_one"),
    _speed_column(
        "speed-up over float (batches)",
        number,
        speedup_batches="speed_up_batches",
        speed_device="provenance.device",
        speed_measured="provenance.created",
        **{f"speed_{name}": name for name in ("threads", "batch_size", "others", "load_average")},
    ),
    _cost_column("binary_operations", "BOPs"),
    _cost_column("floating_point_operations", "FLOPs"),
    _cost_column("operations", "OPs"),
    plain_column("batch_size", numeric=True, released=False, parts=("costs",)),
    plain_column("batch_size_test", numeric=True, released=False, parts=("costs",)),
    plain_column("epochs", numeric=True, released=False),
    Column(
        header="training method",
        text=lambda line: _labelled(line) + (" (reconstruction)" if line["reconstruction"] else ""),
        values={**of_result("method"), "reconstruction": attrgetter("reconstruction"), **of_result("row", "binariser")},
        parts=PARTS,
        rank=2,
    ),
    Column(
        header="training (h)",
        text=lambda line: number(line["train_seconds_mean"] / 3600, ".3g"),
        values={"train_seconds_mean": attrgetter("train_seconds")},
        numeric=True,
        released=False,
        parts=("costs",),
    ),
    Column(
        header="Top-1 published",
        text=_quoted,
        values={f"published_{name}": _published(name) for name in ("top1", "top5", "source")},
        numeric=True,
        rank=4,
    ),
    number_column("Top-1 claimed", "claimed_top1", attrgetter("result.claim.top1"), released=True, rank=8),
    number_column("Top-1 measured", "top1", attrgetter("result.top1_best"), released=True, rank=3),
    Column(
        header="Top-5 measured",
        text=lambda line: number(line["top5"]),
        values={"top5": attrgetter("result.top5_best"), "loss": attrgetter("result.loss_best")},
        numeric=True,
        released=True,
    ),
    _spread_column("Top-1 best epoch", "top1_best", rank=3, more={"top1_best_leads": attrgetter("leads")}),
    _spread_column("Top-1 last epoch", "top1_last", rank=10),
    _spread_column("Top-5 best epoch", "top5_best"),
    Column(
        header="seeds",
        text=lambda line: str(line["seeds"]),
        values={
            "seeds": lambda line: len(line.seeds),
            "seed_list": lambda line: " ".join(str(seed) for seed in line.seeds),
        },
        numeric=True,
        released=False,
        rank=9,
    ),
    number_column("difference", "difference", attrgetter("difference"), "+.2f", released=False, rank=8),
    number_column("measured - claimed", "difference", attrgetter("difference"), "+.2f", released=True),
    Column(
        header="images",
        text=lambda line: f"{line['images']:,}",
        values={"images": attrgetter("result.test_images")},
        numeric=True,
        released=True,
    ),
    Column(
        header="verdict",
        text=lambda line: f"{line['verdict']}: {line['reason']}" if line["reason"] else line["verdict"],
        values={"verdict": attrgetter("verdict"), "reason": attrgetter("reason")},
        rank=5,
    ),
)
"""Every column, in order; accuracies are in percent, differences in points."""

_NARROW = {"training method": "method", "Top-1 best epoch": "top-1", "Top-1 measured": "top-1"}
_NARROW |= {"Top-1 published": "published", "Top-1 claimed": "claimed", "Top-1 last epoch": "last epoch"}
"""Headers where there is no room for the whole."""


def columns_of(table: Sequence[TableRow], columns: Sequence[Column] = COLUMNS) -> list[Column]:
    """Those that a table has: of released files or of trainings, and what was asked for besides."""
    found = _columns(any(line.result.claim is not None for line in table), columns)
    read = {name: value for column in found for name, value in column.values.items()}
    return [
        each for each in found if each.optional is None or any(read[each.optional](line) is not None for line in table)
    ]


def _columns(released: bool, columns: Sequence[Column] = COLUMNS) -> list[Column]:
    return [column for column in columns if column.released in (None, released)]


def tables_of(columns: Sequence[Column]) -> list[list[Column]]:
    """The columns of each table that has one of its own; of speeds there is none where nothing was measured."""
    own = {column.parts for column in columns}
    return [[column for column in columns if part in column.parts] for part in PARTS if (part,) in own]


def lines_of(table: Sequence[TableRow], columns: Sequence[Column] = COLUMNS) -> list[dict[str, Any]]:
    """Every line's plain values, by name."""
    values = {name: value for column in columns_of(table, columns) for name, value in column.values.items()}
    return [{name: _plain(value(line)) for name, value in values.items()} for line in table]


def _plain(value: Any) -> Any:
    return rounded(value) if isinstance(value, float) else value


def markdown(table: Sequence[TableRow], notes: Notes, suite: SuiteFacts, *, with_curves: bool = True) -> str:
    """The suite's tables with their notes, and links to the other forms and to the curves where it has some."""
    results, *others = tables_of(columns_of(table))
    lines = lines_of(table)
    further = "\n\n".join(_grid(columns, lines, markdown_text, "pipe") for columns in others)
    listed = "\n".join(f"- {markdown_text(note)}" for note in (*notes.reading, *notes.origin))
    curves = f"\n![Accuracy and loss by epoch](figures/{suite.name}/curves.svg)\n"
    methods = side_by_side(table)
    compared = "" if methods is None else f"## Methods side by side\n\n{markdown_grid(methods, markdown_text)}\n\n"
    return (
        f"# {markdown_text(suite.title)}\n\n{markdown_paragraph(suite.description)}\n\n"
        f"{_grid(results, lines, markdown_text, 'pipe')}\n\n"
        f"Accuracies in percent. As [CSV]({suite.name}.csv), [JSON]({suite.name}.json), [LaTeX]({suite.name}.tex) and "
        f"[HTML]({suite.name}.html).\n\n{compared}{further}\n\n{listed}\n" + (curves if with_curves else "")
    )


def latex(table: Sequence[TableRow], notes: Notes, suite: SuiteFacts) -> str:
    """All tables for `\\input` in a paper; needs the package booktabs."""
    results, *others = tables_of(columns_of(table))
    lines = lines_of(table)
    narrow = [column for column in results if column.rank is not None]
    head = [
        f"% {visible(suite.title)}: results, then costs{' and packed files' if others[1:] else ''}. Needs "
        "\\usepackage{booktabs}. Accuracies in percent."
    ]
    head += [f"% {visible(note)}" for note in notes.reading]
    tables = [_latex(_grid(columns, lines, visible, "latex_booktabs")) for columns in (narrow, *others)]
    methods = side_by_side(table)
    if methods is not None:
        tables.insert(1, _latex_methods(methods))
    return "\n".join((*head, "\n\n".join(tables), ""))


def _latex_methods(methods: Grid) -> str:
    """What was measured alone, which fits beside one another; the table of results has the rest."""
    from tabulate import tabulate

    def shown(cell: Cell | None) -> str:
        return _NONE if cell is None else f"{_BOLD}{cell.measured}{_BOLD}" if cell.best else cell.measured

    lines = [[visible(title), *map(shown, cells)] for title, cells in methods.lines]
    headers = [visible(name) for name in methods.header]
    grid = _latex(tabulate(lines, headers=headers, tablefmt="latex_booktabs", disable_numparse=True))
    return re.sub(f"{_BOLD}(.*?){_BOLD}", r"\\textbf{\1}", grid)


_BOLD = "@@"
"""Around what is bold: characters that LaTeX's escapes leave alone."""


def _latex(grid: str) -> str:
    # Two hyphens would be set as a dash, and a bracket or star at a line's beginning be taken for an option of `\\`.
    grid = re.sub(r"^ *([\[*])", r" {\1}", grid.replace("--", "-{}-").replace("--", "-{}-"), flags=re.MULTILINE)
    return grid.replace("±", r"\ensuremath{\pm}")


def _grid(columns: Sequence[Column], lines: Sequence[Line], escape: Callable[[str], str], form: str) -> str:
    from tabulate import tabulate

    return tabulate(
        [[escape(column.text(line)) for column in columns] for line in lines],
        headers=[column.header for column in columns],
        tablefmt=form,
        colalign=["right" if column.numeric else "left" for column in columns],
        disable_numparse=True,
    )


def csv(table: Sequence[TableRow], *, columns: Sequence[Column] = COLUMNS) -> str:
    """The table as plain values, one column for each number; text that would begin a formula as `csv_text` has it."""
    lines, buffer = lines_of(table, columns), io.StringIO()
    writer = csv_module.DictWriter(buffer, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: csv_text(value) if isinstance(value, str) else value for name, value in line.items()})
    return buffer.getvalue()


def as_json(table: Sequence[TableRow], notes: Notes, suite: SuiteFacts) -> str:
    """The same values with the suite's title and notes, and a self-check (`recu.results.seal`)."""
    content = {
        "suite": suite.name,
        "title": suite.title,
        "description": suite.description,
        "released": any(line.result.claim is not None for line in table),
        "experiments": {origin.id: origin.spec_hash for origin in suite.experiments},
        "rows": lines_of(table),
        "notes": {"reading": list(notes.reading), "origin": list(notes.origin)},
    }
    return json.dumps(content | {SEAL: content_hash(content)}, indent=2, allow_nan=False) + "\n"


def terminal(content: Mapping[str, Any], width: int | None) -> str:
    """The table of `as_json` for a terminal.

    Args:
        content: of the file.
        width: columns of characters; None shows everything, however wide, and the other tables.
    """
    lines = content["rows"]
    there = _columns(content["released"])
    there = [each for each in there if not each.optional or any(line.get(each.optional) is not None for line in lines)]
    # A table of an earlier version may lack values of costs.
    known = [each for each in there if "results" in each.parts or each.values.keys() <= lines[0].keys()]
    results, *others = tables_of(known)
    if width is None:
        shown, texts = results, _texts(results, lines)
    else:
        shown, texts = _fitting(results, lines, width)
    headers = [column.header if width is None else _NARROW.get(column.header, column.header) for column in shown]
    reasons = () if width is None else dict.fromkeys(line["reason"] for line in lines if line["reason"])
    below = [f"not comparable: {visible(reason)}" for reason in reasons]
    if width is not None and any(line.get("reconstruction") for line in lines):
        below.insert(0, "*: a reconstruction, the authors publish no recipe")
    title = visible(f"{content['title']} (suite {content['suite']}); accuracies in percent")
    wrapped = [part for text in (title, *below) for part in textwrap.wrap(text, width or len(text))]
    first = len(textwrap.wrap(title, width or len(title)))
    table = [*wrapped[:first], "", *_aligned(shown, [headers, *texts]), *wrapped[first:]]
    if width is None:
        for columns in others:
            table += ["", *_aligned(columns, [[column.header for column in columns], *_texts(columns, lines)])]
        notes = content.get("notes", {}).get("reading", ())
        table += [visible(note) for note in notes if note.startswith(SPEED)]
    return "\n".join(table)


def _texts(columns: Sequence[Column], lines: Sequence[Line]) -> list[list[str]]:
    return [[visible(column.text(line)) for column in columns] for line in lines]


def _aligned(columns: Sequence[Column], texts: Sequence[Sequence[str]]) -> list[str]:
    """Lines of text, the first of them headers."""
    widths = [max(map(len, cells)) for cells in zip(*texts, strict=True)]
    ruled = [texts[0], ["-" * width for width in widths], *texts[1:]]
    sides = [str.rjust if column.numeric else str.ljust for column in columns]
    padded = ([side(cell, width) for side, cell, width in zip(sides, line, widths, strict=True)] for line in ruled)
    return [(" " * _GAP).join(line).rstrip() for line in padded]


_GAP = 2
_SHORTEST = 8


def _fitting(columns: Sequence[Column], lines: Sequence[Line], width: int) -> tuple[list[Column], list[list[str]]]:
    """The first columns by rank that fit side by side, and their cells; names are cut where they must be."""
    ranked = sorted((column for column in columns if column.rank is not None), key=lambda column: column.rank or 0)
    cells = {column.header: [_brief(column, line) for line in lines] for column in ranked}
    wide = {
        column.header: max(map(len, (_NARROW.get(column.header, column.header), *cells[column.header])))
        for column in ranked
    }
    always = [column for column in ranked if column.rank in range(6)]
    chosen = list(always)
    for column in ranked[len(always) :]:
        if sum(wide[each.header] + _GAP for each in (*chosen, column)) - _GAP <= width:
            chosen.append(column)
    room = width - sum(wide[each.header] + _GAP for each in chosen) + _GAP
    for column in sorted(always, key=lambda each: -wide[each.header]):
        if room < 0 and not column.numeric and column.header != "verdict":
            kept = max(_SHORTEST, wide[column.header] + room)
            room += wide[column.header] - kept
            cells[column.header] = [_cut(text, kept) for text in cells[column.header]]
    shown = [column for column in columns if column in chosen]
    return shown, [list(line) for line in zip(*(cells[column.header] for column in shown), strict=True)]


def _brief(column: Column, line: Line) -> str:
    """Without what stands below the table: reasons, and what a reconstruction is."""
    if column.header == "training method":
        return visible(_labelled(line)) + ("*" if line["reconstruction"] else "")
    return visible(line["verdict"] if column.header == "verdict" else column.text(line))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
