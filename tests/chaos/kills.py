"""SIGKILL at random moments, to a stage and everything it started; then the same command again."""

from __future__ import annotations

import random
import shutil

from tests.chaos import forking
from tests.chaos.laboratory import Laboratory, Place, Stage, litter
from tests.chaos.ledger import Ledger
from tests.chaos.writes import calm_stages, count_writes, die, with_fault

SHARES = {"train": 0.5, "prepare": 0.2, "evaluate": 0.15, "report": 0.15}
"""Of all kills, by stage."""

_LONGEST_CHAIN = 5
_FINISHED_SHARE = 0.2
"""Of the chains over training, those that begin with a finished but unpublished one."""


def random_kills(lab: Laboratory, ledger: Ledger, kills: int, rng: random.Random) -> None:
    """Kill every stage in proportion to `SHARES`, `kills` times in all."""
    wanted = {name: max(1, round(kills * share)) for name, share in SHARES.items()}
    for name, count in wanted.items():
        done = 0
        while done < count:
            delivered, problem = _chain(lab, lab.stages[name], min(count - done, rng.randint(1, _LONGEST_CHAIN)), rng)
            done += delivered
            if delivered:
                ledger.add(f"SIGKILL: {name}", problem, delivered)
            elif problem is not None:
                ledger.add(f"SIGKILL: {name}", problem)
                done += 1


def kills_at_writes(lab: Laboratory, ledger: Ledger, most: int, rng: random.Random) -> None:
    """Kill each stage at each of its writes, `most` of them a stage: where a moment matters, chance may miss it."""
    for stage in calm_stages(lab):
        total = count_writes(lab, stage)
        for first in sorted(rng.sample(range(total), min(most, total))):
            place = stage.fresh()
            ended = forking.run(with_fault(stage, place, first, die))
            problem = None if ended.killed else f"was not killed: {ended.output}"
            problem = problem or stage.half_done(place) or finish(lab, stage, place)
            ledger.add(f"SIGKILL at a write: {stage.name}", problem and f"write {first} of {total}: {problem}")
            lab.drop(place)


def _chain(lab: Laboratory, stage: Stage, length: int, rng: random.Random) -> tuple[int, str | None]:
    """Up to `length` kills of one try, then the run that finishes it: kills delivered, and what is wrong."""
    place = _begin(lab, stage, rng)
    delivered = 0
    try:
        for _ in range(length):
            ended = forking.run(stage.action(place), kill_after=rng.uniform(0, stage.seconds))
            delivered += ended.killed
            problem = stage.half_done(place) or (None if ended.killed else ended.problem(0))
            if problem is not None:
                return delivered, problem
        return delivered, finish(lab, stage, place)
    finally:
        lab.drop(place)


def finish(lab: Laboratory, stage: Stage, place: Place) -> str | None:
    """Run the stage to its end and compare: what is wrong, or None."""
    problem = forking.run(stage.action(place)).problem(0) or lab.difference(stage.name, place)
    if problem is None and (left := litter(place.folder)):
        return f"left behind: {', '.join(left[:5])}"
    return problem


def _begin(lab: Laboratory, stage: Stage, rng: random.Random) -> Place:
    place = stage.fresh()
    if stage.name == "train" and rng.random() < _FINISHED_SHARE:
        shutil.copytree(lab.reference.runs, place.runs)
    return place
