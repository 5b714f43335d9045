"""Command lines on the tiny dataset."""

import json
from pathlib import Path

import pytest

from recu.cli.main import main


class CommandLine:
    """Calls `recu` in this process, in a folder of its own."""

    def __init__(self, folder: Path, project: Path, capsys) -> None:
        self.folder, self.project, self._capsys = folder, project, capsys
        self.out = self.err = ""

    def __call__(self, *words) -> int:
        code = main([str(word) for word in words])
        self.out, self.err = self._capsys.readouterr()
        return code

    @property
    def places(self) -> list:
        return ["--params_dir", self.project / "params", "--gpus", "cpu", "--workers", 0]

    @property
    def tiny(self) -> list:
        return ["--model", "resnet20_1w1a", "--dataset", "tiny", "--data_path", self.project / "images", *self.places]

    def train(self, *words) -> int:
        return self("train", "--epochs", 2, "-b", 16, "--tracking_uri", "", *self.tiny, *words)

    def json(self, file) -> dict:
        return json.loads((self.folder / file).read_text(encoding="utf-8"))

    def error(self) -> str:
        """The one line on stderr."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and "Traceback" not in self.err, self.err
        return lines[0]


@pytest.fixture
def recu(tmp_path, tiny_project, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return CommandLine(tmp_path, tiny_project, capsys)
