"""What `recu verify` and `recu report collect` advise mends what they speak of: each is damaged, asked and obeyed."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from recu.experiment import paths
from recu.experiment.paths import PROJECT_DIR
from recu.results.seal import write_sealed_json
from tests.workflow.conftest import Project, environment

pytestmark = pytest.mark.workflow

NETWORK = "smallest/tiny/cifar.resnet20_1w1a"
SHELL = """
recu() { PYTHONPATH="$CODE" "$PYTHON" -m recu "$@"; }
snakemake() { PYTHONPATH="$CODE" "$PYTHON" -m snakemake -s "$CODE/Snakefile" "$@"; }
"""


class Damaged:
    """A finished project of one's own, to be damaged."""

    def __init__(self, folder: Path, code: Path = PROJECT_DIR) -> None:
        self.folder, self._code = folder, code

    def sh(self, command: str) -> tuple[int, str]:
        """Exit code and output of a command typed by a user in the project's folder."""
        variables = environment() | {"PYTHON": sys.executable, "CODE": str(self._code)}
        result = subprocess.run(
            ["bash", "-c", SHELL + command],
            cwd=self.folder, env=variables, capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
        return result.returncode, result.stdout + result.stderr

    def metrics(self, stage: str, method: str = "vanilla") -> Path:
        return self.folder / f"results/{stage}/{NETWORK}/{method}/seed1/metrics.json"

    def edit(self, file: Path, change: Callable, *, seal: bool = False) -> None:
        """Change a JSON file and leave its times as they were, so that Snakemake sees nothing."""
        status, content = file.stat(), json.loads(file.read_text())
        change(content)
        if seal:
            write_sealed_json(file, content)
        else:
            file.write_text(json.dumps(content))
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))

    def obey(self, text: str) -> None:
        """Run the command that a message names."""
        (command,) = re.findall(r"make them again: `([^`]+)`", text)
        code, shown = self.sh(command)
        assert code == 0, shown
        assert "Nothing to be done" not in shown

    def check(self, *expected: str, strict: str = "") -> None:
        """Verification finds the fault; its advice, obeyed, leaves none."""
        code, shown = self.sh(f"recu verify {strict}")
        assert code == 4, shown
        for words in expected:
            assert words in shown
        self.obey(shown)
        code, shown = self.sh("recu verify --strict")
        assert code == 0 and " 0 missing, 0 stale, 0 altered" in shown, shown


@pytest.fixture
def damaged(finished: Project, tmp_path: Path) -> Damaged:
    shutil.copytree(finished.folder, tmp_path / "project", symlinks=True)
    # Suites that nobody ran are no business of these tests.
    for file in (tmp_path / "project/params/suites").iterdir():
        if file.stem != "smallest":
            file.unlink()
    return Damaged(tmp_path / "project")


def _set(key, value):
    return lambda content: content.__setitem__(key, value)


def test_an_edited_training_is_published_again_without_snakemakes_records(damaged: Damaged):
    shutil.rmtree(damaged.folder / ".snakemake")
    damaged.edit(damaged.metrics("train", "finetune"), _set("train_seconds", 1.0))
    damaged.check("was altered after it was published")


def test_edited_rows_and_reports_are_made_again(damaged: Damaged):
    damaged.edit(paths.rows_file(damaged.folder / "results", "smallest"), lambda found: found["rows"].pop())
    (damaged.folder / "reports/smallest.csv").unlink()
    damaged.check("rows.json: was altered", "smallest.csv", strict="--strict")


@pytest.mark.slow
@pytest.mark.parametrize("removed", ["checkpoint", "metrics", "evaluation"])
def test_what_is_gone_is_made_again(damaged: Damaged, removed):
    gone = {
        "checkpoint": damaged.metrics("train").with_name(paths.BEST_CHECKPOINT),
        "metrics": damaged.metrics("train", "finetune"),
        "evaluation": damaged.metrics("evaluate"),
    }[removed]
    gone.unlink()
    damaged.check("missing that others rest on", strict="--strict")


@pytest.mark.slow
def test_an_edited_checkpoint_is_published_again(damaged: Damaged):
    file = damaged.metrics("train").with_name(paths.BEST_CHECKPOINT)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    damaged.check("the checkpoint beside it is another")


@pytest.mark.slow
def test_an_edited_evaluation_is_measured_again(damaged: Damaged):
    damaged.edit(damaged.metrics("evaluate", "finetune"), _set("top1", 99.9))
    damaged.check("was altered after it was published")


