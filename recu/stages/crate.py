"""A suite's results as an RO-Crate (https://w3id.org/ro/crate): a folder in which one file describes all others.

Trainings and evaluations are actions that gave files. Released files, which are somebody else's, are named by their
hashes and not copied.
"""

from __future__ import annotations

import mimetypes
import tempfile
from pathlib import Path
from typing import Any

from recu.base.errors import OutputError, ResultError
from recu.base.files import hash_file
from recu.base.needed import require
from recu.experiment import params, paths, plan
from recu.experiment.remake import remake, suite_of
from recu.results.records import (
    EvaluationRecord,
    PackedRecord,
    Provenance,
    SpeedRecord,
    TrainingRecord,
    read_record,
    read_training,
)
from recu.stages.verify import verify
from recu.verify.grounds import Ground, Places

_TYPES = {".yaml": "application/yaml", ".md": "text/markdown", ".tex": "text/x-tex", ".tar": "application/octet-stream"}
"""Media types by suffix that systems do not agree on."""


def write_crate(places: Places, suite: str, output: Path, *, licence: str) -> int:
    """Copy tables, figures, results, manifests, checkpoints and parameters of a finished suite, each described.

    Args:
        places: where they lie.
        suite: its name.
        output: a folder that is not there yet.
        licence: address of the licence under which the results are given on.

    Returns:
        How many files were copied.

    Raises:
        ResultError: something is missing, stale or altered, as `recu verify` says. ConfigError: as `verify`, or rocrate
        is not installed. OutputError: `output` is there, or cannot be written.
    """
    require("crate", "rocrate")
    from rocrate.rocrate import ROCrate

    if output.exists():
        raise OutputError(f"{output} is there already: choose another folder, or move it away")
    crate = _Crate(ROCrate(), places)
    crate.fill(suite, _grounds_of_a_whole(places, suite), licence)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as unfinished:
            folder = Path(unfinished, "crate")
            crate.crate.write(folder)
            _check_copies(folder, crate.hashes)
            folder.rename(output)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write {output}: {reason}; check path, space and permissions") from error
    return len(crate.crate.data_entities)


def _grounds_of_a_whole(places: Places, suite: str) -> tuple[Ground, ...]:
    """What the suite's results rest on; ResultError where anything of it is not as it should be."""
    verification = verify(places, (suite,))
    (found,) = verification.suites
    wrong = next((each for each in verification.findings if each.status != "good"), None)
    if wrong is not None:
        why = "; ".join(wrong.reasons)
        raise ResultError(
            f"suite {suite} is not whole: {wrong.subject} is {wrong.status} ({why}); see `recu verify {suite}`"
        )
    return found.grounds


def _check_copies(folder: Path, hashes: dict[str, str]) -> None:
    for name, expected in hashes.items():
        if hash_file(folder / name) != expected:
            raise ResultError(f"{name} was changed while it was copied: make the crate again")


