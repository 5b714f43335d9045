"""Pages in HTML that need no other file: a suite's table, the overview of all suites, a run, the claims.

Templates place what is computed here, and escape it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from recu.base.text import counted, visible
from recu.experiment.binarisers import title_of
from recu.experiment.plan import FIGURES, TABLE_FORMATS
from recu.experiment.schema import PublishedResult
from recu.experiment.suite_facts import SuiteFacts
from recu.report import diagnostic_figures, figures
from recu.report.claims import RULE as CLAIMS_RULE
from recu.report.claims import Weighed
from recu.report.methods import Grid, side_by_side
from recu.report.notes import Notes, commit, notes
from recu.report.summary import TableRow, rounded
from recu.report.tables import Column, columns_of, lines_of, number, tables_of
from recu.results.flatten import flatten_params
from recu.results.records import EvaluationRecord, Provenance, ReleasedRecord, Row, TrainingRecord

_HISTOGRAMS = (
    "Latent weights of {} after the first, the middle and the last epoch: before (v) and after (u) they are clamped at "
    "-Q and Q; the share of the layer's weights is on a logarithmic axis."
)
CAPTIONS = {
    "curves": "Top-1 (%) and cross-entropy (nats) by epoch, test solid and training dashed. A training that starts "
    "from another's weights continues its epochs. Several seeds: mean, and a band of one standard deviation "
    "on each side.",
    "published": "Published top-1 and ours (best epoch, mean over the seeds with its 95 % interval).",
    "classes": "Confusion matrix (images, rows are the true classes) and accuracy of every class; several seeds are "
    "counted together.",
    "weights": "The binary layers by epoch, means over their weights and the seeds (docs/diagnostics.md): dead "
    "weights, signs flipped, quantisation error, entropy, threshold, and alpha: the mean over the layers, each "
    "counted by its weights, and, thin, the smallest and the largest of all filters.",
    "histograms": _HISTOGRAMS.format("the middle binary layer, of each first seed that was measured,"),
}
"""What each figure of a suite shows."""
_RUN_CAPTIONS = CAPTIONS | {
    "weights": "The binary layers of this training by epoch (docs/diagnostics.md): the network as a whole, its first, "
    "middle and last binary layer, and a band over all layers; of alpha the means, and a band over all filters.",
    "histograms": _HISTOGRAMS.format("the first, the middle and the last binary layer"),
}

_ON_INDEX = ("curves", "published")
"""Figures of each suite on the page over all suites; the page of the suite has all of them, that of a run its own."""

_GOOD, _BAD = ("reproduced", "above", "confirmed", "supported"), ("below", "differs", "contradicted")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One suite's results, as pages show them."""

    facts: SuiteFacts
    rows: Sequence[Row]
    table: Sequence[TableRow]

    @property
    def notes(self) -> Notes:
        """Below its table."""
        return notes(self.table, self.rows, self.facts)

    @property
    def trains(self) -> bool:
        """Whether it has curves."""
        return any(row.curve for row in self.rows)

    def drawing(self, name: str) -> Callable[[], Any]:
        """What draws one of its figures, by name."""
        return {
            "curves": lambda: figures.curves(self.rows, self.table),
            "published": lambda: figures.published(self.table),
            "classes": lambda: figures.classes(self.rows),
            "weights": lambda: diagnostic_figures.weights(self.rows),
            "histograms": lambda: diagnostic_figures.histograms(self.rows),
        }[name]


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Published results of which nothing comparable was run, and a suite that would give them."""

    published: Sequence[PublishedResult]
    suite: str | None
    """None where no suite of params/ would."""
    cost: str
    """Of the whole suite, in words."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that is known of one training, or released file, and its evaluation."""

    row: Row
    training: TrainingRecord | ReleasedRecord
    evaluation: EvaluationRecord
    siblings: Sequence[str]
    """Ids of the other seeds."""
    verified: Sequence[str]
    """What was found about it, in sentences."""
    commands: Sequence[tuple[str, str]]
    """That repeat it: where, in words, and the command."""


def suite_page(suite: Suite) -> str:
    """SUITE.html."""
    return _render("suite.html.j2", title=visible(suite.facts.title), suite=_shown(suite, FIGURES, linked=False))


def index_page(
    suites: Sequence[Suite], published: Sequence[PublishedResult], missing: Sequence[Missing], problems: Sequence[str]
) -> str:
    """index.html.

    Args:
        suites: that have results.
        published: every published result, in order.
        missing: those of which nothing comparable was run, by the suites that would give them.
        problems: what could not be shown, in sentences.
    """
    found = [(result, _comparable(result, suites)) for result in published]
    return _render(
        "index.html.j2",
        title="ReCU: published and reproduced",
        summary=_summary(found),
        suites=[(suite.facts.name, _shown(suite, _ON_INDEX, linked=True)) for suite in suites],
        published=_published_grid(found),
        missing=_missing_grid(missing),
        problems=[visible(problem) for problem in problems],
    )


