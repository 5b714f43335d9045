"""Reads the files under params/ into the models of `recu.experiment.schema`, and words what is wrong with them."""

from __future__ import annotations

import difflib
import functools
import json
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from recu.base.errors import ConfigError, unknown_name
from recu.base.files import check_ordinary
from recu.base.redaction import without_credentials
from recu.experiment import paths
from recu.experiment.schema import Claims, Dataset, Datasets, Defaults, Published, ReleasedSuite, Suite, WorkflowConfig
from recu.experiment.values import MODEL_PATTERN, NAME_PATTERN, Name

T = TypeVar("T")

_MOST_VALUES = 1_000_000

_TEXT, _INTEGER, _FLOAT, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "merge"))
_LEADING_ZERO = re.compile("[-+]?0[0-9_]")

_RESERVED = {
    "readme": "its table would replace reports/README.md",
    "index": "its page would be that over all suites, reports/index.html",
    "claims": "its page would be reports/claims.html",
    "command-line": "trainings on the command line are filed under it",
    "default": "MLflow files runs of other programs under it",
}
"""Names that no suite may have, in small letters, and why."""


def load_config(params_dir: Path) -> WorkflowConfig:
    """params/config.yaml, without what Snakemake's command line may override. Raises ConfigError."""
    return parse_file(paths.params_file(params_dir, "config"), WorkflowConfig)


def load_defaults(params_dir: Path) -> Defaults:
    """params/defaults.yaml. Raises ConfigError naming file, key and expected value."""
    return parse_file(paths.params_file(params_dir, "defaults"), Defaults)


def load_datasets(params_dir: Path) -> dict[str, Dataset]:
    """params/datasets.yaml. Raises ConfigError naming file, key and expected value."""
    return parse_file(paths.params_file(params_dir, "datasets"), Datasets)


def load_published(params_dir: Path) -> Published:
    """params/published.yaml. Raises ConfigError naming file, key and expected value."""
    return parse_file(paths.params_file(params_dir, "published"), Published)


def load_claims(params_dir: Path) -> Claims:
    """params/claims.yaml; no claims where there is none. Raises ConfigError naming file, key and expected value."""
    file = paths.params_file(params_dir, "claims")
    return parse_file(file, Claims) if file.exists() else Claims(claims=())


def load_suites(params_dir: Path, names: tuple[str, ...]) -> dict[str, Suite | ReleasedSuite]:
    """Several suites by name, of either kind. Raises ConfigError as `load_suite`."""
    return {name: load_suite(params_dir, name) for name in names}


def suite_kind(data: Any) -> type[Suite] | type[ReleasedSuite]:
    """Which kind of suite a file of params/suites/ is: one with the key `files`, or a slip of it, trains nothing.

    Args:
        data: what the file holds.
    """
    keys = [str(key) for key in data] if isinstance(data, dict) else []
    if "rows" in keys and "files" not in keys:
        return Suite
    # A slip counts too, so that its error speaks of the keys of the kind that was meant.
    return ReleasedSuite if difflib.get_close_matches("files", keys, n=1, cutoff=0.8) else Suite


def load_suite(params_dir: Path, name: str) -> Suite | ReleasedSuite:
    """One file of params/suites/. Raises ConfigError; an unknown name is answered with the nearest one."""
    file, known = paths.suite_file(params_dir, name), all_suites(params_dir)
    if name not in known:
        raise unknown_name("suite", name, known)
    validate_model(json.dumps(name), Name, f"{_shown(file)}: the file's name, which is the suite's")
    if name.casefold() in _RESERVED:
        raise ConfigError(
            f"{_shown(file)}: a suite cannot be called {name}: {_RESERVED[name.casefold()]}; rename the file"
        )
    data = _read_yaml(file)
    return validate_model(data, suite_kind(data), _shown(file))


def all_suites(params_dir: Path) -> list[str]:
    """Names of the suites of either kind that params/suites/ holds."""
    return sorted(file.stem for file in paths.suite_file(params_dir, "*").parent.glob("*.yaml"))


def parse_workflow_config(config: dict[str, Any]) -> WorkflowConfig:
    """Snakemake's merged configuration as a model. Raises ConfigError."""
    return validate_model(config, WorkflowConfig, "params/config.yaml (or --config)")


def suite_names(config: WorkflowConfig) -> tuple[str, ...]:
    """The chosen suites, each once, in the order given."""
    return tuple(dict.fromkeys(config.suites))


def parse_file(file: Path, kind: type[T]) -> T:
    """Read one YAML file and validate it as `kind`.

    Raises:
        ConfigError: the file is missing, not YAML, holds a key twice, or does not have the form of `kind`.
    """
    return validate_model(_read_yaml(file), kind, _shown(file))


