"""`recu prune`: remove what nothing needs from the disk, after asking."""

from __future__ import annotations

import argparse
import sys

from recu.base.errors import ConfigError, RecuError
from recu.base.redaction import redact
from recu.base.text import visible
from recu.cli import options
from recu.cli.du import in_words


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    options.add_project_options(parser)
    parser.add_argument("--yes", action="store_true", help="remove what is listed without asking")


def run(arguments: argparse.Namespace) -> None:
    """List what nothing needs, ask, and remove it; what turns out to be in use is kept, and said.

    Raises:
        ConfigError: there is no terminal to ask on.
    """
    from recu.stages.du import Disk
    from recu.stages.prune import spares

    found = spares(Disk(arguments.params_dir, options.project_config(arguments)))
    if not found:
        print("nothing to free: results, prepared data and what they need stay")
        return
    sizes = [spare.bytes for spare in found]
    for spare, size in zip(found, sizes, strict=True):
        print(f"{in_words(size):>8}  {visible(str(spare.path))}: {visible(spare.why)}")
    print(f"{in_words(sum(sizes))} in {len(found)} places")
    if not arguments.yes and not _agreed():
        print("nothing was removed")
        return
    total = 0
    for spare, size in zip(found, sizes, strict=True):
        try:
            spare.free()
        except RecuError as error:
            print(visible(redact(f"kept: {error}")))
        else:
            total += size
    print(f"{in_words(total)} freed")


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("nothing was removed, since there is no terminal to ask on: --yes removes what is listed")
    try:
        return input("remove all of this? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
