"""pyproject.toml, constraints.txt and environment.yml name the same versions."""

import re
import tomllib

import yaml
from packaging.requirements import Requirement

from recu.experiment.paths import PROJECT_DIR


def pins(lines: list[str]) -> dict[str, str]:
    found = {}
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9_.-]+)==([^\s;]+)", line.strip())
        if match:
            found[match[1].lower().replace("_", "-")] = match[2]
    return found


def project() -> dict:
    return tomllib.loads((PROJECT_DIR / "pyproject.toml").read_text())["project"]


def test_every_direct_dependency_is_pinned():
    dependencies = [*project()["dependencies"]]
    for extra in project()["optional-dependencies"].values():
        dependencies += [entry for entry in extra if not entry.startswith("recu-repro[")]
    assert len(pins(dependencies)) == len(dependencies)


def test_the_test_environment_has_dali_where_it_exists():
    (own,) = [entry for entry in project()["optional-dependencies"]["test"] if entry.startswith("recu-repro[dali")]
    requirement = Requirement(own)
    assert requirement.extras == {"dali-cuda130"}
    for system, machine, there in (
        ("linux", "x86_64", True),
        ("linux", "aarch64", True),
        ("darwin", "arm64", False),
        ("win32", "AMD64", False),
    ):
        assert requirement.marker.evaluate({"sys_platform": system, "platform_machine": machine}) == there


def test_conda_environment_has_the_same_pins():
    environment = yaml.safe_load((PROJECT_DIR / "environment.yml").read_text())
    conda = pins(next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)))
    ours = pins(project()["dependencies"]) | pins(project()["optional-dependencies"]["dali-cuda130"])
    assert conda == ours


def test_constraints_agree_with_the_pins():
    constraints = pins((PROJECT_DIR / "constraints.txt").read_text().splitlines())
    extras = project()["optional-dependencies"]
    direct = pins(project()["dependencies"]) | pins(extras["test"]) | pins(extras["dali-cuda130"])
    direct |= pins(extras["browser"]) | pins(extras["crate"])
    direct |= pins(extras["export"])
    assert {name: constraints.get(name) for name in direct} == direct