def _read_yaml(file: Path) -> Any:
    try:
        check_ordinary(file)
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {_shown(file)}: {getattr(error, 'strerror', None) or error}") from error
    try:
        return _parsed(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{_shown(file)} is not valid YAML: {_problem(error)}") from error


@functools.lru_cache(maxsize=32)
def _parsed(text: str) -> Any:
    """Nobody changes what it gives; a plan reads each file several times, and YAML is slow."""
    data = yaml.load(text, Loader=_PlainLoader)
    _check_size(data, {})
    return data


def _problem(error: Exception) -> str:
    """A reader's error in one line, with the line where it was noticed."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"line {mark.line + 1}: {problem}" if mark and problem else " ".join(str(error).split())


def _check_size(value: Any, known: dict[int, int]) -> int:
    """How many values `value` has once each alias is written out; a few lines of YAML can stand for billions.

    Raises:
        ValueError: more than any file here needs, or the value contains itself.
    """
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        known[id(value)] = _MOST_VALUES  # what is met again while it is counted contains itself
        inner = (*value, *value.values()) if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_check_size(each, known) for each in inner)
    if known[id(value)] >= _MOST_VALUES:
        raise ValueError(f"its aliases stand for more than {_MOST_VALUES} values")
    return known[id(value)]


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
    """A safe loader that takes keys as they are written, and refuses what YAML reads as something else than it says:
    a key given twice, of which PyYAML would silently keep the last, 010 for 8 and 1:30 for 90."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
            seen.add(key)
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != _MERGE:
                key_node.tag = _TEXT  # else 1.1 and 1.10 were one key
        return node

    def construct_number(self, node: yaml.ScalarNode) -> float:
        text = self.construct_scalar(node)
        number: float = self.construct_yaml_int(node) if node.tag == _INTEGER else self.construct_yaml_float(node)
        if ":" in text or (node.tag == _INTEGER and _LEADING_ZERO.match(text)):
            wrong = f"{text} is the number {number} to YAML: write it out in digits, or put quotes around a name"
            raise yaml.constructor.ConstructorError(None, None, wrong, node.start_mark)
        return number


_PlainLoader.add_constructor(_INTEGER, _PlainLoader.construct_number)
_PlainLoader.add_constructor(_FLOAT, _PlainLoader.construct_number)


def validate_model(data: Any, kind: type[T], where: str) -> T:
    """Validate `data` (JSON text, or what JSON can express) as `kind`.

    Raises:
        ConfigError: beginning with `where`, naming the key and what was expected.
    """
    try:
        # Through JSON, because strict validation of JSON takes a list for a tuple and still "3" for no number.
        text = data if isinstance(data, str) else json.dumps(data, default=str)
        checked: T = adapter(kind).validate_json(text)  # type: ignore[arg-type]
        return checked
    except ValidationError as error:
        problems = [_describe(problem, kind) for problem in _first_causes(error.errors())]
        more = f" (and {len(problems) - 1} more: {'; '.join(problems[1:4])})" if len(problems) > 1 else ""
        raise ConfigError(f"{where}: {problems[0]}{more}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: {error}") from error


@functools.cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """pydantic's validator of a type, made once a process."""
    return TypeAdapter(kind)


def _first_causes(problems: Sequence[Any]) -> list[Any]:
    # A list whose items are all wrong is also reported as too short, which only repeats them.
    deeper = {problem["loc"][:depth] for problem in problems for depth in range(len(problem["loc"]))}
    return [problem for problem in problems if problem["type"] != "too_short" or problem["loc"] not in deeper]


def _describe(problem: Any, kind: Any) -> str:
    """One validation problem as `key: what is wrong`."""
    location = list(problem["loc"])
    key = ".".join(str(part) for part in location) or ("the name" if kind is Name else "the whole file")
    if problem["type"] == "extra_forbidden":
        valid = _keys_at(kind, location[:-1])
        nearest = difflib.get_close_matches(str(location[-1]), valid, n=1, cutoff=0.5)
        hint = (
            f"; did you mean {nearest[0]!r}?" if nearest else f" (known: {', '.join(sorted(valid))})" if valid else ""
        )
        return f"{key}: unknown key{hint}"
    if problem["type"] == "missing":
        return f"{key}: missing"
    expected = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if problem.get("ctx", {}).get("pattern") in (NAME_PATTERN, MODEL_PATTERN):
        expected = "should be letters, digits, '_', '.' and '-', a letter or digit first and no '.' last"
    if problem["type"] == "value_error":
        # Of a whole model's values together: they name their keys themselves.
        return f"{key}: {expected}" if location else expected
    return f"{key}: {expected}, found {_short(problem['input'])}{_number_hint(problem['input'])}"


def _number_hint(value: Any) -> str:
    # YAML 1.1 reads 1e-3 as text: the commonest surprise in such files.
    if isinstance(value, str) and "e" in value.lower():
        try:
            number = float(value)
        except ValueError:
            return ""
        return f" (a text to YAML: write {yaml.safe_dump(int(number) if number.is_integer() else number).split()[0]})"
    return ""


def _keys_at(kind: Any, location: list[Any]) -> list[str]:
    """The keys that the model found by following `location` from `kind` allows."""
    current = kind
    for part in location:
        current = _step(current, part)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _step(kind: Any, part: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _step(arguments[0], part)
    if origin in (typing.Union, types.UnionType):
        return next((found for option in arguments if (found := _step(option, part)) is not None), None)
    if origin is dict:
        return arguments[1]
    if origin is tuple:
        return arguments[0]
    if isinstance(kind, type) and issubclass(kind, BaseModel) and part in kind.model_fields:
        annotation = kind.model_fields[part].annotation
        return annotation
    return None


def _short(value: Any) -> str:
    text = without_credentials(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shown(file: Path) -> str:
    return file.relative_to(Path.cwd()).as_posix() if file.is_relative_to(Path.cwd()) else file.as_posix()