def run_page(run: Run, suite: Suite, *, with_figures: bool) -> str:
    """Of one run, which lies below runs/ where its id says."""
    row, place = run.row, PurePosixPath(address(run.row.experiment_id))
    alone = [each for each in suite.rows if each.experiment_id in _chain(row, suite.rows)]
    drawn = _run_figures(alone, run, suite) if with_figures else []
    note = "Figures of single runs are drawn in suites of few runs only; the numbers stand below."
    return _render(
        "run.html.j2",
        title=visible(row.experiment_id),
        up="../" * (len(place.parts) - 1),
        summary=_run_summary(run),
        facts=_run_facts(run),
        commands=run.commands,
        verified=[visible(line) for line in run.verified],
        figures=drawn,
        figure_notes=[] if with_figures else [note],
        configuration=[(name, visible(value)) for name, value in flatten_params(run.training.hashed).items()],
        environments=_environments(run),
        history=_history(run.training),
    )


def claims_page(weighed: Sequence[Weighed]) -> str:
    """claims.html."""
    return _render(
        "claims.html.j2",
        title="What the paper claims, and what was found",
        rule=CLAIMS_RULE,
        claims=[_claim(each) for each in weighed],
    )


def address(identifier: str) -> str:
    """Of a run's page, from the folder of index.html."""
    return f"runs/{identifier}.html"


