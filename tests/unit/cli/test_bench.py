"""`recu bench`: the numbers it writes and prints, and its mistakes."""

import json
import shutil

import pytest
from PIL import Image

from benchmarks import peers
from benchmarks.table import render
from recu.cli.main import main
from recu.experiment import paths

QUICK = ["--models", "resnet20_1w1a", "-b", "4", "-bt", "64", "--seconds", "0", "--repeats", "1", "--threads", "1"]


@pytest.mark.slow
def test_numbers_of_a_real_measurement(tmp_path, capsys):
    file = tmp_path / "bench.json"
    assert main(["bench", *QUICK, "--clock", "cpu", "--output", str(file)]) == 0
    result = json.loads(file.read_text())
    model = result["models"]["resnet20_1w1a"]
    for values in (model["train"], model["evaluate"], model["memory"], model["start_up"], result["input"]["cifar10"]):
        assert values["ratio"] == pytest.approx(values["shipped"] / values["reference"]) and values["reference"] > 0
    assert result["input"]["cifar10"]["ratio"] > 1
    assert 0 < model["train"]["fraction_of_peak"] < 4
    assert 100 << 20 < model["memory"]["shipped"] < 8 << 30
    assert result["machine"]["gflops_fp32"] > 1 and result["machine"]["threads"] == 1
    assert result["machine"]["clock"] == "cpu" and result["start_up"]["help"] > 0
    assert capsys.readouterr().out.rstrip() == render(result)


