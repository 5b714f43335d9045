"""The built wheel works in an environment of its own, outside a checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from recu.experiment.paths import PROJECT_DIR


def run(command: list[str | Path], folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW"))}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def recu(tmp_path_factory) -> Path:
    """The program of a wheel in a virtual environment that has the dependencies, but no checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("recu", "params"):
        shutil.copytree(PROJECT_DIR / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(PROJECT_DIR / name, source)
    run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, source], folder)
    venv.create(folder / "venv", with_pip=False)
    paths = sysconfig.get_paths(vars={"base": str(folder / "venv"), "platbase": str(folder / "venv")})
    # The packages of this environment without its .pth files: an editable installation is not among them.
    (Path(paths["purelib"]) / "shared.pth").write_text(sysconfig.get_path("purelib"))
    (wheel,) = folder.glob("recu_repro-*.whl")
    python = Path(paths["scripts"]) / "python"
    run([python, "-m", "pip", "install", "--no-deps", "--ignore-installed", "--no-index", wheel], folder)
    where = run([python, "-c", "import recu; print(recu.__file__)"], folder).strip()
    assert Path(where).is_relative_to(folder / "venv")
    return Path(paths["scripts"]) / "recu"


@pytest.mark.slow
def test_plan_train_and_evaluate_in_an_empty_folder(recu, tmp_path):
    assert "demo/digits/cifar.resnet20_1w1a/vanilla/seed1" in run([recu, "plan"], tmp_path)
    assert list(tmp_path.iterdir()) == []
    words = ["--dataset", "digits", "--model", "resnet20_1w1a", "--epochs", "1", "--gpus", "cpu", "--save", "mine"]
    run([recu, "train", *words], tmp_path)
    best = "results/mine/model_best.pth.tar"
    run([recu, "evaluate", "-e", best, "--gpus", "cpu", "--output", "top1.json"], tmp_path)
    assert json.loads((tmp_path / "top1.json").read_text())["top1"] > 10
    digit = (
        "import sklearn.datasets as s, PIL.Image as i; i.fromarray((s.load_digits().images[0] * 15).astype('uint8'))"
    )
    run([recu.with_name("python"), "-c", f"{digit}.save('digit.png')"], tmp_path)
    (line,) = run([recu, "predict", best, "digit.png"], tmp_path).splitlines()
    assert line.startswith("digit.png: ") and line.count(" %") == 5
    code = f"import recu; print('digit.png: ' + ', '.join(map(str, recu.load({best!r}).predict('digit.png'))))"
    assert run([recu.with_name("python"), "-c", code], tmp_path).splitlines() == [line]
