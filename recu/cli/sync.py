"""`recu sync`: bring MLflow up to date with the files of every run."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from recu.base.errors import ConfigError, OutputError
from recu.base.redaction import redact
from recu.base.text import visible
from recu.cli import options

if TYPE_CHECKING:
    from recu.stages.gallery import Gallery
    from recu.tracking.wanted import Folders


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    options.add_project_options(parser, "runs_dir", "results_dir")
    parser.add_argument("--tracking_uri", help="MLflow store (default: that of params/config.yaml)")
    parser.add_argument(
        "--checkpoints",
        action="store_true",
        help="copy each published checkpoint to a store on another machine (default: only its name and SHA-256)",
    )
    parser.add_argument("--figures", action="store_true", help="draw the figures of each evaluated training there, too")
    parser.add_argument(
        "--models",
        action="store_true",
        help="log each evaluated training's network as a model that mlflow.pytorch.load_model loads, and register it;"
        " one more copy of its weights",
    )


def run(arguments: argparse.Namespace) -> None:
    """Mirror every run whose files say what the store does not show, and say what became of it.

    Raises:
        OutputError: the store cannot be used, or does not show everything now.
    """
    from recu.base.addresses import sqlite_file
    from recu.tracking import resolve_tracking_uri
    from recu.tracking.store import empty_log, prepare_store
    from recu.tracking.sync import find_outboxes, find_runs

    config = options.project_config(arguments)
    address = resolve_tracking_uri(arguments.tracking_uri or config.tracking_uri)
    if address is None:
        raise ConfigError("no MLflow store is configured: give --tracking_uri")
    runs_dir, results_dirs = Path(config.runs_dir), [Path(config.results_dir)]
    if arguments.results_dir is None:
        # Of another project's runs, or a copy's.
        results_dirs.append(runs_dir.parent / config.results_dir)
    runs = find_runs(runs_dir, results_dirs)
    prepare_store(address, [])
    gallery = None
    if arguments.figures or arguments.models:
        from recu.stages.gallery import Gallery

        gallery = Gallery(address, runs, figures=arguments.figures, models=arguments.models)
    said = []
    for folders in runs:
        said.append(_synced(folders, address, arguments.checkpoints, gallery))
        if said[-1][0]:
            print(visible(redact(said[-1][0])))
    file = sqlite_file(address)
    if file is not None:
        empty_log(file)
    if runs:
        print(f"{len(runs)} runs, {sum(not line for line, _ in said)} of them up to date before")
    else:
        print(f"nothing to send in {runs_dir}")
    if gallery is not None and gallery.not_evaluated:
        print(f"trainings that the workflow has not evaluated, without figures and model: {gallery.not_evaluated}")
    outboxes = find_outboxes(runs_dir)
    if outboxes:
        print(
            f"{len(outboxes)} files like {visible(str(outboxes[0]))} are of an earlier version: what they hold is in"
            " the runs' own files too, and is sent from those; they may be removed"
        )
    left = sum(count for _, count in said)
    if left:
        raise OutputError(f"{left} parts of runs are not in the store, see above: they stay in the runs' files")


def _synced(folders: Folders, address: str, checkpoints: bool, gallery: Gallery | None) -> tuple[str, int]:
    """What to say of a run, "" where nothing was to be sent, and how many of its parts the store does not show."""
    from filelock import Timeout

    from recu.tracking.follower import lock_of
    from recu.tracking.mirror import bring, worded

    name = folders.state if folders.state.is_dir() else folders.results
    try:
        with lock_of(folders.state) if folders.state.is_dir() else nullcontext():
            done = bring(folders, address, upload_checkpoint=checkpoints)
            if gallery is not None:
                gallery.add(folders, done)
    except Timeout:
        return f"{name}: busy: a job is at work, and mirrors it", 0
    except OutputError:
        raise  # the store cannot be used, for no run
    except Exception as error:
        return f"{name}: {worded(error)}", 1
    reasons = "".join(f"\n  not sent: {reason}" for reason in done.left)
    return (f"{name}: {done.sent} sent{reasons}" if done.sent or done.left else ""), len(done.left)