def test_input_alone(tmp_path, capsys):
    for name in ("n01", "n02"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.effect_noise((300, 260), 50).save(tmp_path / "images" / name / "x.JPEG", "JPEG")
    file = tmp_path / "bench.json"
    words = [
        "--models",
        "--images",
        str(tmp_path / "images"),
        "-b",
        "2",
        "-bt",
        "3",
        "--repeats",
        "1",
        "--seconds",
        "0",
    ]
    assert main(["bench", *words, "--threads", "1", "--workers", "1", "--output", str(file)]) == 0
    result = json.loads(file.read_text())
    assert result["models"] == {} and list(result["input"]) == ["cifar10", "imagenet", "imagenet_evaluate"]
    for values in result["input"].values():
        assert values["ratio"] == pytest.approx(values["shipped"] / values["reference"]) and values["reference"] > 0
    for name in ("imagenet", "imagenet_evaluate"):
        values = result["input"][name]
        if "dali" in values:
            assert values["dali_ratio"] == pytest.approx(values["dali"] / values["reference"])
    assert result["settings"]["workers"] == 1
    printed = capsys.readouterr().out
    assert printed.rstrip() == render(result) and "direct convolutions" not in printed


def test_table():
    same = {"reference": 1.0, "shipped": 2.5, "ratio": 2.5}
    text = render(
        {
            "machine": {"device": "CPU", "threads": 2, "torch": "2", "clock": "wall", "gflops_fp32": 80.0},
            "settings": {"batch_size": 64, "batch_size_test": 128, "repeats": 3, "seconds": 1.0, "workers": 2},
            "start_up": {"help": 0.1},
            "input": {
                "cifar10": {"reference": 2000.0, "shipped": 50000.0, "ratio": 25.0},
                "imagenet": {"reference": 200.0, "shipped": 400.0, "ratio": 2.0, "dali": 500.0, "dali_ratio": 2.5},
            },
            "models": {
                "resnet20_1w1a": {
                    "train": same | {"fraction_of_peak": 0.456},
                    "evaluate": same,
                    "memory": {"reference": 4 << 30, "shipped": 1 << 30, "ratio": 0.25},
                    "start_up": same,
                }
            },
        }
    )
    rows = [line.split() for line in text.splitlines()]
    assert ["input,", "cifar10", "images/s", "2,000", "50,000", "25.00"] in rows
    assert ["input,", "imagenet", "images/s", "200", "400", "2.00"] in rows
    assert ["input,", "imagenet", "(DALI)", "images/s", "200", "500", "2.50"] in rows
    assert "2 workers" in text
    assert ["resnet20_1w1a,", "training", "images/s", "1.00", "2.50", "2.50"] in rows
    assert ["resnet20_1w1a,", "peak", "memory", "MiB", "4,096", "1,024", "0.25"] in rows
    assert "resnet20_1w1a 46%" in text and "80 GFLOP/s" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--models", "resnet20"], "unknown model of family cifar: 'resnet20'"),
        (["--clock", "wal"], "unknown clock 'wal'; did you mean 'wall'?"),
        (["--batch_size", "1"], "--batch_size is 1, expected at least 2"),
        (["--repeats", "0"], "--repeats is 0, expected at least 1"),
        (["--workers", "-1"], "--workers is -1, expected 0 to 1024"),
        (["--images", "nowhere.tar"], "nowhere.tar does not exist; give the path of an archive or folder"),
        (["--gpus", "99"], "there is no GPU 99"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


def test_without_a_checkout_one_line_says_that_it_is_needed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(paths, "PROJECT_DIR", tmp_path)
    assert main(["bench"]) == 2
    assert "`recu bench` needs a checkout of the project" in capsys.readouterr().err


@pytest.mark.slow
def test_the_networks_of_a_suite_are_measured_and_recu_plan_finds_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    suite = """
title: Two
description: One network, two methods.
dataset: digits
seeds: [1]
hyperparameters: {epochs: 2, batch_size: 16, batch_size_test: 16}
methods: {vanilla: {}, finetune: {}}
rows: [{model: resnet20_1w1a}]
"""
    shutil.copytree(paths.PARAMS_DIR, tmp_path / "params")
    paths.suite_file(tmp_path / "params", "two").write_text(suite)
    assert main(["bench", "--suite", "two", "--jobs", "1", "--threads", "1", "--seconds", "0.1"]) == 0
    assert "measured 1 networks on CPU, 1 threads" in capsys.readouterr().out
    found = json.loads((tmp_path / "results/rates.json").read_text())
    (rate,) = found["rates"]
    assert (rate["network"], rate["image_size"], rate["stage"], rate["teacher"]) == ("cifar.resnet20_1w1a", 32, 2, None)
    assert rate["train_images_per_s"] > 1 and rate["test_images_per_s"] > rate["train_images_per_s"]
    assert rate["checkpoint_bytes"] > 1 << 20 and rate["memory_bytes"] > 100 << 20
    assert 0 < found["train_job_s"] < 600 and 0 < found["evaluate_job_s"] < 600
    assert main(["plan", "two", "--output", "plan.json"]) == 0
    assert "about" in capsys.readouterr().out
    total = json.loads((tmp_path / "plan.json").read_text())["total"]
    assert total["images"] == 2 * (2 * 1797 + 360) and total["wall_seconds"] > found["train_job_s"]


def test_a_suite_cannot_be_measured_by_no_job(capsys):
    assert main(["bench", "--suite", "demo", "--jobs", "0"]) == 2
    assert capsys.readouterr().err.strip() == "error: --jobs is 0, expected 1 to 1024"


def test_a_trained_network_beside_others(recu, monkeypatch):
    monkeypatch.setattr(peers, "_WAYS", ("packed", "evaluation", "plain"))
    monkeypatch.setattr(peers, "_BATCHES", (1,))
    monkeypatch.setattr(peers, "_THREADS", (2,))
    monkeypatch.setattr(peers, "_PREDICTED_AT_ONCE", 5)
    assert recu.train("--save", "run") == 0, recu.err
    file, places = "results/run/model_best.pth.tar", ["--params_dir", recu.project / "params"]
    assert recu("evaluate", "-e", file, "--output", "whole.json", *places) == 0, recu.err
    words = ["bench", "--peers", "--checkpoint", file, "--repeats", 1, "--seconds", 0.01, "--output", "peers.json"]
    assert recu(*words, *places) == 0, recu.err
    (network,) = recu.json("peers.json")["networks"]
    whole = recu.json("whole.json")
    assert network["right"] == pytest.approx(dict.fromkeys(("packed", "evaluation", "plain"), whole["top1"]))
    assert network["on"] == "all 18 test images of tiny" and network["labelled"]
    assert "top-1" in recu.out and file in recu.out and "as plain" not in recu.out

    # As many as there is room for, spread over all of them.
    monkeypatch.setattr(peers, "_MOST_NUMBERS", 8 * network["size"] ** 2 * 3)
    assert recu(*words, *places) == 0, recu.err
    assert recu.json("peers.json")["networks"][0]["on"] == "one in 3 of all 18 test images of tiny (6)"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--small"], "--small has no effect without --peers or --suite; leave it out"),
        (["--jobs", "2"], "--jobs has no effect without --peers or --suite; leave it out"),
        (["--checkpoint", "a.pth.tar"], "--checkpoint has no effect without --peers or --suite"),
        (["--peers", "--gpus", "0"], "--gpus has no effect with --peers; leave it out"),
        (["--peers", "-b", "256"], "--batch_size has no effect with --peers; leave it out"),
        (["--suite", "demo", "--peers"], "--peers has no effect with --suite; leave it out"),
        (["--suite", "demo", "--models", "vgg_small_1w1a"], "--models has no effect with --suite; leave it out"),
        (["--peers", "--small", "--checkpoint", "a.pth.tar"], "leave --small and --models out"),
        (["--peers", "--models", "--checkpoint", "a.pth.tar"], "leave --small and --models out"),
        (["--peers", "--models", "--small"], "no network to measure"),
    ],
)
def test_options_that_would_change_nothing_are_refused(words, message, capsys):
    assert main(["bench", *words]) == 2
    assert message in capsys.readouterr().err
