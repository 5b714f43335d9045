"""What messages advise can be done: commands and options exist, and nothing that is whole is to be removed."""

import argparse
import ast
import importlib
import re
import shlex
from collections.abc import Iterator

import pytest

from recu.cli.main import commands
from recu.experiment.paths import PROJECT_DIR

REMOVAL = re.compile(r"\b(remove|delete|erase|rm)\b", re.IGNORECASE)
MAY_BE_REMOVED = {
    "links back to a folder that holds it; remove the link": "a link holds nothing",
    "has no images{}; fill or remove it": "the class folder is empty",
    "DELETE FROM recu_place": "SQL, and no advice",
    "cannot remove {}: {}; check permissions": "what nobody needs stays",
    "remove all of this? [y/N] ": "`recu prune` asks about what it listed",
    "remove what is listed without asking": "its --yes",
}
"""Every message that speaks of removing, and why it may."""

COMMAND = re.compile(r"`((?:recu|snakemake|make)\s[^`]*)`|\b(recu (?:sync|ui)\b(?: --\w+ \{\})?)|\b(make ui)\b")
OPTION = re.compile(r"(?<![\w/-])--([a-z][\w-]*)")
PATHS_IN_DOCS = ("README.md", "docs/*.md")


def messages() -> Iterator[tuple[str, str]]:
    """File and text of every string in the package but docstrings; what an f-string fills in is {}."""
    for file in sorted((PROJECT_DIR / "recu").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        skipped |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if id(node) not in skipped and (text := text_of(node)):
                yield file.relative_to(PROJECT_DIR).as_posix(), text


def text_of(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


class Refused(Exception):
    """What a parser says instead of ending the process."""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Refused(message)


@pytest.fixture(scope="module")
def parsers() -> dict[str, Parser]:
    """By subcommand, the parser that the command line uses."""
    made = {}
    for name in commands():
        made[name] = Parser(prog=name, allow_abbrev=False)
        importlib.import_module(f"recu.cli.{name}").add_arguments(made[name])
    return made


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    found = {option for action in parser._actions for option in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {option for inner in action.choices.values() for option in options_of(inner)}
    return found


@pytest.fixture(scope="module")
def snakemake_options() -> set[str]:
    from snakemake.cli import get_argument_parser

    return options_of(get_argument_parser())


def test_nothing_that_is_whole_is_to_be_removed():
    advised = {text: file for file, text in messages() if REMOVAL.search(text)}
    unexplained = {text: file for text, file in advised.items() if not any(known in text for known in MAY_BE_REMOVED)}
    assert unexplained == {}


def commands_in(text: str) -> list[str]:
    return [next(filter(None, found)) for found in COMMAND.findall(text)]


def advised_commands() -> list[tuple[str, str]]:
    return [(file, command) for file, text in messages() for command in commands_in(text)]


def test_commands_in_messages_can_be_typed(parsers, snakemake_options):
    advised = advised_commands()
    assert {"snakemake --cores all", "recu report collect", "make ui"} <= {command for _, command in advised}
    problems = {
        (file, command): problem
        for file, command in advised
        if (problem := problem_of(command, parsers, snakemake_options)) is not None
    }
    assert problems == {}


def problem_of(command: str, parsers: dict[str, Parser], snakemake_options: set[str]) -> str | None:
    """Why a command cannot be typed as it stands, whatever is filled in; None where it can."""
    words = shlex.split(command.replace("{}", "x").replace("%s", "x"))
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (PROJECT_DIR / "Makefile").read_text(), re.MULTILINE)
        return None if words[1] in targets else f"no target {words[1]}"
    if words[0] == "snakemake":
        unknown = {word for word in words if word.startswith("--")} - snakemake_options
        return f"no option {unknown}" if unknown else None
    if words[1] not in parsers:
        return f"no command {words[1]}"
    if tuple(words) in NAMES_ONLY:
        return None
    try:
        parsers[words[1]].parse_args(words[2:])
    except Refused as error:
        return str(error)
    return None


NAMES_ONLY = {("recu", "report", "collect")}
"""Commands that messages name without advising them; the workflow completes them."""


def test_options_in_messages_exist(parsers, snakemake_options):
    known = {option for parser in parsers.values() for option in options_of(parser)} | snakemake_options
    elsewhere = {
        "recu/results/provenance.py",  # git's
        "recu/cli/main.py",
    }
    unknown = {
        (file, option)
        for file, text in messages()
        if " " in text and file not in elsewhere
        for option in (f"--{name}" for name in OPTION.findall(text))
        if option not in known
    }
    of_other_programs = {
        ("recu/data/load/torchvision_loader.py", "--shm-size"),  # docker's
        ("recu/base/surroundings.py", "--mem"),  # Slurm's
        ("recu/data/prepare/archives.py", "--hard-dereference"),  # tar's
        ("recu/base/needed.py", "--constraint"),  # pip's
        ("recu/base/needed.py", "--editable"),
    }
    assert unknown <= of_other_programs


@pytest.mark.parametrize("page", sorted(file.name for glob in PATHS_IN_DOCS for file in PROJECT_DIR.glob(glob)))
def test_commands_in_the_docs_have_options_that_exist(page, parsers, snakemake_options):
    file = PROJECT_DIR / page if page == "README.md" else PROJECT_DIR / "docs" / page
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(
        r"^(?:\$ )?(recu [a-z]+ .*|snakemake .*)$|`(recu [a-z]+ [^`]*|snakemake [^`]*)`", text, re.MULTILINE
    ):
        command = next(filter(None, line)).partition("#")[0]
        program, verb = command.split()[:2]
        known = snakemake_options if program == "snakemake" else options_of(parsers[verb])
        known |= {f"--{name}" for name in re.findall(r"^ +(\w+): Annotated\[", text, re.MULTILINE)}  # the page's own
        for option in OPTION.findall(command):
            assert f"--{option}" in known, command
