"""`recu du`: show what lies on disk, by experiment, and what needs it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from recu.base.text import visible
from recu.cli import options

_HEADERS = ("name", "size", "prune frees", "needed by")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    options.add_project_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of the tables")


def run(arguments: argparse.Namespace) -> None:
    """Print every entry with its size, what `recu prune` would free of it, and what needs it."""
    from tabulate import tabulate

    from recu.stages.du import Disk, entries
    from recu.stages.prune import freed, spares

    disk = Disk(arguments.params_dir, options.project_config(arguments))
    found, spare = entries(disk), spares(disk)
    total = {"bytes": sum(entry.bytes for entry in found), "spare_bytes": sum(each.bytes for each in spare)}
    if arguments.json:
        plain = [asdict(entry) | {"path": str(entry.path), "spare_bytes": freed(spare, entry.path)} for entry in found]
        print(json.dumps(total | {"entries": plain}, indent=2))
        return
    for place in dict.fromkeys(entry.place for entry in found):
        own = [entry for entry in found if entry.place == place]
        rows = [
            (visible(entry.name), in_words(entry.bytes), in_words(freed(spare, entry.path)), _needed(entry.needed_by))
            for entry in own
        ]
        print(f"{visible(place)}: {in_words(sum(entry.bytes for entry in own))}")
        print(tabulate(rows, headers=_HEADERS, colalign=("left", "right", "right", "left")))
        print()
    print(f"{in_words(total['bytes'])} in all; `recu prune` would free {in_words(total['spare_bytes'])}")


def in_words(size: int) -> str:
    """A number of bytes with three digits, e.g. 44.8 MB."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" or value >= 100 else f"{value:.1f} {units[0]}"


def _needed(by: tuple[str, ...]) -> str:
    more = f" and {len(by) - 2} more" if len(by) > 2 else ""
    return visible(", ".join(by[:2])) + more if by else "-"
