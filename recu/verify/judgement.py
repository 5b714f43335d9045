"""Whether a published result is as it was published, and is what params/, data and code would give now; pure."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from recu.base.errors import ResultError
from recu.base.files import canonical_json, hash_text
from recu.experiment.resolving import Origin, Planned
from recu.results.flatten import flatten_params
from recu.results.records import (
    EvaluationRecord,
    Measurement,
    PackedRecord,
    Provenance,
    ReleasedRecord,
    SpeedRecord,
    TrainingRecord,
    as_record,
    training_kind,
)
from recu.results.seal import seal_problem

Status = Literal["good", "missing", "stale", "altered"]
"""From best to worst. `missing`: not there. `stale`: as published, but other parameters, data, parents or a changed
recipe ask for another result now. `altered`: not as this program published it."""

ABSENT = "not there"
"""The reason of what is missing as a whole."""

_ORDER: tuple[Status, ...] = ("good", "missing", "stale", "altered")
_SHOWN = 4

Problem = tuple[Status, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What was found about one published result or file."""

    subject: str
    """The file, as a person finds it."""
    status: Status
    reasons: tuple[str, ...] = ()
    """Why it is not good."""
    notes: tuple[str, ...] = ()
    """What is worth knowing and no fault, e.g. that code or environment have changed since."""
    afresh: bool = False
    """Of a training: its state gave this result and would give it again, so that it must be trained from the start."""

    @property
    def is_gap(self) -> bool:
        """Whether it is missing although something rests on it; what was never made is none."""
        return self.status == "missing" and self.reasons != (ABSENT,)

    def needed_by(self, what: str | None) -> Finding:
        """The same, as a gap where it is missing and `what`, in words, rests on it; None for nothing."""
        if self.status != "missing" or what is None:
            return self
        return replace(self, reasons=tuple(f"{reason}, though {what} rests on it" for reason in self.reasons))


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """Code and environment, as `recu.results.provenance` describes them."""

    code_hash: str
    environment_hash: str
    packages: Mapping[str, str | None]
    """Name to version of the packages that every result names."""


def finding(subject: str, problems: Iterable[Problem], notes: Iterable[str] = ()) -> Finding:
    """The finding with the worst status among `problems`."""
    found = list(problems)
    return Finding(
        subject=subject,
        status=worst(status for status, _ in found),
        reasons=tuple(reason for _, reason in found),
        notes=tuple(notes),
    )


def absent(subject: str) -> Finding:
    """The finding of a file that is not there."""
    return finding(subject, [("missing", ABSENT)])


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of several; "good" of none."""
    return max(statuses, key=_ORDER.index, default="good")


def _of_a_record(judge: Callable[..., Finding]) -> Callable[..., Finding]:
    """The judge of a file's content: None is absent, and what is no such record was altered."""

    @functools.wraps(judge)
    def judged(subject: str, content: Any, *what: Any, **facts: Any) -> Finding:
        if content is None:
            return absent(subject)
        try:
            return judge(subject, content, *what, **facts)
        except (ResultError, ValueError) as error:  # the latter: infinities where any value may stand
            return finding(subject, [("altered", str(error))])

    return judged


