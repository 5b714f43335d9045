"""`recu`: finds the subcommand, runs it, and turns errors into one line and a stable exit code.

A subcommand's module is imported only when it is called, so that `recu --help` costs nothing.
"""

from __future__ import annotations

import argparse
import atexit
import difflib
import gc
import importlib
import io
import logging
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from recu import __version__, cli
from recu.base.errors import ConfigError, OutputError, RecuError, unknown_name
from recu.base.redaction import RedactingFormatter, redact
from recu.base.surroundings import settle_environment, trouble_in_words
from recu.base.text import visible
from recu.experiment.own import look_beside

_NO_COMMANDS = ("main", "options")
"""Modules beside the subcommands."""
_HELP = re.compile(r'"""`[^`]+`: (.+?)\.\n?(?:"""|\n)', re.DOTALL)
"""The first sentence of a subcommand's module."""

_SPINS_OF_WAITING_THREADS = "1000"
"""Instead of hundreds of thousands: PyTorch's threads would keep the cores from the compiled loops of `recu.nn`."""
_WITH_USUAL_THREADS = ("speed",)
"""Commands that measure PyTorch, which then has to run as it does in any program."""

_BUG = 1
_KEYBOARD = 130  # 128 + SIGINT, as shells report it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: without the program's name; None for the process's own.

    Returns:
        The exit code: 0, or that of the error (see `recu.base.errors`); 1, after a traceback, for a bug.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _open_closed_streams()
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_overview(), flush=True)
            return 0 if words else RecuError.exit_code
        if words[0] == "--version":
            print(f"recu {__version__}", flush=True)
            return 0
        with trouble_in_words():
            _run(words[0], words[1:])
        sys.stdout.flush()
        return 0
    except RecuError as error:
        return _fail(error)
    except KeyboardInterrupt:
        return _KEYBOARD
    except BrokenPipeError:
        _close_output()
        return 0
    except OSError as error:
        # Whatever no stage foresaw, e.g. a name too long or standard output on a full disk: still not a bug of ours.
        what = error.filename or "standard output, a file or a connection"
        return _fail(OutputError(f"cannot use {what}: {error.strerror or error}; check path, space and permissions"))
    except Exception:
        print(redact(traceback.format_exc()), end="", file=sys.stderr)
        return _BUG


def _run(command: str, words: list[str]) -> None:
    if command not in commands():
        raise unknown_name("command", command, commands())
    for note in settle_environment(os.environ):
        print(visible(redact(note)), file=sys.stderr)
    if command not in _WITH_USUAL_THREADS:
        # Read when PyTorch is first imported.
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS_OF_WAITING_THREADS)
    # Python would look through all of PyTorch for garbage as it exits, for a second.
    atexit.register(gc.freeze)
    module = importlib.import_module(f"recu.cli.{command}")
    said = help_of(command)
    parser = _Parser(
        prog=f"recu {command}",
        description=f"{said[0].upper()}{said[1:]}.",
        formatter_class=argparse.HelpFormatter,
        # A misspelt option must not be taken for the beginning of another.
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    arguments = parser.parse_args(words)
    arguments.words = (command, *words)  # for a launcher that runs them as several processes
    arguments.default_of = parser.get_default  # for `recu.cli.options.given_options`
    look_beside(getattr(arguments, "params_dir", None))
    with _messages_on_terminal():
        module.run(arguments)


def commands() -> list[str]:
    """Every subcommand: the modules beside this one."""
    return [each.name for each in pkgutil.iter_modules(cli.__path__) if each.name not in _NO_COMMANDS]


def help_of(command: str) -> str:
    """A subcommand in one line, out of its source: importing each would take a second."""
    source = pkgutil.get_data("recu.cli", f"{command}.py") or b""
    found = _HELP.match(source.decode())
    return " ".join(found[1].split()) if found else ""


def _overview() -> str:
    lines = [f"  {name:<10}{help_of(name)}" for name in commands()]
    return "\n".join(
        (
            "usage: recu COMMAND [OPTIONS]",
            "",
            "Reproduces ReCU (ICCV 2021): prepares data, trains, evaluates and renders tables.",
            "",
            *lines,
            "",
            "recu COMMAND --help lists a command's options; recu --version prints the version.",
        )
    )


@contextmanager
def _messages_on_terminal() -> Iterator[None]:
    """Within the block, show this package's messages as plain lines on stderr."""
    logger = logging.getLogger("recu")
    handler = logging.StreamHandler()
    handler.setLevel(logging.INFO)
    handler.setFormatter(RedactingFormatter("%(message)s"))
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _open_closed_streams() -> None:
    """Where standard output or error are closed (`>&-`), write to nowhere, lest a file opened next take their place.

    What a terminal's encoding has no sign for, e.g. in the name of a file, is written as an escape.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _close_output() -> None:
    # The reader (`| head`) has gone. Flushing at exit would complain about it once more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: RecuError) -> int:
    print(f"error: {visible(redact(str(error)))}", file=sys.stderr)
    return error.exit_code


class _Parser(argparse.ArgumentParser):
    """Words its errors as this program words all of them."""

    def print_help(self, file: Any = None) -> None:
        """As argparse's, which would keep silent about a full disk."""
        print(self.format_help(), end="", file=file, flush=True)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str], namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """As argparse's; a misspelt option is answered with the nearest right one."""
        arguments, unknown = self.parse_known_args(args, namespace)
        for word in unknown:
            if word.startswith("-"):
                option = word.partition("=")[0]
                nearest = difflib.get_close_matches(option, self._option_string_actions, n=1, cutoff=0.5)
                self.error(f"unknown option {option}" + (f"; did you mean {nearest[0]}?" if nearest else ""))
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return arguments

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message} (see {self.prog} --help)")