def _render(template: str, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("recu.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def _drawn(drawings: Mapping[str, Callable[[], Any]], captions: Mapping[str, str] = CAPTIONS) -> list[_Figure]:
    """Those figures that have anything to show, by name."""
    from markupsafe import Markup

    found = []
    for name, draw in drawings.items():
        lines, title = figures.panels(draw)
        if lines:
            panels = [Markup(figures.inline(panel)) for line in lines for panel in line]
            caption = captions[name] + (f" {title}." if title else "")
            found.append(_Figure(caption=caption, panels=panels, columns=len(lines[0])))
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Figure:
    caption: str
    panels: Sequence[Any]
    columns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Head:
    text: str
    numeric: bool = False
    kind: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cell:
    text: str
    address: str = ""
    links: tuple[tuple[str, str], ...] = ()
    sort: Any = None
    strong: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    cells: Sequence[_Cell]
    mood: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Grid:
    heads: Sequence[_Head]
    lines: Sequence[_Line]
    sortable: bool = True


def _shown(suite: Suite, shown: Iterable[str], *, linked: bool) -> dict[str, Any]:
    facts, below = suite.facts, suite.notes
    results, costs, *speeds = tables_of(columns_of(suite.table))
    methods = side_by_side(suite.table)
    return {
        "title": visible(facts.title),
        "description": visible(facts.description),
        "results": _table_grid(suite.table, results, linked=linked),
        "costs": _table_grid(suite.table, costs, linked=linked),
        "speeds": [_table_grid(suite.table, columns, linked=linked) for columns in speeds],
        "methods": _methods_grid(methods) if methods else None,
        "methods_notes": " ".join(visible(note) for note in methods.notes) if methods else "",
        "reading": [visible(note) for note in below.reading],
        "origin": [visible(note) for note in below.origin],
        "figures": _drawn({name: suite.drawing(name) for name in shown if suite.trains}),
        "forms": [f"{facts.name}.{form}" for form in TABLE_FORMATS if form != "html"],
    }


def _methods_grid(methods: Grid) -> _Grid:
    lines = [
        _Line(
            cells=[
                _Cell(text=visible(title)),
                *(_Cell(text=visible(cell.plain), strong=cell.best) if cell else _Cell(text="-") for cell in cells),
            ]
        )
        for title, cells in methods.lines
    ]
    return _Grid(heads=[_Head(text=visible(name)) for name in methods.header], lines=lines, sortable=False)


def _table_grid(table: Sequence[TableRow], columns: Sequence[Column], *, linked: bool) -> _Grid:
    lines = []
    for row, values in zip(table, lines_of(table), strict=True):
        page = address(row.runs[0]) if linked else ""
        cells = []
        for column in columns:
            first = values[column.first]
            sort: Any = first if isinstance(first, int | float) and not isinstance(first, bool) else None
            if column.numeric and first is None:
                sort = ""
            links = _seeds(row) if linked and column.header == "seeds" else ()
            cells.append(_Cell(text=visible(column.text(values)), address=page, links=links, sort=sort))
        lines.append(_Line(cells=cells, mood=_mood(row.verdict)))
    heads = [
        _Head(text=column.header, numeric=column.numeric, kind=column.header.split()[0].lower()) for column in columns
    ]
    return _Grid(heads=heads, lines=lines)


def _seeds(line: TableRow) -> tuple[tuple[str, str], ...]:
    """A link for each seed of a line."""
    return tuple(zip(map(str, line.seeds), map(address, line.runs), strict=True))


def _mood(verdict: str) -> str:
    return "good" if verdict in _GOOD else "bad" if verdict in _BAD else ""


def _comparable(result: PublishedResult, suites: Iterable[Suite]) -> list[TableRow]:
    """Lines of all suites that were compared with this published result."""
    lines = (line for suite in suites for line in suite.table)
    return [line for line in lines if line.published == result and line.against_published]


def _summary(found: Sequence[tuple[PublishedResult, Sequence[TableRow]]]) -> str:
    lines = [line for _, each in found for line in each]
    run = sum(bool(each) for _, each in found)
    text = f"{counted(len(found), 'published result')}: {run} run as published, {len(found) - run} not."
    if lines:
        verdicts = [line.verdict for line in lines]
        listed = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
        furthest = max(lines, key=lambda line: abs(line.difference or 0.0))
        text += (
            f" Of {counted(len(lines), 'line')} that may be compared: {listed}. The largest difference is "
            f"{number(furthest.difference, '+.2f')} points ({furthest.result.model},"
            f" {furthest.result.labelled_method})."
        )
    else:
        text += " Nothing that was run may be compared with a published number; each suite below says why."
    return text


def _published_grid(found: Sequence[tuple[PublishedResult, Sequence[TableRow]]]) -> _Grid:
    heads = [
        *(_Head(text=name, kind=name) for name in ("dataset", "model", "method")),
        *(_Head(text=name, numeric=True) for name in ("epochs", "published", "best epoch", "last epoch")),
        *(_Head(text=name, numeric=True) for name in ("seeds", "difference")),
        _Head(text="verdict", kind="verdict"),
    ]
    return _Grid(heads=heads, lines=[line for result, lines in found for line in _published_lines(result, lines)])


def _published_lines(result: PublishedResult, lines: Sequence[TableRow]) -> Iterable[_Line]:
    named = [_Cell(text=visible(text or "-")) for text in (result.dataset, result.model, result.method)]
    epochs = _Cell(text=str(result.epochs or "-"), sort=result.epochs or "")
    known = [*named, epochs, _Cell(text=number(result.top1), sort=result.top1)]
    if not lines:
        empty = [_Cell(text="-", sort="") for _ in range(4)]
        yield _Line(cells=[*known, *empty, _Cell(text="not run")])
    for line in lines:
        page = address(line.runs[0])
        n = len(line.seeds)
        yield _Line(
            cells=[
                *(_Cell(text=cell.text, sort=cell.sort, address=page) for cell in known),
                _Cell(text=line.top1_best.with_interval(n), sort=line.top1_best.mean, address=page),
                _Cell(
                    text=line.top1_last.with_interval(n) if line.top1_last else "-",
                    sort=line.top1_last.mean if line.top1_last else "",
                    address=page,
                ),
                _Cell(text=str(n), links=_seeds(line), sort=n),
                _Cell(text=number(line.difference, "+.2f"), sort=line.difference, address=page),
                _Cell(text=line.verdict, address=page),
            ],
            mood=_mood(line.verdict),
        )


def _missing_grid(missing: Sequence[Missing]) -> _Grid:
    heads = [_Head(text=name, kind=name) for name in ("command", "cost", "gives")]
    lines = [
        _Line(
            cells=[
                _Cell(text=f"snakemake --cores all --config suites={each.suite}" if each.suite else "no suite has it"),
                _Cell(text=each.cost),
                _Cell(text=visible("; ".join(map(_in_words, each.published)))),
            ]
        )
        for each in missing
    ]
    return _Grid(heads=heads, lines=lines)


def _in_words(result: PublishedResult) -> str:
    named = [text for text in (result.dataset, result.model, result.method) if text]
    return f"{' '.join(named)} {number(result.top1)}"


def _chain(row: Row, rows: Sequence[Row]) -> list[str]:
    """Ids of a run and of those it started from."""
    by_id = {each.experiment_id: each for each in rows}
    found: list[str] = []
    while True:
        found.append(row.experiment_id)
        if row.parent is None or row.parent.id not in by_id or row.parent.id in found:
            return found
        row = by_id[row.parent.id]


def _run_figures(rows: Sequence[Row], run: Run, suite: Suite) -> list[_Figure]:
    row, training = run.row, run.training
    lines = [line for line in suite.table if row.experiment_id in line.runs]
    draw: dict[str, Callable[[], Any]] = {}
    if row.curve is not None:
        draw["curves"] = lambda: figures.curves(rows, lines)
    draw["classes"] = lambda: figures.classes([row])
    if isinstance(training, TrainingRecord):
        start = figures.starts_of(rows)[row.experiment_id]
        draw["weights"] = lambda: diagnostic_figures.layers(training.diagnostics, start)
        draw["histograms"] = lambda: diagnostic_figures.layer_histograms(training.diagnostics, start)
    return _drawn(draw, _RUN_CAPTIONS)


def _run_summary(run: Run) -> str:
    row = run.row
    # As the tables have them.
    top1, top5, last = (
        number(None if value is None else rounded(value)) for value in (row.top1_best, row.top5_best, row.top1_last)
    )
    text = f"Top-1 {top1} %, top-5 {top5} % on {row.test_images:,} test images"
    if row.best_epoch is not None:
        text += f", best epoch {row.best_epoch + 1} of {row.epochs}; last epoch {last} %"
    if row.claim is not None:
        text += f"; claimed {row.claim.top1:.2f} %"
    return f"{text}. A single run says nothing about its spread."


_STAGES = {0: "none: real weights and activations", 1: "{}, activations alone", 2: "{}, activations and weights"}


def _run_facts(run: Run) -> list[tuple[str, str]]:
    row, training = run.row, run.training
    pairs = {
        "network": f"{row.network}, shortcuts {row.shortcut}",
        "binariser": _STAGES[row.stage].format(title_of(row.binariser, family=row.family)),
        "dataset": f"{row.dataset}, fingerprint {row.data_fingerprint}",
        "parameters": f"hash {row.spec_hash}",
        "checkpoint": f"SHA-256 {row.checkpoint_sha256}",
        "loss": f"{run.evaluation.loss:.4f} nats",
        "started from": row.parent.id if row.parent else "random weights" if row.claim is None else "not known",
        "taught by": row.teacher.id if row.teacher else "nothing",
        "other seeds": ", ".join(run.siblings) or "none",
    }
    if isinstance(training, TrainingRecord):
        pairs["training took"] = f"{training.train_seconds:,.0f} s"
    return [(name, visible(value)) for name, value in pairs.items()]


def _environments(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    pieces = [
        (f"Training, {piece.epochs}" if len(run.row.segments) > 1 else "Training", piece.provenance)
        for piece in run.row.segments
    ]
    return [(name, _environment(origin)) for name, origin in (*pieces, ("Evaluation", run.row.evaluate_provenance))]


def _environment(origin: Provenance) -> list[tuple[str, str]]:
    packages = ", ".join(f"{name} {version}" for name, version in origin.packages.items() if version is not None)
    pairs = {
        "device": origin.device,
        "platform": origin.platform,
        "when": f"{origin.created} (UTC)",
        "code": f"{commit(origin)}; code hash {origin.code_hash}",
        "packages": packages,
        "environment": f"hash {origin.environment_hash}",
    }
    return [(name, visible(value)) for name, value in pairs.items()]


_EPOCH = ("lr", "tau", "train_loss", "train_top1", "test_loss", "test_top1", "test_top5")


def _history(training: TrainingRecord | ReleasedRecord) -> _Grid:
    records = training.history if isinstance(training, TrainingRecord) else ()
    heads = [_Head(text=name.replace("_", " "), numeric=True) for name in ("epoch", *_EPOCH)]
    lines = [
        _Line(
            cells=[
                _Cell(text=str(each.epoch + 1), sort=each.epoch + 1),
                *(_Cell(text=f"{value:.4g}", sort=value) for value in (getattr(each, name) for name in _EPOCH)),
            ]
        )
        for each in records
    ]
    return _Grid(heads=heads, lines=lines)


def _claim(weighed: Weighed) -> Mapping[str, Any]:
    claim = weighed.claim
    pairs = [("source", claim.source), ("tested by", claim.test), ("verdict", weighed.verdict)]
    if claim.undecided:
        pairs.append(("cannot be decided yet", claim.undecided))
    heads = [
        *(_Head(text=name, kind=name) for name in ("what", "runs")),
        _Head(text="difference", numeric=True),
        _Head(text="verdict", kind="verdict"),
    ]
    lines = [
        _Line(
            cells=[
                _Cell(text=visible(each.what)),
                _Cell(
                    text="-" if not each.runs else "",
                    links=tuple((_run_name(name), address(name)) for name in each.runs),
                ),
                _Cell(text=each.interval, sort="" if each.difference is None else each.difference),
                _Cell(text=each.verdict),
            ],
            mood=_mood(each.verdict),
        )
        for each in weighed.evidence
    ]
    return {
        "name": claim.name,
        "claim": visible(claim.claim),
        "facts": [(name, visible(value)) for name, value in pairs],
        "evidence": _Grid(heads=heads, lines=lines, sortable=len(lines) > 1),
    }


def _run_name(identifier: str) -> str:
    # Suite and dataset stand beside it.
    return "/".join(identifier.split("/")[2:]) or identifier
