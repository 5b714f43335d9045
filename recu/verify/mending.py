"""What mends the faults that verification found: one command for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from recu.experiment import paths
from recu.experiment.remake import afresh
from recu.verify.grounds import Ground, Places, SuiteVerification, Verification
from recu.verify.judgement import Finding

_MOST_FILES = 20
"""More are named by the rules that make them: a line that nobody can read helps nobody."""


def mend(verification: Verification, places: Places, *, strict: bool) -> str:
    """What to do about everything that is at fault, in words.

    Args:
        verification: what was found.
        places: where everything is.
        strict: whether results of other code or another environment are faults.
    """
    wrong = _Wrong(verification, places, strict)
    gone = f"put the released file back: {', '.join(wrong.files_gone)}; then " if wrong.files_gone else ""
    return gone + wrong.command


class _Wrong:
    """Collects what must be made again."""

    def __init__(self, verification: Verification, places: Places, strict: bool) -> None:
        self._places, self._strict = places, strict
        self.targets: dict[str, str] = {}
        """Files to make again, with the rule of each."""
        self._suites: list[str] = []
        self._states: list[Path] = []
        self.files_gone: list[str] = []
        for each in verification.data:
            if self._is_wrong(each):
                dataset = Path(each.subject).name
                self.targets[str(paths.manifest_file(places.results_dir, dataset))] = "prepare"
                self._suites += [suite.name for suite in verification.suites if _uses(suite, dataset)]
        for suite in verification.suites:
            found = dict(self._of_suite(suite))
            if found:
                self._suites.append(suite.name)
                self.targets |= found

    @property
    def command(self) -> str:
        """Makes all targets again, after the states that must not be published again were moved aside."""
        rules = tuple(dict.fromkeys(self.targets.values()))
        return afresh(
            self._states,
            tuple(self.targets) if len(self.targets) <= _MOST_FILES else rules,
            suites=self._suites,
            data_dir=self._places.data_dir,
            results_dir=self._places.results_dir,
            runs_dir=self._places.runs_dir,
            reports_dir=self._places.reports_dir,
        )

    def _is_wrong(self, found: Finding) -> bool:
        return found.status in ("stale", "altered") or found.is_gap or (self._strict and bool(found.notes))

    def _of_suite(self, suite: SuiteVerification) -> Iterator[tuple[str, str]]:
        released = suite.released
        fresh: set[str] = set()
        states: list[Path] = []
        for ground in suite.grounds:
            if self._is_wrong(ground.training):
                yield ground.training.subject, "publish" if released else "train"
                if ground.released_file and not Path(ground.released_file).exists():
                    self.files_gone.append(f"{ground.released_file} (`obtain` in params/suites/{suite.name}.yaml)")
            if not released and self._must_start_anew(ground, fresh):
                fresh.add(ground.experiment_id)
                state = paths.state_folder(self._places.runs_dir, ground.experiment_id, ground.spec_hash)
                states += [state] if state.exists() else []
            if self._is_wrong(ground.evaluation):
                yield ground.evaluation.subject, "evaluate"
            for found, rule in ((ground.packed, "export"), (ground.speed, "speed")):
                if found is not None and self._is_wrong(found):
                    yield found.subject, rule
        # Where all begin anew, one folder says it.
        whole = len(fresh) == len(suite.grounds) and len(states) > 1
        self._states += [self._places.runs_dir / suite.name] if whole else states
        for number, file in enumerate(suite.files):
            if self._is_wrong(file):
                yield file.subject, "collect" if number == 0 else "report_released" if released else "report"

    def _must_start_anew(self, ground: Ground, fresh: set[str]) -> bool:
        training = ground.training
        return training.afresh or (self._strict and bool(training.notes)) or bool(fresh.intersection(ground.parents))


def _uses(suite: SuiteVerification, dataset: str) -> bool:
    return not suite.is_empty and any(ground.dataset == dataset for ground in suite.grounds)