@pytest.mark.slow
def test_other_parameters_are_trained_without_snakemakes_records(damaged: Damaged):
    shutil.rmtree(damaged.folder / ".snakemake")
    file = damaged.folder / "params/suites/smallest.yaml"
    status = file.stat()
    file.write_text(file.read_text().replace("finetune: {epochs: 1}", "finetune: {epochs: 2}"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    damaged.check("hyperparameters.epochs 1 -> 2")


@pytest.mark.slow
def test_altered_prepared_data_is_prepared_again(damaged: Damaged):
    file = damaged.folder / "data/tiny/train_labels.npy"
    status, labels = file.stat(), numpy.load(file)
    numpy.save(file, labels[::-1].copy())
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    damaged.check("altered: data/tiny")


@pytest.mark.slow
def test_an_edited_manifest_is_made_again(damaged: Damaged):
    damaged.edit(damaged.folder / "results/prepare/tiny/manifest.json", _set("fingerprint", "0" * 64))
    damaged.check("describes other data")


@pytest.mark.slow
def test_data_prepared_from_elsewhere_is_prepared_again_from_its_source(damaged: Damaged):
    other = damaged.folder / "other"
    shutil.copytree(damaged.folder / "images", other)
    (other / "train/bright").rename(other / "train/x")
    (other / "train/dark").rename(other / "train/bright")
    (other / "train/x").rename(other / "train/dark")
    code, shown = damaged.sh("recu prepare tiny --params_dir params --source other --workers 0")
    assert code == 0, shown
    damaged.check("describes other data", "other data (fingerprint")


@pytest.mark.slow
def test_a_child_of_another_parent_is_trained_anew(damaged: Damaged):
    file = damaged.metrics("train", "finetune")
    damaged.edit(file, lambda content: content["parent"].__setitem__("checkpoint_sha256", "0" * 64), seal=True)
    damaged.check("rests on another checkpoint of its parent", "mv ")


@pytest.mark.slow
def test_a_table_of_different_data_is_made_of_one(damaged: Damaged):
    # As left by a project that was copied together from two.
    for stage in ("train", "evaluate"):
        damaged.edit(damaged.metrics(stage, "finetune"), _set("data_fingerprint", "0" * 64), seal=True)
    log = damaged.folder / "results/logs/report/smallest.collect.log"
    code, _ = damaged.sh("snakemake --cores 1 --forcerun results/report/smallest/rows.json")
    assert code == 1 and "rest on different data" in log.read_text()
    damaged.obey(log.read_text())
    code, shown = damaged.sh("recu verify --strict")
    assert code == 0, shown


@pytest.mark.slow
def test_a_number_beyond_rounding_is_measured_again(damaged: Damaged):
    def change(content):
        content["top1"] = 0.0 if content["top1"] > 50 else 100.0

    damaged.edit(damaged.metrics("evaluate"), change, seal=True)
    log = damaged.folder / "results/logs/report/smallest.collect.log"
    code, _ = damaged.sh("snakemake --cores 1 --forcerun results/report/smallest/rows.json")
    assert code == 1 and "more than rounding" in log.read_text()
    first, then = re.findall(
        r"evaluate it again: `([^`]+)`; .*afresh with the code of now: `([^`]+)`", log.read_text()
    )[0]
    assert damaged.sh(first)[0] == 0
    assert damaged.sh("recu verify --strict")[0] == 0
    code, shown = damaged.sh(then)
    assert code == 0, shown
    assert damaged.sh("recu verify --strict")[0] == 0


@pytest.mark.slow
def test_results_of_other_code_are_trained_anew(damaged: Damaged, tmp_path: Path):
    code = tmp_path / "code"
    for name in ("recu", "workflow", "profiles", "params"):
        shutil.copytree(PROJECT_DIR / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(PROJECT_DIR / name, code)
    with (code / "recu/binarisers/recu.py").open("a") as file:
        file.write("\n\ndef _changed() -> None: ...\n")
    changed = Damaged(damaged.folder, code)
    changed.check("made by other code or in another environment", "mv ", strict="--strict")


@pytest.mark.slow
def test_faults_in_two_suites_are_mended_by_one_command_without_the_states(damaged: Damaged):
    suites = damaged.folder / "params/suites"
    (suites / "second.yaml").write_text((suites / "smallest.yaml").read_text().replace("finetune: {epochs: 1}", ""))
    code, shown = damaged.sh("snakemake --cores 2 --config suites=second")
    assert code == 0, shown
    shutil.rmtree(damaged.folder / "runs")
    damaged.metrics("train").with_name(paths.BEST_CHECKPOINT).unlink()
    damaged.edit(paths.rows_file(damaged.folder / "results", "second"), lambda found: found["rows"].pop())
    damaged.check("though", "second/rows.json: was altered", strict="--strict")


@pytest.mark.slow
def test_packed_files_and_speeds_are_made_again_and_stay_in_the_table(damaged: Damaged):
    code, shown = damaged.sh("snakemake --cores 2 --config benchmark=true")
    assert code == 0, shown
    table = damaged.folder / "reports/smallest.csv"
    damaged.metrics("export").with_name(paths.PACKED).write_bytes(b"other")
    damaged.edit(damaged.metrics("speed", "finetune"), _set("threads", 9))
    damaged.check("the packed file beside it is another", "was altered after it was published")
    table.unlink()
    damaged.check("smallest.csv: not there, though", strict="--strict")
    assert "packed_ms" in table.read_text()
