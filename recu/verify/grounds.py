"""What each table cell rests on and what was found about it, suite by suite; pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from recu.verify.judgement import Finding, Status, worst


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where everything is."""

    params_dir: Path
    data_dir: Path
    results_dir: Path
    runs_dir: Path
    reports_dir: Path
    teacher_weights: str = ""
    """As params/config.yaml names it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """What one seed of one table cell rests on."""

    experiment_id: str
    dataset: str
    network: str
    method: str
    seed: int | None
    """None for a released file, which nobody here trained."""
    top1: float | None
    """Percent, as the evaluation published it."""
    spec_hash: str
    """Of the experiment as params/ defines it now."""
    checkpoint_sha256: str | None
    data_fingerprint: str | None
    git_commit: str | None
    code_hash: str | None
    environment_hash: str | None
    parents: tuple[str, ...] = ()
    """Experiments whose checkpoints it rests on."""
    released_file: str | None = None
    """Of a released file, where somebody put it."""
    training: Finding
    evaluation: Finding
    packed: Finding | None = None
    """Of the packed file; None where no row lists it."""
    speed: Finding | None = None
    """Likewise of the file's speed."""

    @property
    def findings(self) -> list[Finding]:
        """All of them."""
        found = (self.training, self.evaluation, self.packed, self.speed)
        return [each for each in found if each is not None]

    @property
    def status(self) -> Status:
        """The worst of them."""
        return worst(each.status for each in self.findings)


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteVerification:
    """What was found about one suite."""

    name: str
    grounds: tuple[Ground, ...]
    files: tuple[Finding, ...]
    """Rows, first, and rendered tables."""
    released: bool = False
    """Whether it measures released files and trains nothing."""

    @property
    def findings(self) -> list[Finding]:
        """All of them."""
        return [*(each for ground in self.grounds for each in ground.findings), *self.files]

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it is there."""
        return all(each.status == "missing" for each in self.findings)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What was found about all suites."""

    suites: tuple[SuiteVerification, ...]
    data: tuple[Finding, ...]
    unclaimed: tuple[str, ...]
    """Results that no experiment of params/ asks for; no table rests on them."""

    @property
    def findings(self) -> list[Finding]:
        """All of them."""
        return [*self.data, *(each for suite in self.suites for each in suite.findings)]

    def count(self, status: Status) -> int:
        """How many findings have this status."""
        return sum(each.status == status for each in self.findings)


def as_json(verification: Verification) -> dict[str, Any]:
    """The whole of it as plain values."""
    return {
        "good": not (verification.count("stale") or verification.count("altered")),
        "complete": not any(each.is_gap for each in verification.findings),
        "counts": {status: verification.count(status) for status in ("good", "missing", "stale", "altered")},
        **asdict(verification),
    }


def needed_by_one_another(files: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Rows and tables of which some are there and others are gaps."""
    there = next((each.subject for each in files if each.status != "missing"), None)
    # Rows without any table are a suite that is being made.
    if all(each.status == "missing" for each in files[1:]):
        return files
    return tuple(each.needed_by(there) for each in files)


def needed_by(grounds: tuple[Ground, ...], files: tuple[Finding, ...]) -> tuple[Ground, ...]:
    """Results of which some are gaps, since rows, tables, an evaluation or a child rest on them."""
    table = next((each.subject for each in files if each.status != "missing"), None)
    children: dict[str, str] = {}
    for ground in grounds:
        if ground.training.status != "missing":
            children |= dict.fromkeys(ground.parents, ground.training.subject)
    return tuple(
        replace(
            ground,
            training=ground.training.needed_by(
                ground.evaluation.subject
                if ground.evaluation.status != "missing"
                else children.get(ground.experiment_id, table)
            ),
            evaluation=ground.evaluation.needed_by(table),
        )
        for ground in grounds
    )