class _Crate:
    """The crate while it is filled."""

    def __init__(self, crate: Any, places: Places) -> None:
        self.crate = crate
        self.places = places
        self.hashes: dict[str, str] = {}
        """SHA-256 of checkpoints and packed files by place in the crate."""

    def fill(self, suite: str, grounds: tuple[Ground, ...], licence: str) -> None:
        """With everything of a suite."""
        places, kind = self.places, params.load_suite(self.places.params_dir, suite)
        self.crate.name, self.crate.description, self.crate.license = kind.title, kind.description, licence
        for name in ("defaults", "datasets", "published"):
            self._file(paths.params_file(places.params_dir, name), places.params_dir, "params")
        recipe = self._file(paths.suite_file(places.params_dir, suite), places.params_dir, "params")
        for table in plan.table_files(places.reports_dir, suite, kind):
            self._file(Path(table), places.reports_dir, "reports")
        self._file(paths.rows_file(places.results_dir, suite), places.results_dir, "results")
        manifests = {
            name: self._file(paths.manifest_file(places.results_dir, name), places.results_dir, "results")
            for name in dict.fromkeys(ground.dataset for ground in grounds)
        }
        actions = [self._run(ground, recipe, manifests[ground.dataset]) for ground in grounds]
        self.crate.root_dataset["mentions"] = [each for run in actions for each in run]

    def _run(self, ground: Ground, recipe: Any, manifest: Any) -> list[Any]:
        """A training, unless it is somebody else's, its evaluation, and the speed of its packed file."""
        results, identifier = self.places.results_dir, ground.experiment_id
        trained, evaluated = (
            folder(results, identifier) / paths.METRICS for folder in (paths.train_folder, paths.evaluate_folder)
        )
        columns = [name for name, found in (("packed", ground.packed), ("benchmark", ground.speed)) if found]
        again = remake([trained, evaluated], suites=[suite_of(identifier)], columns=columns, results_dir=results)
        training = read_training(trained, again=again)
        evaluation = read_record(evaluated, EvaluationRecord, again=again)
        files, actions = [self._file(trained, results, "results")], []
        if isinstance(training, TrainingRecord):
            checkpoint = self._file(trained.with_name(paths.BEST_CHECKPOINT), results, "results")
            # Not by its id, in which signs such as "+" are written as those of an address.
            self.hashes[checkpoint["name"]] = training.checkpoint_sha256
            files.append(checkpoint)
            actions.append(self._action("train", identifier, training.provenance, [recipe, manifest], files))
        measured = self._file(evaluated, results, "results")
        actions.append(self._action("evaluate", identifier, evaluation.provenance, [*files, manifest], [measured]))
        if ground.packed is not None:
            packed = self._packed(Path(ground.packed.subject), again)
            if ground.speed is not None:
                actions.append(self._speed(Path(ground.speed.subject), identifier, packed, again))
        return actions

    def _packed(self, exported: Path, again: str) -> Any:
        """A packed file, and what is said of it, which names no moment at which it was made."""
        self._file(exported, self.places.results_dir, "results")
        packed = self._file(exported.with_name(paths.PACKED), self.places.results_dir, "results")
        self.hashes[packed["name"]] = read_record(exported, PackedRecord, again=again).packed_sha256
        return packed

    def _speed(self, timed: Path, identifier: str, packed: Any, again: str) -> Any:
        origin = read_record(timed, SpeedRecord, again=again).provenance
        return self._action(
            "speed", identifier, origin, [packed], [self._file(timed, self.places.results_dir, "results")]
        )

    def _action(self, verb: str, identifier: str, origin: Provenance, took: list[Any], gave: list[Any]) -> Any:
        return self._context(
            f"#{verb}/{identifier}",
            "CreateAction",
            name=f"recu {verb}: {identifier}",
            description=f"On {origin.device}, {origin.platform}",
            endTime=origin.created,
            instrument=self._software(origin),
            object=took if len(took) > 1 else took[0],
            result=gave if len(gave) > 1 else gave[0],
        )

    def _software(self, origin: Provenance) -> Any:
        return self._context(
            f"#recu-repro/{origin.code_hash}",
            "CreativeWork",  # as software, RO-Crate would ask for its address on the web
            name="recu-repro",
            version=origin.git_commit or origin.code_hash,
            description=", ".join(f"{name} {version}" for name, version in origin.packages.items() if version),
        )

    def _context(self, identifier: str, kind: str, **properties: Any) -> Any:
        from rocrate.model.contextentity import ContextEntity

        return self.crate.add(ContextEntity(self.crate, identifier, properties={"@type": kind} | properties))

    def _file(self, file: Path, root: Path, below: str) -> Any:
        place = f"{below}/{file.relative_to(root).as_posix()}"
        kind = _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        properties = {"name": place, "encodingFormat": kind, "contentSize": str(file.stat().st_size)}
        return self.crate.add_file(file, dest_path=place, properties=properties)