@_of_a_record
def judge_training(
    subject: str,
    content: Any,
    expected: Planned,
    *,
    checkpoint_sha256: str | None,
    data_fingerprint: str | None,
    checkpoints: Mapping[str, str],
    now: Surroundings,
) -> Finding:
    """Judge one published training, or released file.

    Args:
        subject: its metrics.json.
        content: of it; None where it is not there.
        expected: the experiment or released file as params/ defines it now.
        checkpoint_sha256: of the checkpoint beside metrics.json; None where there is none.
        data_fingerprint: of the data as prepared now; None where it is not here.
        checkpoints: by experiment id, the SHA-256 of its published checkpoint now, of those that are there.
        now: the code and environment that run now.
    """
    record = as_record(content, training_kind(content))
    own_hash = hash_text(canonical_json(record.hashed))
    of_its_hash: list[Problem] = []
    if own_hash != record.spec_hash:
        of_its_hash.append(("altered", "its parameters do not give its spec_hash"))
    ours = record if isinstance(record, TrainingRecord) else None
    of_the_state = [*_parents(ours, checkpoints), *_pieces(ours)] if ours else []
    problems = [
        *_seal(content),
        *of_its_hash,
        *_checkpoint(record, checkpoint_sha256),
        *_parameters(record, expected),
        *(_data(ours, data_fingerprint) if ours else ()),
        *of_the_state,
    ]
    pieces = ours.pieces if ours and len(ours.pieces) > 1 else ()
    notes = [f"{note} in {piece.epochs}" for piece in pieces for note in _surroundings(piece.provenance, now)]
    notes += [] if pieces else _surroundings(record.provenance, now)
    return replace(finding(subject, problems, notes), afresh=bool(of_the_state))


@_of_a_record
def judge_measurement(
    subject: str,
    content: Any,
    expected: Origin,
    *,
    checkpoint_sha256: str | None,
    data_fingerprint: str | None,
    now: Surroundings,
) -> Finding:
    """Judge the evaluation of a training's checkpoint or of a released file.

    Args:
        subject: its metrics.json.
        content: of it; None where it is not there.
        expected: what was to be measured as params/ defines it now.
        checkpoint_sha256: of the published checkpoint now, or as metrics.json beside it names it where it is gone;
            None where neither is there.
        data_fingerprint: of the data as prepared now.
        now: the code and environment that run now.
    """
    record = as_record(content, EvaluationRecord)
    problems = _of_whom(content, record, expected, "the evaluation")
    if record.spec_hash != expected.spec_hash:
        problems.append(("stale", f"other parameters (hash {record.spec_hash}, now {expected.spec_hash})"))
    if checkpoint_sha256 is not None and record.checkpoint_sha256 != checkpoint_sha256:
        problems.append(("stale", "measured another checkpoint than the one there now (SHA-256 differs)"))
    problems += _data(record, data_fingerprint)
    return finding(subject, problems, _surroundings(record.provenance, now))


@_of_a_record
def judge_packed(
    subject: str, content: Any, expected: Origin, *, checkpoint_sha256: str | None, packed_sha256: str | None
) -> Finding:
    """Judge what is said of a packed file, and the file.

    Args:
        subject: its metrics.json.
        content: of it; None where it is not there.
        expected: what was to be packed.
        checkpoint_sha256: as for `judge_measurement`.
        packed_sha256: of the packed file beside metrics.json; None where there is none.
    """
    record = as_record(content, PackedRecord)
    problems = _of_whom(content, record, expected, "what is said of the packed file")
    if checkpoint_sha256 is not None and record.checkpoint_sha256 != checkpoint_sha256:
        problems.append(("stale", "packed another checkpoint than the one there now (SHA-256 differs)"))
    if packed_sha256 is None:
        problems.append(("missing", "the packed file beside it is not there"))
    elif record.packed_sha256 != packed_sha256:
        problems.append(("altered", "the packed file beside it is another than the one it names (SHA-256 differs)"))
    return finding(subject, problems)


@_of_a_record
def judge_speed(subject: str, content: Any, expected: Origin, *, packed_sha256: str | None) -> Finding:
    """Judge the speed of a packed file.

    Args:
        subject: its metrics.json.
        content: of it; None where it is not there.
        expected: what was packed.
        packed_sha256: of the packed file as the record of it says; None where there is none.
    """
    record = as_record(content, SpeedRecord)
    problems = _of_whom(content, record, expected, "the speed")
    if packed_sha256 is not None and record.packed_sha256 != packed_sha256:
        problems.append(("stale", "measured another packed file than the one there now (SHA-256 differs)"))
    return finding(subject, problems)


