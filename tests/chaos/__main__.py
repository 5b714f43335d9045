"""`python -m tests.chaos`: see the package."""

from __future__ import annotations

import argparse
import importlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# Before PyTorch is imported: with one thread each, children cost what they compute.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("MLFLOW_TRACKING_URI", None)


def main(arguments: list[str] | None = None) -> int:
    """Run the faults asked for; the exit code is 1 where anything was lost."""
    chosen = _parser().parse_args(arguments)
    started = time.monotonic()
    seed = random.SystemRandom().randrange(10**6) if chosen.seed is None else chosen.seed
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="recu-chaos-"))
    folder.chmod(0o755)  # a child without rights must at least come here
    try:
        ledger = _run(folder, chosen.kills, chosen.scale, seed, chosen.only)
    finally:
        _remove(folder)
    print(ledger.table().replace("\nchaos:", f"\nin {time.monotonic() - started:.0f} s\nchaos:"))
    return 1 if ledger.lost else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Break everything, and count losses.")
    parser.add_argument("--kills", type=int, default=200, help="random SIGKILLs (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of what is drawn (default: drawn too, and printed)")
    parser.add_argument(
        "--scale", type=int, default=10, help="how often each other fault is tried, about (default: %(default)s)"
    )
    parser.add_argument("--only", nargs="+", metavar="FAULT", help=f"of: {', '.join(FAULTS)}")
    return parser


def _run(folder: Path, kills: int, scale: int, seed: int, only: list[str] | None):
    import torch

    torch.set_num_threads(1)
    from tests.chaos import laboratory
    from tests.chaos.ledger import Ledger

    _import_what_children_need()
    lab = laboratory.build(folder)
    ledger = Ledger()
    for name, fault in FAULTS.items():
        if only is None or name in only:
            print(f"... {name}", file=sys.stderr, flush=True)
            # By name, so that one fault alone draws what it drew among all.
            fault(lab, ledger, kills, scale, random.Random(f"{seed} {name}"))
    return ledger


def _kills(lab, ledger, kills, scale, rng) -> None:
    from tests.chaos.kills import random_kills

    if kills:
        random_kills(lab, ledger, kills, rng)


def _kills_at_writes(lab, ledger, kills, scale, rng) -> None:
    from tests.chaos.kills import kills_at_writes

    kills_at_writes(lab, ledger, 3 * scale, rng)


def _full_disk(lab, ledger, kills, scale, rng) -> None:
    from tests.chaos import full_disk

    full_disk.full_at_each_write(lab, ledger, 3 * scale, rng)
    full_disk.small_file_system(lab, ledger, scale, rng)


def _damage(lab, ledger, kills, scale, rng) -> None:
    from tests.chaos import damage

    damage.damaged_checkpoints(lab, ledger, scale, rng)
    damage.damaged_results(lab, ledger, scale, rng)
    damage.damaged_archives(lab, ledger, 2 * scale, rng)
    damage.damaged_images(lab, ledger, scale, rng)
    damage.damaged_prepared_data(lab, ledger, scale, rng)
    damage.altered_prepared_data(lab, ledger, scale, rng)
    damage.damaged_params(lab, ledger, 2 * scale, rng)


def _surroundings(lab, ledger, kills, scale, rng) -> None:
    from tests.chaos import surroundings

    few = max(1, scale // 5)
    surroundings.clock_goes_back(lab, ledger, few, rng)
    surroundings.read_only(lab, ledger, few)
    surroundings.two_at_once(lab, ledger, few, rng)
    surroundings.two_with_other_parameters(lab, ledger, few)
    surroundings.hung_worker(lab, ledger, few)


def _several(lab, ledger, kills, scale, rng) -> None:
    from tests.chaos import several

    several.faults_of_shared_trainings(lab, ledger, max(1, scale // 10), rng)


def _tracking(lab, ledger, kills, scale, rng) -> None:
    from tests.chaos import tracking

    tracking.all_faults(lab, ledger, max(1, scale // 5), rng)


def _workflow(lab, ledger, kills, scale, rng) -> None:
    from tests.chaos import workflow

    workflow.kills_under_snakemake(lab.folder / "workflow", ledger, max(1, scale // 5), rng)


FAULTS: dict[str, Callable[..., None]] = {
    "kills": _kills,
    "kills-at-writes": _kills_at_writes,
    "full-disk": _full_disk,
    "damage": _damage,
    "surroundings": _surroundings,
    "several": _several,
    "tracking": _tracking,
    "workflow": _workflow,
}


_USED_BY_CHILDREN = (
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "scipy.special",
    "tabulate",
    "recu.cli.evaluate",
    "recu.cli.prepare",
    "recu.cli.report",
    "recu.cli.train",
    "recu.cli.verify",
    "recu.data.load.augmentation",
    "recu.data.load.memory",
    "recu.training.trainer",
    "recu.models.cifar",
    "recu.models.cost",
    "recu.report.pages",
    "recu.stages.evaluate",
    "recu.stages.report",
    "recu.stages.verify",
)
"""What commands import when it is needed; imported once here, it is there in every child."""


def _import_what_children_need() -> None:
    for name in _USED_BY_CHILDREN:
        importlib.import_module(name)
    from recu.training.seeding import make_deterministic

    make_deterministic()  # for which torch imports its compiler, and takes seconds


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
