"""A table as Markdown, CSV and HTML. What it shows is described once, in `COLUMNS`."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from recu.base.text import csv_text, markdown_paragraph, markdown_text, visible
from recu.experiment.suite_facts import SuiteFacts
from recu.report.notes import Notes
from recu.report.summary import Spread, TableRow

_NONE = "-"


Read = Callable[[Any], Any]
"""A value of one line of the table, a `TableRow`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column as people read it, and the plain values that stand for it in the CSV file."""

    header: str
    text: Callable[[Any], str]
    """From one line of the table."""
    values: Mapping[str, Read] = field(default_factory=dict)
    """By CSV column name."""
    numeric: bool = False
    released: bool | None = None
    """Whether it stands in tables of released files alone; None for in every table, False for in all others."""


def plain_column(
    name: str, header: str | None = None, *, numeric: bool = False, released: bool | None = None
) -> Column:
    """A column of one attribute of the result as it is."""
    read = attrgetter(f"result.{name}")
    return Column(
        header=header or name,
        text=lambda line: str(read(line)),
        values={name: read},
        numeric=numeric,
        released=released,
    )


def of_result(*names: str) -> dict[str, Read]:
    """Attributes of a line's result, as `Column.values`."""
    return {name: attrgetter(f"result.{name}") for name in names}


def number_column(header: str, name: str, read: Read, form: str = ".2f", *, released: bool | None) -> Column:
    """A column of one number, a dash where there is none; rounded to four digits in the CSV file."""
    return Column(
        header=header,
        text=lambda line: number(read(line), form),
        values={name: lambda line: None if read(line) is None else round(read(line), 4)},
        numeric=True,
        released=released,
    )


def number(value: float | None, form: str = ".2f") -> str:
    """A number in a cell; a dash for none."""
    return _NONE if value is None else format(value, form)


def _accuracy(value: Spread) -> str:
    return f"{value.mean:.2f}" if value.sd is None else f"{value.mean:.2f} ± {value.sd:.2f}"


def _spread_column(header: str, name: str) -> Column:
    return Column(
        header=header,
        text=lambda line: _accuracy(getattr(line, name)),
        values={
            f"{name}_mean": lambda line: round(getattr(line, name).mean, 4),
            f"{name}_sd": lambda line: None if getattr(line, name).sd is None else round(getattr(line, name).sd, 4),
        },
        numeric=True,
        released=False,
    )


def _cost_column(name: str, header: str, unit: int = 1) -> Column:
    cost = attrgetter(f"result.cost.{name}")
    return Column(header=header, text=lambda line: _count(cost(line) / unit), values={name: cost}, numeric=True)


def _count(value: float) -> str:
    """Four significant digits, with a power of ten for what nobody can read otherwise."""
    return f"{value:.3e}" if value >= 1e5 else f"{value:.4g}"


def _published(name: str) -> Read:
    return lambda line: getattr(line.published, name, None)


def _not_quoted(line: TableRow) -> bool:
    return line.published is not None and line.published.top1 is None


