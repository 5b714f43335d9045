"""params/: whatever a file holds, it is a model or one readable line."""

import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from recu.base.errors import ConfigError
from recu.experiment.params import parse_file
from recu.experiment.paths import PARAMS_DIR
from recu.experiment.resolving import load_experiments, parse_experiment
from recu.experiment.schema import Dataset, Defaults, Published, Suite, WorkflowConfig
from recu.experiment.values import Name
from tests.fuzz.mutation import mutated

KINDS = {
    "config.yaml": WorkflowConfig,
    "defaults.yaml": Defaults,
    "datasets.yaml": dict[Name, Dataset],
    "published.yaml": Published,
    "suites/demo.yaml": Suite,
}
BOMB = "a: &a [x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
NASTY = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"- " * 3000,
    b"[" * 3000,
    b"{a: " * 3000,
    b"!!python/object/apply:os.system ['touch ran']",
    b"title: !!python/name:os.system ''",
    b"&a [*a]",
    b"{? [1, 2] : 3}",
    b"{? {a: 1} : 3}",
    b"seeds: [1e400, .nan, -.inf]",
    b"seeds: [" + b"9" * 6000 + b"]",
    b"title: 2026-99-99",
    b"<<: 3",
    b"<<: [1, {a: 2}]",
    b"a: *missing",
    b"=: 3",
    b"a: !!timestamp 2026-13-41",
    b"a: !!int x",
    b"a: !!binary '***'",
    b"1: {2: 3}",
    BOMB.encode(),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(["1e-3", "../x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def _parses_or_is_one_line(file: Path, kind) -> None:
    try:
        parse_file(file, kind)
    except ConfigError as error:
        assert "\n" not in str(error) and len(str(error)) < 3000


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.usefixtures("no_code_runs")
def test_nasty_files(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in NASTY:
        (tmp_path / "file.yaml").write_bytes(content)
        _parses_or_is_one_line(tmp_path / "file.yaml", KINDS[name])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.usefixtures("no_code_runs")
def test_mutated_files(tmp_path, name):
    original = (PARAMS_DIR / name).read_bytes()[:3000]

    @given(mutated(original))
    def check(content):
        (tmp_path / "file.yaml").write_bytes(content)
        _parses_or_is_one_line(tmp_path / "file.yaml", KINDS[name])

    check()


def _paths(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _paths(inner, (*path, key))


def _replaced(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _replaced(copy[path[0]], path[1:], new)
    return copy


@pytest.fixture
def project(tmp_path) -> Path:
    shutil.copytree(PARAMS_DIR, tmp_path / "params")
    return tmp_path / "params"


def test_a_suite_with_any_value_anywhere_resolves_or_is_refused(project):
    suite = yaml.safe_load((PARAMS_DIR / "suites/demo.yaml").read_text())

    @given(st.sampled_from(list(_paths(suite))), values)
    @example(("dataset",), "../../etc")
    @example(("seeds",), [])
    @example(("seeds",), [1, 1])
    def check(path, new):
        content = yaml.safe_dump(_replaced(suite, path, new), allow_unicode=True)
        (project / "suites/demo.yaml").write_text(content, encoding="utf-8")
        try:
            found = load_experiments(project, ("demo",))
        except ConfigError as error:
            assert "\n" not in str(error)
            return
        for identifier, experiment in found.items():
            assert parse_experiment(experiment.canonical) == experiment
            assert ".." not in identifier.split("/") and not identifier.startswith("/")

    check()


@given(st.text(max_size=60) | values.map(repr))
@example("[" * 5000)
@example('{"suite": 1}')
def test_an_experiment_in_words_nobody_wrote(text):
    with pytest.raises(ConfigError, match="--experiment") as raised:
        parse_experiment(text)
    assert "\n" not in str(raised.value)