def judge_file(subject: str, found: bytes | None, expected: bytes | None, source: str, *, outdated: bool) -> Finding:
    """Judge a file that is made from others alone.

    Args:
        subject: the file.
        found: its content; None where it is not there.
        expected: what making it again gives; None where it cannot be made.
        source: what it is made from, in words.
        outdated: whether it is known to be made from what was there before.
    """
    if found is None:
        return absent(subject)
    if expected is None:
        return finding(subject, [("stale", f"cannot be made again from {source}")])
    if found != expected and outdated:
        return finding(subject, [("stale", f"is not what {source} and params/ give now: made before they changed")])
    if found != expected:
        return finding(subject, [("altered", f"is not what {source} gives: altered, or made from other content")])
    return finding(subject, [])


def _pieces(record: TrainingRecord) -> list[Problem]:
    """Epochs that were trained under other parameters than those the result is published under."""
    if record.segments and record.segments[-1].provenance != record.provenance:
        return [("altered", "its provenance is not that of its last epochs")]
    return [
        ("stale", f"trained with other parameters (hash {piece.spec_hash}) in {piece.epochs}")
        for piece in record.segments
        if piece.spec_hash != record.spec_hash
    ]


def _seal(content: Mapping[str, Any]) -> list[Problem]:
    problem = seal_problem(content)
    return [] if problem is None else [("altered", problem)]


def _of_whom(
    content: Mapping[str, Any], record: EvaluationRecord | PackedRecord | SpeedRecord, expected: Origin, what: str
) -> list[Problem]:
    """Of a record that was altered, or is `what` of another experiment."""
    problems = _seal(content)
    if record.experiment_id != expected.id:
        problems.append(("altered", f"is {what} of {record.experiment_id}"))
    return problems


def _checkpoint(record: TrainingRecord | ReleasedRecord, digest: str | None) -> list[Problem]:
    if digest is None:
        return [("missing", "the checkpoint beside it is not there")]
    if digest != record.checkpoint_sha256:
        return [("altered", "the checkpoint beside it is another than the one it names (SHA-256 differs)")]
    return []


def _parameters(record: TrainingRecord | ReleasedRecord, expected: Planned) -> list[Problem]:
    if record.spec_hash == expected.spec_hash:
        return []
    before, now = flatten_params(record.hashed), flatten_params(expected.hashed)
    changes = [
        f"{name} {before.get(name, 'absent')} -> {now.get(name, 'absent')}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]
    more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    return [("stale", f"other parameters: {', '.join(changes[:_SHOWN])}{more}")]


def _data(record: TrainingRecord | Measurement, fingerprint: str | None) -> list[Problem]:
    if fingerprint is None or record.data_fingerprint == fingerprint:
        return []
    return [("stale", f"other data (fingerprint {record.data_fingerprint:.12}, now {fingerprint:.12})")]


def _parents(record: TrainingRecord, checkpoints: Mapping[str, str]) -> list[Problem]:
    return [
        ("stale", f"rests on another checkpoint of its {role} {source.id} than the one now")
        for role, source in (("parent", record.parent), ("teacher", record.teacher))
        if source is not None and checkpoints.get(source.id, source.checkpoint_sha256) != source.checkpoint_sha256
    ]


def _surroundings(then: Provenance, now: Surroundings) -> list[str]:
    notes = []
    if then.code_hash != now.code_hash:
        notes.append(f"made by other code of the same recipe version ({then.code_hash[:12]})")
    if then.environment_hash != now.environment_hash:
        changes = [
            f"{name} {then.packages.get(name)} -> {now.packages.get(name)}"
            for name in dict.fromkeys([*then.packages, *now.packages])
            if then.packages.get(name) != now.packages.get(name)
        ]
        what = ", ".join(changes) or "none of the packages that it names"
        notes.append(f"made in another environment ({then.environment_hash[:12]}; changed: {what})")
    return notes