COLUMNS: tuple[Column, ...] = (
    Column(
        header="file",
        text=attrgetter("result.claim.name"),
        values={
            "file": attrgetter("result.claim.name"),
            "path": attrgetter("result.claim.path"),
            **of_result("checkpoint_sha256"),
        },
        released=True,
    ),
    Column(
        header="dataset",
        text=attrgetter("dataset_title"),
        values={**of_result("dataset"), "dataset_title": attrgetter("dataset_title")},
    ),
    plain_column("model"),
    Column(
        header="family",
        text=lambda line: line.result.family + (f" ({line.result.variant})" if line.result.variant else ""),
        values=of_result("family", "variant"),
    ),
    plain_column("shortcut", "shortcuts"),
    _cost_column("parameters", "parameters"),
    _cost_column("checkpoint_bytes", "size (KB)", unit=1000),
    _cost_column("binary_operations", "BOPs"),
    _cost_column("floating_point_operations", "FLOPs"),
    _cost_column("operations", "OPs"),
    plain_column("batch_size", numeric=True, released=False),
    plain_column("batch_size_test", numeric=True, released=False),
    plain_column("epochs", numeric=True, released=False),
    Column(
        header="training method",
        text=lambda line: line.result.labelled_method + (" (reconstruction)" if line.reconstruction else ""),
        values={**of_result("method"), "reconstruction": attrgetter("reconstruction"), **of_result("row")},
    ),
    Column(
        header="Top-1 published",
        text=lambda line: "not quoted" if _not_quoted(line) else number(_published("top1")(line)),
        values={f"published_{name}": _published(name) for name in ("top1", "top5", "source")},
        numeric=True,
    ),
    number_column("Top-1 claimed", "claimed_top1", attrgetter("result.claim.top1"), released=True),
    number_column("Top-1 measured", "top1", attrgetter("result.top1_best"), released=True),
    Column(
        header="Top-5 measured",
        text=lambda line: number(line.result.top5_best),
        values={
            "top5": lambda line: round(line.result.top5_best, 4),
            "loss": lambda line: round(line.result.loss_best, 6),
        },
        numeric=True,
        released=True,
    ),
    _spread_column("Top-1 best epoch", "top1_best"),
    _spread_column("Top-1 last epoch", "top1_last"),
    _spread_column("Top-5 best epoch", "top5_best"),
    Column(
        header="seeds",
        text=lambda line: str(len(line.seeds)),
        values={
            "seeds": lambda line: len(line.seeds),
            "seed_list": lambda line: " ".join(str(seed) for seed in line.seeds),
        },
        numeric=True,
        released=False,
    ),
    number_column("difference", "difference", attrgetter("difference"), "+.2f", released=False),
    number_column("measured - claimed", "difference", attrgetter("difference"), "+.2f", released=True),
    Column(
        header="images",
        text=lambda line: f"{line.result.test_images:,}",
        values={"images": attrgetter("result.test_images")},
        numeric=True,
        released=True,
    ),
    Column(
        header="verdict",
        text=lambda line: f"{line.verdict}: {line.reason}" if line.reason else line.verdict,
        values={"verdict": attrgetter("verdict"), "reason": attrgetter("reason")},
    ),
)
"""Every column, in order; accuracies are in percent, differences in points."""


def columns_of(table: Sequence[TableRow], columns: Sequence[Column] = COLUMNS) -> list[Column]:
    """Those that a table has: of released files or of trainings."""
    trains = any(line.result.claim is None for line in table)
    return [column for column in columns if column.released is not trains]


def markdown(table: Sequence[TableRow], notes: Notes, suite: SuiteFacts, *, with_curves: bool = True) -> str:
    """The suite's table with its notes, and links to the other forms beside it and to the curves where it has some."""
    from tabulate import tabulate

    columns = columns_of(table)
    cells = [[markdown_text(column.text(row)) for column in columns] for row in table]
    grid = tabulate(
        cells,
        headers=[column.header for column in columns],
        tablefmt="pipe",
        colalign=["right" if column.numeric else "left" for column in columns],
        disable_numparse=True,
    )
    listed = "\n".join(f"- {markdown_text(note)}" for note in (*notes.reading, *notes.origin))
    return (
        f"# {markdown_text(suite.title)}\n\n{markdown_paragraph(suite.description)}\n\n{grid}\n\n"
        f"Accuracies in percent. As [CSV]({suite.name}.csv) and [HTML]({suite.name}.html).\n\n{listed}\n"
        + (f"\n![Test top-1 by epoch]({suite.name}.svg)\n" if with_curves else "")
    )


def csv(table: Sequence[TableRow], *, columns: Sequence[Column] = COLUMNS) -> str:
    """The table as plain values, one column for each number; text that would begin a formula as `csv_text` has it."""
    import pandas

    values = {name: value for column in columns_of(table, columns) for name, value in column.values.items()}
    frame = pandas.DataFrame(
        [{name: _plain(value(row)) for name, value in values.items()} for row in table], columns=list(values)
    )
    return frame.to_csv(index=False, lineterminator="\n")


def html(table: Sequence[TableRow], notes: Notes, suite: SuiteFacts, curves: bytes | None) -> str:
    """A page that needs no other file: the table, its notes, and the curves (an SVG) inside it where it has some."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    columns = columns_of(table)
    environment = Environment(
        loader=PackageLoader("recu.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("table.html.j2").render(
        name=suite.name,
        title=visible(suite.title),
        description=visible(suite.description),
        columns=columns,
        lines=[[(column, visible(column.text(row))) for column in columns] for row in table],
        reading=[visible(note) for note in notes.reading],
        origin=[visible(note) for note in notes.origin],
        curves=None if curves is None else base64.b64encode(curves).decode(),
    )


def _plain(value: Any) -> Any:
    return csv_text(value) if isinstance(value, str) else value
