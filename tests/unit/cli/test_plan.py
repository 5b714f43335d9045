"""`recu plan`: what is to do, how long it takes, and its mistakes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recu.cli.main import main
from recu.experiment.params import load_defaults
from recu.experiment.paths import PARAMS_DIR, manifest_file, params_file
from recu.experiment.resolving import load_experiments
from recu.stages.standing import Standing

SUITE = """
title: Two seeds
description: Of one network.
dataset: digits
seeds: [1, 2]
methods: {vanilla: {}}
rows: [{model: resnet20_1w1a}]
"""
RATE = {"image_size": 32, "stage": 2, "train_images_per_s": 143.7, "test_images_per_s": 360.0}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()

    def measured(*networks, **changes):
        rates = [RATE | {"network": network} for network in networks]
        content = {"device": "some card", "source": "me", "train_job_s": 3.0, "rates": rates} | changes
        (tmp_path / "results/rates.json").write_text(json.dumps(content))

    return measured


def total(*words):
    assert main(["plan", *words, "--output", "plan.json"]) == 0
    return json.loads(Path("plan.json").read_text())


def test_without_rates_images_are_counted_and_the_advice_says_how_to_measure(place, capsys):
    assert total("demo")["total"]["images"] == 53919
    shown = capsys.readouterr().out
    assert "left to do: 15 trainings and 15 evaluations, 53,919 images" in shown
    assert "measure this machine with `recu bench --suite demo`" in shown and "device-hours" not in shown


def test_a_suite_for_gpus_is_measured_on_one(place, capsys):
    total("cifar10-jpeg")
    assert "measure this machine with `recu bench --suite cifar10-jpeg --gpus 0`" in capsys.readouterr().out


def test_networks_without_a_rate_are_named(place, capsys):
    place("cifar.resnet20_1w1a")
    assert total("demo")["total"]["wall_seconds"] is None
    shown = capsys.readouterr().out
    assert "no rate on some card of birealnet.birealnet18, cifar.resnet18_1w1a" in shown and "resnet20" in shown
    assert main(["plan", "demo", "--device", "another card"]) == 2


def test_time_is_counted_for_what_is_left(place, tmp_path, capsys):
    epochs = load_defaults(PARAMS_DIR).hyperparameters.epochs
    shutil.copytree(PARAMS_DIR, tmp_path / "params")
    (tmp_path / "params/suites/two.yaml").write_text(SUITE)
    place("cifar.resnet20_1w1a", slots=2)
    found = total("two")
    assert found["slots"] == 2 and found["total"]["wall_seconds"] == pytest.approx(epochs * 11 + 3 + 1)
    assert total("two", "--devices", "1")["total"]["wall_seconds"] == pytest.approx(2 * (epochs * 11 + 3 + 1))
    first = found["jobs"][0]["id"].removeprefix("train ")
    spec_hash = load_experiments(tmp_path / "params", ("two",))[first].spec_hash
    for stage in ("train", "evaluate"):
        (tmp_path / "results" / stage / first).mkdir(parents=True)
        (tmp_path / "results" / stage / first / "metrics.json").write_text(json.dumps({"spec_hash": spec_hash}))
    left = total("two")
    assert len(left["jobs"]) == 2 and left["total"]["wall_seconds"] == pytest.approx(epochs * 11 + 3 + 1)
    assert "left to do: 1 training and 1 evaluation," in capsys.readouterr().out


@pytest.mark.parametrize("other", [{"spec_hash": "0" * 16}, {"checkpoint_sha256": "0" * 64}, None])
def test_an_evaluation_of_other_parameters_or_of_another_checkpoint_is_still_to_do(place, tmp_path, capsys, other):
    shutil.copytree(PARAMS_DIR, tmp_path / "params")
    (tmp_path / "params/suites/two.yaml").write_text(SUITE)
    place("cifar.resnet20_1w1a", slots=1)
    for name, experiment in load_experiments(tmp_path / "params", ("two",)).items():
        for stage, changed in (("train", {}), ("evaluate", other)):
            content = {"spec_hash": experiment.spec_hash, "checkpoint_sha256": "1" * 64}
            file = tmp_path / "results" / stage / name / "metrics.json"
            file.parent.mkdir(parents=True)
            file.write_text("[]" if changed is None else json.dumps(content | changed))
    total("two")
    shown = capsys.readouterr().out
    assert "left to do: 0 trainings and 2 evaluations, 720 images" in shown
    assert "device-hours" in shown and "memory: " not in shown and "disk: " not in shown


def test_more_at_once_than_were_measured_is_said_to_take_more_devices(place, tmp_path, capsys):
    shutil.copytree(PARAMS_DIR, tmp_path / "params")
    (tmp_path / "params/suites/two.yaml").write_text(SUITE)
    place("cifar.resnet20_1w1a", slots=2)
    for devices, said in (("2", False), ("3", True)):
        total("two", "--devices", devices)
        assert ("on 2 such devices: the rates were measured with 2 at once on one" in capsys.readouterr().out) == said


@pytest.mark.parametrize(
    ("usual", "other", "said"),
    [
        ("gpus_per_training: 0", "gpus_per_training: 2", "on 2 devices each is not known: rates are of one device"),
        ("kernels: auto", "kernels: off", "with kernels: off is not known"),
    ],
)
def test_trainings_that_run_as_nobody_measured_have_no_time(place, tmp_path, capsys, usual, other, said):
    shutil.copytree(PARAMS_DIR, tmp_path / "params")
    config = params_file(tmp_path / "params", "config")
    config.write_text(config.read_text().replace(usual, other))
    (tmp_path / "params/suites/two.yaml").write_text(SUITE)
    place("cifar.resnet20_1w1a")
    assert total("two")["total"]["wall_seconds"] is None
    assert f"how long they take {said}" in capsys.readouterr().out


def test_a_rate_is_of_one_form_of_compilation(place, tmp_path):
    shutil.copytree(PARAMS_DIR, tmp_path / "params")
    compiled = SUITE.replace("{vanilla: {}}", "{vanilla: {compile: kernels}}")
    (tmp_path / "params/suites/two.yaml").write_text(compiled)
    place("cifar.resnet20_1w1a")
    assert total("two")["total"]["wall_seconds"] is None


def test_sizes_that_a_manifest_says_wrongly_are_not_counted_with(place, tmp_path):
    manifest = manifest_file(tmp_path / "results", "digits")
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"splits": {"train": "many", "test": None}}))
    assert total("demo")["total"]["images"] is None


@pytest.mark.parametrize("words", [["--devices", "0"], ["--devices", "100000"], ["--device", "x"]])
def test_mistakes(place, words, capsys):
    assert main(["plan", "demo", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_projects_own_table_of_rates_is_offered(place, capsys):
    device = next(line for line in params_file(PARAMS_DIR, "rates").read_text().splitlines() if "device:" in line)
    assert main(["plan", "cifar10", "--device", device.split('"')[1]]) == 0
    assert "device-hours (CPU, 2 threads" in capsys.readouterr().out


def test_json_says_how_far_each_training_is_beside_the_numbers(place, capsys):
    assert main(["plan", "demo", "--json", "--output", "plan.json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads(Path("plan.json").read_text()) and len(shown["trainings"]) == 15
    assert {"experiment", "state", "epochs", "epochs_done", "top1_last", "finish"} <= set(shown["trainings"][0])


def standing_of(states):
    return lambda planned, *_: Standing(experiment=planned.id, state=next(states), epochs=2, top1_last=12.5)


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_watching_ends_when_all_is_done_and_shows_each_change_once_where_no_terminal_is(
    place, tmp_path, capsys, monkeypatch, words
):
    shutil.copytree(PARAMS_DIR, tmp_path / "params")
    (tmp_path / "params/suites/two.yaml").write_text(SUITE)
    states = iter(["running", "to do"] * 3 + ["trained", "running"] + ["trained"] * 2)
    monkeypatch.setattr("recu.cli.plan.standing", standing_of(states))
    assert main(["plan", "two", "--watch", "0.01", *words]) == 0
    shown = capsys.readouterr().out
    assert next(states, None) is None and "\x1b" not in shown
    if words:
        lines = [json.loads(line)["trainings"] for line in shown.splitlines()]
        assert [[each["state"] for each in line] for line in lines] == [
            ["running", "to do"],
            ["trained", "running"],
            ["trained", "trained"],
        ]
    else:
        assert [line for line in shown.splitlines() if "," in line] == ["1 running, 1 to do", "1 trained, 1 running"]
        assert shown.splitlines()[-1] == "2 trained" and shown.count("12.50") == 6


def test_a_watched_terminal_is_drawn_anew_and_ctrl_c_is_its_end(place, tmp_path, capsys, monkeypatch):
    shutil.copytree(PARAMS_DIR, tmp_path / "params")
    (tmp_path / "params/suites/two.yaml").write_text(SUITE)

    def looked(planned, *_):
        if next(calls) == 4:
            raise KeyboardInterrupt
        return Standing(experiment=planned.id, state="running", epochs=2, finish=0.0)

    calls = iter(range(9))
    monkeypatch.setattr("recu.cli.plan.standing", looked)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main(["plan", "two", "--watch", "0.01"]) == 0
    assert capsys.readouterr().out.count("\x1b[H\x1b[J") == 2


def test_watching_ends_when_nobody_reads_any_more():
    words = [sys.executable, "-m", "recu", "plan", "demo", "--watch", "300", "--params_dir", str(PARAMS_DIR)]
    watching = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=PARAMS_DIR.parent)
    assert watching.stdout.readline().startswith(b"experiment")
    watching.stdout.close()
    assert watching.wait(timeout=60) == 0 and watching.stderr.read() == b""
    watching.stderr.close()


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_watching_takes_seconds(place, seconds, capsys):
    assert main(["plan", "demo", "--watch", seconds]) == 2
    assert "expected seconds above 0" in capsys.readouterr().err


def test_watching_refuses_what_it_does_not_look_at(place, capsys):
    assert main(["plan", "demo", "--watch", "--output", "plan.json", "--devices", "2"]) == 2
    assert "--devices, --output have no effect with --watch; leave them out" in capsys.readouterr().err
