"""What stands under a table: its rule, what its columns mean, and what its numbers rest on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recu.base.text import counted
from recu.experiment.suite_facts import MethodFacts, SuiteFacts
from recu.report.summary import RELEASED_RULE, RULE, TableRow
from recu.results.records import Provenance, Row, SpeedRecord
from recu.results.sharing import pieces_worded

COST = (
    "Cost, of one image at the row's input size, counted from the network: parameters; size with a binary weight in "
    "one bit and any other value in 32; BOPs, binary multiply-accumulates; FLOPs, floating-point ones of convolutions "
    "and linear layers; OPs = BOPs / 64 + FLOPs."
)
"""What the cost columns of every table mean."""

SPEED = "Speed: "
"""Begins what is said of measured speeds, where there are some."""

_SPEED = (
    f"{SPEED}of the packed file (of several seeds the first one's), from normalised test images to logits, in "
    "milliseconds for one image at a time and in images/s. Speed-up over float: over the same architecture with real "
    "weights and activations, which one would deploy in place of a binary network, as PyTorch runs it (float32, "
    "operation by operation, channels last), with random weights, on which no speed depends. Both took turns with as "
    "many threads; medians. *: other programs used more than a tenth of the machine meanwhile, and no speed-up is said."
)

_RELEASED = (
    RELEASED_RULE,
    "Published: the number in the authors' table for this dataset, network and training method. Claimed: what "
    "whoever released the file says of it, as params/suites/ states it.",
    "Form: a network's earlier form (2021-03) is recognised from the file's keys. Each file gave every tensor "
    "of its network.",
    COST,
)


@dataclass(frozen=True, slots=True)
class Notes:
    """Sentences below a table; each starts with its subject and a colon."""

    reading: tuple[str, ...]
    """How to read the columns, and the rule of the verdict."""
    origin: tuple[str, ...]
    """Dates, hardware, versions, and the files behind the numbers."""


def notes(table: Sequence[TableRow], rows: Sequence[Row], suite: SuiteFacts) -> Notes:
    """All notes of one suite's table."""
    files = [row for row in rows if row.claim]
    reading = _RELEASED if files else (RULE, *_columns(), *_methods(table, suite))
    return Notes(reading=(*reading, *_speeds(table)), origin=_origin(rows, files))


def _columns() -> tuple[str, ...]:
    return (
        "Best epoch: the epoch with the highest top-1 on the test set, as the authors report it. Choosing on the test "
        "set flatters, so the last epoch, which involves no choice, stands beside it.",
        COST,
        "±: half of the 95 % interval of the mean over the seeds, by Student's t; none for a single run. ± 0.00: every "
        "seed has the same accuracy, which does not show that others would. CSV and JSON have the sample standard "
        "deviation (n - 1) too.",
    )


def _methods(table: Sequence[TableRow], suite: SuiteFacts) -> list[str]:
    return [_method(name, suite.methods[name]) for name in dict.fromkeys(line.result.method for line in table)]


def _method(name: str, method: MethodFacts) -> str:
    if not method.reconstruction:
        return f"Method {name}: {method.description}"
    return (
        f"Reconstruction: the authors publish no recipe for {method.published_as or name!r}; {name} is our reading of"
        f" it. {method.description}"
    )


def _origin(rows: Sequence[Row], files: Sequence[Row]) -> tuple[str, ...]:
    trained = [piece.provenance for row in rows for piece in row.segments]
    evaluated = [row.evaluate_provenance for row in rows]
    everything = [*trained, *evaluated]
    hours = sum(row.train_seconds for row in rows) / 3600
    hardware = f"evaluated on {listed(each.device for each in evaluated)}"
    if trained:
        trained_on = listed(each.device for each in trained)
        hardware = f"trained on {trained_on}; {hardware}. Training took {hours:.2f} h in all"
    names = (f"{row.claim.path} (SHA-256 {row.checkpoint_sha256[:16]})" for row in files if row.claim)
    what = "released file" if files else "training"
    return (
        _dates(everything),
        f"Hardware: {hardware}.",
        *_versions(everything),
        *_pieces(rows),
        *_sharing(rows),
        f"Data: {listed(_data_of(row) for row in rows)}.",
        *([f"Files: {listed(names)}."] if files else []),
        f"Rests on: {counted(len(rows), what)} and the evaluation of each one's best checkpoint, whose parameters, "
        "data and checkpoint hashes agree: metrics.json below results/train/ and results/evaluate/, by the "
        "experiments' names.",
    )


