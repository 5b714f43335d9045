"""The verify stage: hashes recomputed over results/ and reports/, and which table cell rests on what."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from recu.base.errors import DataError, ResultError
from recu.base.files import check_ordinary, hash_file, read_object
from recu.data import open_prepared
from recu.data.opening import check_contents
from recu.experiment import params, paths, plan
from recu.experiment.binarisers import USUAL
from recu.experiment.own import CodeFile
from recu.experiment.released import Released, load_planned
from recu.experiment.remake import switched_on
from recu.experiment.resolving import Experiment, network_sources, own_sources
from recu.experiment.schema import Dataset, Method, ReleasedSuite, Suite
from recu.results import provenance
from recu.results.records import (
    EvaluationRecord,
    Measurement,
    PackedRecord,
    R,
    Row,
    Rows,
    TrainingRecord,
    as_record,
    training_kind,
)
from recu.results.seal import seal_problem
from recu.stages.report import collect_rows, rendered_files
from recu.verify.grounds import (
    Ground,
    Places,
    SuiteVerification,
    Verification,
    needed_by,
    needed_by_one_another,
)
from recu.verify.judgement import (
    Finding,
    Problem,
    Status,
    Surroundings,
    absent,
    finding,
    judge_file,
    judge_measurement,
    judge_packed,
    judge_speed,
    judge_training,
    worst,
)


def verify(places: Places, suites: Iterable[str]) -> Verification:
    """Compare what is published with what params/ asks for and with its own hashes; nothing is written.

    Raises:
        ConfigError: a file under params/ is wrong, or a suite is unknown.
    """
    names = tuple(suites)
    shared = _Shared(places)
    kinds = params.load_suites(places.params_dir, names)
    verified = tuple(_SuiteVerifier(shared, name, suite).verify() for name, suite in kinds.items())
    used = sorted({ground.dataset for suite in verified if not suite.is_empty for ground in suite.grounds})
    return Verification(
        suites=verified,
        data=tuple(shared.data_findings[name] for name in used if name in shared.data_findings),
        unclaimed=tuple(_unclaimed(places, names, verified)),
    )


def grounds_of(places: Places, suite: str) -> tuple[Ground, ...]:
    """What was found about the results of one suite, its table left out. Raises ConfigError as `verify`."""
    kind = params.load_suites(places.params_dir, (suite,))[suite]
    return _SuiteVerifier(_Shared(places), suite, kind).grounds()


@dataclass
class _Shared:
    """Read once for all suites."""

    places: Places
    data_findings: dict[str, Finding] = field(default_factory=dict)
    _fingerprints: dict[str, str | None] = field(default_factory=dict)

    @cached_property
    def datasets(self) -> dict[str, Dataset]:
        return params.load_datasets(self.places.params_dir)

    @cached_property
    def methods(self) -> dict[str, Method]:
        return params.load_defaults(self.places.params_dir).methods

    @cached_property
    def published(self) -> Any:
        return params.load_published(self.places.params_dir)

    @cached_property
    def surroundings(self) -> Surroundings:
        return Surroundings(
            code_hash=provenance.code_now(),
            environment_hash=provenance.environment_hash(),
            packages=provenance.package_versions(),
        )

    def facts(self, planned: Experiment | Released, content: Any, own: Iterable[CodeFile]) -> dict[str, Any]:
        """What judging a training or an evaluation takes of now, with users' code that takes part in it; nothing is
        read for a result that is not there."""
        fingerprint = None if content is None else self.fingerprint(planned.dataset)
        now = self.surroundings
        return {
            "data_fingerprint": fingerprint,
            "now": replace(now, code_hash=provenance.with_own(now.code_hash, own)),
        }

    def fingerprint(self, dataset: str) -> str | None:
        """Of the prepared data where it is here, else of the copy of its manifest among the results."""
        if dataset not in self._fingerprints:
            self._fingerprints[dataset] = self._find_fingerprint(dataset)
        return self._fingerprints[dataset]

    def _find_fingerprint(self, dataset: str) -> str | None:
        copy, folder = paths.manifest_file(self.places.results_dir, dataset), self.places.data_dir / dataset
        published = _read(copy)
        stated = None if published is None else published.get("fingerprint")
        problems: list[Problem] = []
        if published is None:
            problems.append(("missing", f"{copy} is not there, though results rest on it"))
        elif not isinstance(stated, str):
            stated = None
            problems.append(("altered", f"{copy} is not of the expected form"))
        now = None
        if (folder / paths.MANIFEST).exists():
            try:
                prepared = open_prepared(folder, self.datasets[dataset])
                check_contents(prepared)
                now = prepared.manifest.fingerprint
            except DataError as error:
                problems.append(("altered", str(error)))
        if None not in (stated, now) and stated != now:
            problems.append(("stale", f"{copy} describes other data (fingerprint {stated:.12}, prepared is {now:.12})"))
        self.data_findings[dataset] = finding(str(folder), problems)
        return now or stated


class _SuiteVerifier:
    """Judges everything that belongs to one suite."""

    def __init__(self, shared: _Shared, name: str, suite: Suite | ReleasedSuite) -> None:
        self._shared, self._places, self._name, self._suite = shared, shared.places, name, suite
        places = self._places
        self._experiments = load_planned(places.params_dir, (name,), places.results_dir, places.teacher_weights)
        self._checkpoints: dict[str, str] = {}
        self._statuses: dict[str, Status] = {}

    def grounds(self) -> tuple[Ground, ...]:
        # Parents come before children, so what a child rests on is known when it is judged.
        return tuple(self._ground(experiment) for experiment in self._experiments.values())

    def verify(self) -> SuiteVerification:
        rows = paths.rows_file(self._places.results_dir, self._name)
        grounds = self._with_packed(self.grounds(), rows)
        files = needed_by_one_another((self._rows(rows), *self._reports(rows)))
        released = isinstance(self._suite, ReleasedSuite)
        return SuiteVerification(name=self._name, grounds=needed_by(grounds, files), files=files, released=released)

    def _with_packed(self, grounds: tuple[Ground, ...], rows: Path) -> tuple[Ground, ...]:
        """With what was found about packed files and speeds, where the suite's rows list them."""
        listed = switched_on([self._name], self._places.results_dir, self._places.reports_dir)
        if not listed:
            return grounds
        return tuple(
            replace(
                ground,
                packed=self._packed(ground.experiment_id).needed_by(str(rows)),
                speed=self._speed(ground.experiment_id).needed_by(str(rows)) if "benchmark" in listed else None,
            )
            for ground in grounds
        )

    def _packed(self, identifier: str) -> Finding:
        file = paths.export_folder(self._places.results_dir, identifier) / paths.METRICS
        return judge_packed(
            str(file),
            _read(file),
            self._experiments[identifier].origin,
            checkpoint_sha256=self._checkpoints.get(identifier),
            packed_sha256=_digest(file.with_name(paths.PACKED)),
        )

    def _speed(self, identifier: str) -> Finding:
        file = paths.speed_folder(self._places.results_dir, identifier) / paths.METRICS
        exported = _read(paths.export_folder(self._places.results_dir, identifier) / paths.METRICS)
        # As it was published: one that somebody harmed is exported again, to the same bytes.
        stated = getattr(_record(exported, PackedRecord), "packed_sha256", None)
        return judge_speed(str(file), _read(file), self._experiments[identifier].origin, packed_sha256=stated)

    def _ground(self, experiment: Experiment | Released) -> Ground:
        folder = paths.train_folder(self._places.results_dir, experiment.id)
        measured = paths.evaluate_folder(self._places.results_dir, experiment.id) / paths.METRICS
        trained, evaluated = _read(folder / paths.METRICS), _read(measured)
        record = _record(trained, training_kind(trained))
        measurement = _record(evaluated, EvaluationRecord)
        digest = _digest(folder / paths.BEST_CHECKPOINT)
        stated = digest or getattr(record, "checkpoint_sha256", None)
        if stated is not None:
            self._checkpoints[experiment.id] = stated
        binariser = self._binariser(experiment, measurement)
        training = self._training(experiment, folder / paths.METRICS, trained, digest, binariser)
        self._statuses[experiment.id] = training.status
        return Ground(
            experiment_id=experiment.id,
            dataset=experiment.dataset,
            network=getattr(experiment, "labelled_network", experiment.network),
            method=experiment.method,
            seed=experiment.seed if isinstance(experiment, Experiment) else None,
            top1=getattr(measurement, "top1", None),
            spec_hash=experiment.spec_hash,
            checkpoint_sha256=digest,
            # Of a released file nobody says on which data it was trained.
            **_origin(record if isinstance(record, TrainingRecord) else measurement),
            parents=tuple(parent.id for parent in experiment.parents),
            released_file=experiment.path if isinstance(experiment, Released) else None,
            training=training,
            evaluation=judge_measurement(
                str(measured),
                evaluated,
                experiment.origin,
                checkpoint_sha256=stated,
                **self._shared.facts(experiment, evaluated, own_sources(experiment.model, binariser, experiment.data)),
            ),
        )

    @staticmethod
    def _binariser(experiment: Experiment | Released, measurement: EvaluationRecord | None) -> str:
        if isinstance(experiment, Experiment):
            return experiment.hyperparameters.binariser
        # A released file of this program says it itself, and its evaluation has read that.
        return experiment.binariser or (USUAL if measurement is None else measurement.binariser)

    def _own_of_training(self, experiment: Experiment | Released, binariser: str) -> tuple[CodeFile, ...]:
        if isinstance(experiment, Released):
            return network_sources(experiment.model, binariser)
        own = own_sources(experiment.model, binariser, experiment.data, experiment.hyperparameters)
        teacher = self._experiments.get(experiment.teacher.id) if experiment.teacher else None
        if not isinstance(teacher, Experiment):
            return own
        return own + network_sources(teacher.model, teacher.hyperparameters.binariser)

    def _training(
        self, experiment: Experiment | Released, file: Path, content: Any, digest: str | None, binariser: str
    ) -> Finding:
        judged = judge_training(
            str(file),
            content,
            experiment,
            checkpoint_sha256=digest,
            checkpoints=self._checkpoints,
            **self._shared.facts(experiment, content, self._own_of_training(experiment, binariser)),
        )
        faults = tuple(
            f"rests on {parent.id}, which is {self._statuses[parent.id]}"
            for parent in experiment.parents
            if self._statuses.get(parent.id, "good") in ("stale", "altered")
        )
        if not faults or content is None:
            return judged
        return replace(judged, status=worst((judged.status, "stale")), reasons=(*judged.reasons, *faults))

    def _rows(self, file: Path) -> Finding:
        found = _read(file)
        if found is None:
            return absent(str(file))
        try:
            rows = _sealed_rows(found)
        except (ResultError, ValueError) as error:  # the latter: infinities where any value may stand
            return finding(str(file), [("altered", str(error))])
        try:
            origins = [experiment.origin for experiment in self._experiments.values()]
            asked = {name: any(getattr(row, name) is not None for row in rows) for name in ("packed", "speed")}
            expected = [row.as_plain() for row in collect_rows(origins, self._places.results_dir, **asked)]
        except ResultError as error:
            return finding(str(file), [("stale", f"cannot be collected again: {error}")])
        same = found["rows"] == expected
        return finding(str(file), [] if same else [("altered", "is not what collecting the results gives")])

    def _reports(self, rows: Path) -> tuple[Finding, ...]:
        facts = plan.suite_facts(
            self._name, self._suite, self._experiments, self._shared.datasets, self._shared.methods
        )
        files = plan.table_files(self._places.reports_dir, self._name, self._suite)
        folder = self._places.reports_dir
        return _tables(files, folder, lambda: rendered_files(rows, facts, self._shared.published), str(rows))


