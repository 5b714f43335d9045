"""`recu verify`: tell what tables rest on, and what is stale or was altered."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from recu.base.errors import VerificationError
from recu.base.files import atomic_write_json
from recu.base.text import visible
from recu.cli import options
from recu.experiment.paths import user_path

if TYPE_CHECKING:
    from recu.verify.grounds import Places, SuiteVerification, Verification


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument("suites", nargs="*", help="names of files in params/suites/ (default: all of them)")
    options.add_project_options(parser)
    parser.add_argument(
        "--strict",
        action="store_true",
        help="also fail where something is missing that others rest on, or made by other code or environment",
    )
    parser.add_argument("--output", type=user_path, metavar="FILE.json", help="write everything that was found here")


def run(arguments: argparse.Namespace) -> None:
    """Print one table a suite and whatever is wrong.

    Raises:
        VerificationError: something is stale or was altered.
    """
    from recu.experiment.params import all_suites
    from recu.stages.verify import verify
    from recu.verify.grounds import as_json

    places = options.places_of(arguments, options.project_config(arguments))
    verification = verify(places, arguments.suites or all_suites(arguments.params_dir))
    if arguments.output is not None:
        atomic_write_json(arguments.output, as_json(verification))
    _print(verification)
    _judge(verification, places, arguments.strict)


def _print(verification: Verification) -> None:
    empty = [suite.name for suite in verification.suites if suite.is_empty]
    for suite in verification.suites:
        if not suite.is_empty:
            _print_suite(suite)
    for each in verification.data:
        if each.reasons:
            print(visible(f"{each.status}: {each.subject}: {'; '.join(each.reasons)}"))
    if empty:
        print(f"no results yet: {', '.join(empty)}")
    for file in verification.unclaimed:
        print(
            visible(
                f"note: {file} belongs to no experiment of params/, and no table rests on it; if nobody needs it, move"
                f" {Path(file).parent} away"
            )
        )


def _print_suite(suite: SuiteVerification) -> None:
    from tabulate import tabulate

    print(f"suite {suite.name}: what each cell of its table rests on")
    lines = [
        (
            f"{ground.dataset} {ground.network} {ground.method}",
            "-" if ground.seed is None else ground.seed,
            "-" if ground.top1 is None else f"{ground.top1:.2f}",
            ground.spec_hash,
            *(
                visible(value or "-")[:12]
                for value in (
                    ground.checkpoint_sha256,
                    ground.data_fingerprint,
                    ground.git_commit,
                    ground.environment_hash,
                )
            ),
            ground.training.status,
            ground.evaluation.status,
        )
        for ground in suite.grounds
    ]
    headers = (
        *("cell", "seed", "top-1", "parameters", "checkpoint", "data", "commit", "environment"),
        *("training", "evaluation"),
    )
    print(tabulate(lines, headers=headers, disable_numparse=True))
    for each in suite.findings:
        if each.status in ("stale", "altered") or each.is_gap:
            print(visible(f"{each.status}: {each.subject}: {'; '.join(each.reasons)}"))
    there = [each.subject for each in suite.files if each.status == "good"]
    if there:
        print(f"good: {', '.join(there)}")
    noted = {note for each in suite.findings for note in each.notes}
    for note in sorted(noted):
        count = sum(note in each.notes for each in suite.findings)
        print(visible(f"note: {count} result{'s' if count > 1 else ''} {note}"))
    print()


def _judge(verification: Verification, places: Places, strict: bool) -> None:
    from recu.verify.mending import mend

    counts = {status: verification.count(status) for status in ("good", "missing", "stale", "altered")}
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    faults = [f"{counts[status]} {status}" for status in ("stale", "altered") if counts[status]]
    gaps = sum(each.is_gap for each in verification.findings)
    if strict:
        older = sum(bool(each.notes) for each in verification.findings)
        faults += [f"{gaps} missing that others rest on"] if gaps else []
        faults += [f"{older} made by other code or in another environment"] if older else []
    if faults:
        raise VerificationError(f"{', '.join(faults)}: make them again: {mend(verification, places, strict=strict)}")
    if gaps:
        print(f"{gaps} missing that others rest on: make them again: {mend(verification, places, strict=strict)}")