def _pieces(rows: Sequence[Row]) -> list[str]:
    """Which epochs of a training that was interrupted rest on what."""
    worded = ((row, _codes([piece.provenance for piece in row.segments])) for row in rows)
    return [
        f"Pieces: {row.experiment_id} was trained by more than one code: "
        + "; ".join(f"{piece.epochs} by {code}" for piece, code in zip(row.segments, codes, strict=True))
        + "."
        for row, codes in worded
        if len(set(codes)) > 1
    ]


def _sharing(rows: Sequence[Row]) -> list[str]:
    """Which trainings several devices shared, whose BatchNorms may see less than the whole batch."""
    worded = (
        (row.experiment_id, pieces_worded(row.segments, row.batch_size, row.replicas or 1))
        for row in rows
        if row.batch_size is not None
    )
    return [f"Devices: {experiment} was trained in {'; '.join(texts)}." for experiment, texts in worded if texts]


def _speeds(table: Sequence[TableRow]) -> list[str]:
    """What speeds mean; where, when and by which software they were measured, and what else the machine did."""
    several = len({line.result.dataset for line in table}) > 1
    machines: dict[tuple[str, int], list[tuple[str, SpeedRecord]]] = {}
    for line in table:
        if (speed := line.result.speed) is not None:
            machine = machines.setdefault((speed.provenance.device, speed.processors), [])
            machine.append((_file_or_network(line.result, several), speed))
    found = [_SPEED] if machines else []
    for (device, processors), named in machines.items():
        of = f" of {'; '.join(name for name, _ in named)}" if len(machines) > 1 else ""
        speeds = [speed for _, speed in named]
        origins = [speed.provenance for speed in speeds]
        packages = (f"{name} {listed(each.packages.get(name) for each in origins)}" for name in ("torch", "numba"))
        found.append(
            f"{SPEED}measured{of} on {device}, {_days(origins)}, in batches of "
            f"{listed(str(speed.batch_size) for speed in speeds)} images, by {', '.join(packages)}, "
            f"{listed(_codes(origins))}. Busy with other programs meanwhile: "
            f"{_range(speed.others for speed in speeds)} of {counted(processors, 'processor')}; load average: "
            f"{_range(speed.load_average for speed in speeds)}."
        )
    return found


def _file_or_network(row: Row, several: bool) -> str:
    """What a line of the table is of; with its dataset where the table has several."""
    name = row.claim.name if row.claim else f"{row.network}, {row.labelled_method}"
    return f"{name} on {row.dataset}" if several else name


def _range(values: Iterable[float | None]) -> str:
    known = [f"{value:.1f}" for value in sorted(value for value in values if value is not None)]
    return " to ".join(dict.fromkeys((known[0], known[-1]))) if known else "unknown"


def _dates(origins: Iterable[Provenance]) -> str:
    """When results with these provenances were made."""
    return f"Date: {_days(origins)}."


def _days(origins: Iterable[Provenance]) -> str:
    days = sorted(each.created[:10] for each in origins)
    return f"{days[0]}{f' to {days[-1]}' if days[-1] != days[0] else ''} (UTC)"


def _versions(origins: Sequence[Provenance]) -> tuple[str, ...]:
    """By which software and code results with these provenances were made."""
    return (
        f"Software: torch {listed(each.packages.get('torch') for each in origins)}, Python "
        f"{listed(each.packages.get('python') for each in origins)}.",
        f"Code: {listed(_codes(origins))}.",
    )


def _codes(origins: Sequence[Provenance]) -> list[str]:
    """The code of each in words, with its hash where one commit was several: changed files, or a user's own."""
    hashes: dict[str, set[str]] = {}
    for each in origins:
        hashes.setdefault(commit(each), set()).add(each.code_hash)
    return [
        f"{word}, code hash {each.code_hash[:16]}" if len(hashes[word]) > 1 else word
        for each, word in ((each, commit(each)) for each in origins)
    ]


def _data_of(row: Row) -> str:
    """The data one result rests on."""
    return f"{row.dataset} (fingerprint {row.data_fingerprint[:16]}, {row.test_images:,} test images)"


def listed(values: Iterable[str | None]) -> str:
    """Each once, in order."""
    return ", ".join(dict.fromkeys(value if value is not None else "unknown" for value in values))


def commit(provenance: Provenance) -> str:
    """The code that gave a result, in words."""
    if provenance.git_commit is None:
        return f"no git checkout, code hash {provenance.code_hash[:16]}"
    dirty = {True: " with uncommitted changes", False: "", None: " (git did not say what was uncommitted)"}
    return f"git commit {provenance.git_commit[:12]}{dirty[provenance.git_dirty]}"