def _tables(
    files: Iterable[str], folder: Path, render: Callable[[], Mapping[str, bytes]], source: str
) -> tuple[Finding, ...]:
    """Judge rendered files; they are rendered again, in memory, only where any is there."""
    places = [Path(file) for file in files]
    if not any(file.exists() for file in places):
        return tuple(absent(str(file)) for file in places)
    try:
        rendered = render()
    except ResultError:
        rendered = {}
    expected = {file: rendered.get(str(file.relative_to(folder))) for file in places}
    outdated = any(_is_of_before(file, expected[file]) for file in places if file.suffix == ".json")
    return tuple(judge_file(str(file), _content(file), expected[file], source, outdated=outdated) for file in places)


def _is_of_before(file: Path, expected: bytes | None) -> bool:
    """Whether a sealed table says something else than it would now although nobody edited it."""
    found = _read(file)
    if not found or expected is None:
        return False
    return seal_problem(found) is None and found != json.loads(expected)


def _unclaimed(places: Places, names: tuple[str, ...], verified: Iterable[SuiteVerification]) -> Iterable[str]:
    known = {ground.experiment_id for suite in verified for ground in suite.grounds}
    others = set(params.all_suites(places.params_dir)) - set(names)
    # The last was of earlier versions.
    for stage in ("train", "evaluate", "released"):
        root = places.results_dir / stage
        for file in sorted(root.rglob(paths.METRICS)):
            identifier = file.parent.relative_to(root).as_posix()
            if stage == "released" or (identifier not in known and identifier.partition("/")[0] not in others):
                yield str(file)


def _read(file: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is none, {} where it cannot be read, which no judge accepts."""
    return read_object(file) if file.exists() else None


def _sealed_rows(content: Mapping[str, Any]) -> tuple[Row, ...]:
    """The rows of a suite as they were collected. Raises ResultError where somebody edited them."""
    problem = seal_problem(content)
    if problem is not None:
        raise ResultError(problem)
    return as_record(content, Rows).rows


def _digest(file: Path) -> str | None:
    try:
        return hash_file(file)
    except OSError:
        return None


def _content(file: Path) -> bytes | None:
    try:
        check_ordinary(file)
        return file.read_bytes()
    except OSError:
        return None


def _record(content: Any, kind: type[R]) -> R | None:
    """What a file says, as far as it says it in the expected form."""
    try:
        return as_record(content, kind)
    except ResultError:
        return None


def _origin(record: TrainingRecord | Measurement | None) -> dict[str, Any]:
    """The data, commit, code and environment that a result names; None for what it does not."""
    said = getattr(record, "provenance", None)
    named = {name: getattr(said, name, None) for name in ("git_commit", "code_hash", "environment_hash")}
    return {"data_fingerprint": getattr(record, "data_fingerprint", None)} | named
