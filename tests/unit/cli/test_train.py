"""`recu train` in the style of the authors' program: every option has its effect, every mistake its line."""

import json
import os
import shutil
import signal
import sys

import pytest
import torch

from recu.base.files import hash_file
from recu.binarisers.recu import tau_at
from recu.experiment.params import load_datasets
from recu.experiment.resolving import parse_experiment
from recu.kernels import binary_unit
from recu.nn import inference
from recu.stages import train as train_stage
from recu.training import trainer as trainer_module
from recu.training.checkpoint import RESUME_KEY, read_checkpoint
from recu.training.trainer import Trainer
from tests.history import comparable, read_history
from tests.unit.training.ours import experiment, our_checkpoint


def _experiment(folder):
    return parse_experiment(read_checkpoint(folder / "model_best.pth.tar")[RESUME_KEY]["experiment"])


def _rows(folder):
    return [comparable(row) for row in read_history(folder / "history.jsonl")]


def test_a_training_leaves_everything_in_one_folder(recu):
    assert recu.train("--save", "one") == 0, recu.err
    folder = recu.folder / "results" / "one"
    metrics = recu.json("results/one/metrics.json")
    assert metrics["checkpoint_sha256"] == hash_file(folder / "model_best.pth.tar")
    assert metrics["experiment"]["id"] == "command-line/tiny/cifar.resnet20_1w1a/vanilla/seed1"
    assert metrics["spec_hash"] == _experiment(folder).spec_hash
    assert metrics["epochs"] == len(metrics["history"]) == 2
    assert metrics["parent"] is None and metrics["mlflow_run_id"] is None
    assert metrics["last"]["top1"] == metrics["history"][-1]["test_top1"]
    assert "finished: best epoch" in (folder / "train.log").read_text()
    assert recu.json("results/one/experiment.json")["spec_hash"] == metrics["spec_hash"]

    assert recu("evaluate", "-e", folder / "model_best.pth.tar", "--output", "out.json", *recu.tiny) == 0
    assert "157 of 157 tensors taken" in recu.out
    measured = recu.json("out.json")
    for name in ("checkpoint_sha256", "data_fingerprint"):
        assert measured[name] == metrics[name]
    assert measured["n"] == 18
    assert measured["top1"] == metrics["best"]["top1"] and measured["top5"] == metrics["best"]["top5"]
    assert measured["loss"] == pytest.approx(metrics["best"]["loss"], rel=1e-6)


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_kernels_off_takes_none_in_training_nor_in_evaluation_and_both_say_so(recu, monkeypatch, kernels):
    taken = []
    for module, name in ((binary_unit, "train_unit"), (inference, "_replace")):
        kernel = getattr(module, name)

        def note(*values, _kernel=kernel, _name=name, **named):
            taken.append(_name)
            return _kernel(*values, **named)

        monkeypatch.setattr(module, name, note)
    assert recu.train("--save", "one", "--kernels", kernels) == 0, recu.err
    words = ["--output", "out.json", "--kernels", kernels, *recu.tiny]
    assert recu("evaluate", "-e", "results/one/model_best.pth.tar", *words) == 0, recu.err
    assert set(taken) == ({"train_unit", "_replace"} if kernels == "auto" else set())
    for file in ("results/one/metrics.json", "out.json"):
        assert recu.json(file)["settings"]["kernels"] == kernels


@pytest.mark.parametrize(("words", "epochs"), [([], 1), (["--diagnostics", 0], 0)])
def test_binary_layers_are_measured_unless_told_otherwise(recu, words, epochs):
    assert recu.train("--save", "one", "--epochs", 1, *words) == 0, recu.err
    assert (recu.folder / "results/one/diagnostics.jsonl").exists() is bool(epochs)
    assert len(recu.json("results/one/metrics.json")["diagnostics"]) == epochs


def _content(folder):
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(folder.iterdir())}


@pytest.mark.parametrize("kept", [[], ["--keep_resumable"]])
def test_the_same_command_again_says_that_it_is_finished_and_writes_nothing(recu, kept):
    words = ["--save", "one", "--epochs", 1, *kept]
    assert recu.train(*words) == 0
    folder = recu.folder / "results/one"
    before = _content(folder)
    for again in (words, [*words, "--resume"], ["--resume", *words], [*words, "--threads", 1, "-p", 7, "--seed", 0]):
        assert recu.train(*again) == 0, recu.err
        assert "is finished: all 1 epochs are done and published, nothing to do" in recu.err
    assert _content(folder) == before
    if not kept:
        assert "model_best.pth.tar" in before and not any(name.startswith("checkpoint") for name in before)
        return
    # What was lost is published again, without training.
    for name in ("metrics.json", "model_best.pth.tar"):
        (folder / name).unlink()
    published = json.loads(before["metrics.json"][0])
    assert recu.train(*words) == 0, recu.err
    again = recu.json("results/one/metrics.json")
    assert {name: again[name] for name in again if name not in ("content_sha256",)} == {
        name: published[name] for name in published if name not in ("content_sha256",)
    }


@pytest.mark.parametrize(
    ("kept", "longer"),
    [
        ([], "(hyperparameters.epochs 1 -> 2) and keeps no state to continue: train anew under another --save, with"),
        (["--keep_resumable"], "hyperparameters.epochs 1 -> 2): --resume continues it with these"),
    ],
)
def test_the_same_folder_with_other_options_is_refused_and_stays_as_it_is(recu, kept, longer):
    assert recu.train("--save", "one", "--epochs", 1, *kept) == 0
    before = _content(recu.folder / "results/one")
    for words, named in (
        (["--lr", 0.5], "has finished 1 epochs with other parameters (hyperparameters.lr 0.1 -> 0.5)"),
        (["--seed", 7, "--resume"], "is of another training (seed 1 -> 7)"),
        (["-b", 12, "--lr", 0.5, "--resume"], "hyperparameters.batch_size 16 -> 12, hyperparameters.lr 0.1 -> 0.5"),
        (["--epochs", 2], longer),
        (["--model", "resnet18_1w1a", "--resume"], "model resnet20_1w1a -> resnet18_1w1a"),
        (["--start_epoch", 1, "--epochs", 2], "start_epoch 0 -> 1"),
        (
            ["--resume", "results/one/model_best.pth.tar"],
            "which did not begin with results/one/model_best.pth.tar"
            if kept
            else "holds the weights of a finished training and nothing of its optimiser: --init_from results/",
        ),
    ):
        assert recu.train("--save", "one", "--epochs", 1, *words) == 2, words
        assert named in recu.error()
    assert _content(recu.folder / "results/one") == before


def test_state_that_is_no_longer_to_be_kept_is_not_removed_without_a_word(recu):
    assert recu.train("--save", "one", "--epochs", 1, "--keep_resumable") == 0
    state = recu.folder / "results/one/checkpoint.pth.tar"
    assert state.exists() and recu.train("--save", "one", "--epochs", 1) == 0
    assert "checkpoint.pth.tar is removed: only continuing needs it" in recu.err and not state.exists()
    assert recu.train("--save", "one", "--epochs", 1) == 0 and "is removed" not in recu.err


@pytest.mark.parametrize(
    ("words", "code", "answer"),
    [
        ([], 0, "is finished: all 1 epochs are done and published, nothing to do"),
        (["--seed", 7], 2, "is of another training (seed 1 -> 7)"),
        (["--lr", 0.5], 2, "has finished 1 epochs with other parameters (hyperparameters.lr 0.1 -> 0.5)"),
    ],
)
def test_of_two_trainings_in_one_folder_the_second_finds_what_the_first_left(recu, monkeypatch, words, code, answer):
    """Both begin in an empty folder; the second waits for the lock while the first trains."""
    only_one = train_stage.only_one

    def wait_for_the_first(folder, what, **patience):
        monkeypatch.setattr(train_stage, "only_one", only_one)
        assert recu.train("--save", "one", "--epochs", 1) == 0, recu.err
        before.update(_content(folder))
        return only_one(folder, what, **patience)

    before = {}
    monkeypatch.setattr(train_stage, "only_one", wait_for_the_first)
    assert recu.train("--save", "one", "--epochs", 1, *words) == code, recu.err
    assert answer in recu.err
    assert _content(recu.folder / "results/one") == before


def test_advice_for_other_options_works(recu):
    """`--resume continues it with these`, and `choose another --save`."""
    assert recu.train("--save", "one", "--epochs", 1, "--keep_resumable") == 0
    assert recu.train("--save", "one", "--epochs", 2, "--lr", 0.05, "--resume") == 0, recu.err
    assert "learning rate and tau follow the schedule of the new number of epochs from epoch 2 on" in recu.err
    metrics = recu.json("results/one/metrics.json")
    pieces = [(each["from_epoch"], each["to_epoch"]) for each in metrics["segments"]]
    rates = [parse_experiment(each["experiment"]).hyperparameters.lr for each in metrics["segments"]]
    assert pieces == [(0, 0), (1, 1)] and rates == [0.1, 0.05]
    assert metrics["segments"][1]["spec_hash"] == metrics["spec_hash"] != metrics["segments"][0]["spec_hash"]
    assert metrics["provenance"] == metrics["segments"][1]["provenance"]
    assert metrics["settings"] == {
        "batch_size_test": 128,
        "loader": "memory",
        "workers": 0,
        "threads": 0,
        "kernels": "auto",
    }
    assert recu.train("--save", "two", "--epochs", 1, "--seed", 7) == 0, recu.err


def test_a_training_stopped_inside_an_epoch_goes_on_with_other_batches_from_the_epochs_start(recu, plain, monkeypatch):
    train_steps = trainer_module.train_steps

    def stop_after_one(*arguments, **more):
        for step in train_steps(*arguments, **more):
            os.kill(os.getpid(), signal.SIGTERM)
            yield step

    words = ["--save", "one", "--epochs", 1, "--data_dir", plain[1]]
    monkeypatch.setattr(trainer_module, "train_steps", stop_after_one)
    assert recu.train(*words) == 75
    monkeypatch.setattr(trainer_module, "train_steps", train_steps)
    assert recu.train(*words, "-b", 12, "--resume") == 0, recu.err
    assert "epoch 1 begins anew" in recu.err and "batch_size 16 -> 12" in recu.err
    assert recu.train("--save", "whole", "--epochs", 1, "-b", 12, "--data_dir", plain[1]) == 0, recu.err
    assert _rows(recu.folder / "results/one") == _rows(recu.folder / "results/whole")
    (segment,) = recu.json("results/one/metrics.json")["segments"]
    assert parse_experiment(segment["experiment"]).hyperparameters.batch_size == 12


def test_resume_with_more_epochs_continues_and_names_the_change(recu):
    assert recu.train("--save", "one", "--keep_resumable") == 0
    checkpoint = recu.folder / "results/one/checkpoint.pth.tar"
    first = _rows(recu.folder / "results/one")
    assert recu.train("--save", "one", "--resume", checkpoint, "--epochs", 3) == 0, recu.err
    assert "hyperparameters.epochs 2 -> 3" in recu.err
    rows = _rows(recu.folder / "results/one")
    assert rows[:2] == first and len(rows) == 3


def test_an_interrupted_training_says_how_to_continue_and_ends_in_the_same_bits(recu, plain, monkeypatch):
    epoch = Trainer._epoch

    def once(trainer, stop, progress):
        row = epoch(trainer, stop, progress)
        os.kill(os.getpid(), signal.SIGINT)
        return row

    monkeypatch.setattr(Trainer, "_epoch", once)
    assert recu.train("--save", "one", "--data_dir", plain[1]) == 75
    assert "stopped by SIGINT in epoch 2 after 1 of 3 steps" in recu.error()
    assert recu.error().endswith("run the same command again to continue")
    monkeypatch.setattr(Trainer, "_epoch", epoch)
    assert recu.train("--save", "one", "--data_dir", plain[1], "--workers", 1) == 0, recu.err
    assert "continuing at epoch 2 of 2" in recu.err
    assert _rows(recu.folder / "results/one") == _rows(plain[0])
    assert hash_file(recu.folder / "results/one/model_best.pth.tar") == hash_file(plain[0] / "model_best.pth.tar")


def test_resume_into_another_folder_leaves_the_first_alone(recu):
    assert recu.train("--save", "one", "--keep_resumable") == 0
    checkpoint = recu.folder / "results/one/checkpoint.pth.tar"
    before = checkpoint.read_bytes()
    assert recu.train("--save", "two", "--resume", checkpoint, "--epochs", 3) == 0, recu.err
    assert checkpoint.read_bytes() == before
    assert len(_rows(recu.folder / "results/two")) == 3
    metrics = recu.json("results/two/metrics.json")
    assert metrics["resumed_from"]["sha256"] == hash_file(checkpoint) and metrics["resumed_from"]["epoch"] == 2
    assert [each["to_epoch"] for each in metrics["segments"]] == [1, 2]
    # The same command again.
    assert recu.train("--save", "two", "--resume", checkpoint, "--epochs", 3) == 0, recu.err
    assert "nothing to do" in recu.err


def test_what_a_finished_training_does_not_keep_is_refused_and_the_advice_works(recu, plain):
    best, gone, data = plain[0] / "model_best.pth.tar", plain[0] / "checkpoint.pth.tar", ["--data_dir", plain[1]]
    assert recu.train("--save", "two", "--resume", gone, "--epochs", 3, *data) == 2
    assert f"{gone} is not there: its training has finished and keeps no state to continue" in recu.error()
    assert recu.train("--save", "two", "--resume", best, "--epochs", 3, *data) == 2
    assert f"--init_from {best} starts another training from them" in recu.error()
    assert recu.train("--save", "two", "--init_from", best, "--epochs", 1, *data) == 0, recu.err


def test_resume_from_a_best_checkpoint_says_what_it_lacks(recu, plain):
    assert recu.train("--save", "one", "--keep_resumable", "--data_dir", plain[1]) == 0
    best = recu.folder / "results/one/model_best.pth.tar"
    words = ["--save", "two", "--resume", best, "--epochs", 3, "--data_dir", plain[1]]
    assert recu.train(*words, "--seed", 2) == 2
    assert "is of another training (seed 1 -> 2" in recu.error()
    assert recu.train(*words) == 0, recu.err
    assert "no random states" in recu.err
    metrics, first = recu.json("results/two/metrics.json"), read_checkpoint(best)["epoch"]
    assert metrics["resumed_from"] == {
        "file": "model_best.pth.tar",
        "sha256": hash_file(best),
        "epoch": first,
        "spec_hash": _experiment(plain[0]).spec_hash,
    }
    assert [(each["from_epoch"], each["to_epoch"]) for each in metrics["segments"]] == [(first, 2)]


def test_resume_from_an_authors_checkpoint(recu):
    assert recu.train("--save", "one", "--keep_resumable") == 0
    foreign = read_checkpoint(recu.folder / "results/one/checkpoint.pth.tar")
    del foreign[RESUME_KEY]
    torch.save(foreign, "authors.pth.tar")
    assert recu.train("--save", "two", "--resume", "authors.pth.tar", "--epochs", 3) == 0, recu.err
    assert "no random states" in recu.err
    assert [row["epoch"] for row in _rows(recu.folder / "results/two")] == [2]


def test_resume_in_a_folder_of_the_authors_program_keeps_their_files_and_says_where_it_began(recu):
    assert recu.train("--save", "one", "--keep_resumable") == 0
    foreign = read_checkpoint(recu.folder / "results/one/checkpoint.pth.tar")
    del foreign[RESUME_KEY]
    folder = recu.folder / "results/two"
    folder.mkdir()
    for name in ("checkpoint.pth.tar", "model_best.pth.tar"):
        torch.save(foreign | {"best_prec1": 5.0 if name.startswith("model") else 1.0}, folder / name)
    given = {name: hash_file(folder / name) for name in ("checkpoint.pth.tar", "model_best.pth.tar")}
    assert recu.train("--save", "two", "--resume", "--epochs", 3) == 0, recu.err
    assert {name: hash_file(folder / f"before-{name}") for name in given} == given
    assert recu.json("results/two/metrics.json")["resumed_from"] == {
        "file": "checkpoint.pth.tar",
        "sha256": given["checkpoint.pth.tar"],
        "epoch": 2,
        "spec_hash": None,
    }
    assert recu.train("--save", "two", "--resume", "--epochs", 3) == 0, recu.err
    assert "nothing to do" in recu.err


@pytest.fixture
def own_code(recu, monkeypatch):
    """A function that writes the code of a binariser of the user's, own_signs:Own, as another process would find it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = recu.folder / "own_signs.py"

    def write(comment: str) -> None:
        file.write_text(f"from recu.binarisers.sign import SignConv2d as Own  # {comment}\n")

    yield write
    sys.modules.pop("own_signs", None)


def test_a_network_whose_code_was_edited_is_neither_continued_nor_started_from_nor_a_teacher(recu, own_code):
    words = ["--binariser", "own_signs:Own", "--keep_resumable"]
    own_code("first")
    assert recu.train("--save", "one", *words) == 0, recu.err
    own_code("second")
    said = "was trained with other code than own_signs.py now"
    for more in (["--save", "one"], ["--save", "one", "--resume", "--epochs", 3]):
        assert recu.train(*more, *words) == 2, more
        assert said in recu.error() and "train afresh under another --save" in recu.error()
    best = "results/one/model_best.pth.tar"
    for more in (["--init_from", best], ["--teacher", best]):
        assert recu.train("--save", "two", *more, *words) == 2, more
        assert said in recu.error() and "put the code back as it was then, or train again" in recu.error()
    own_code("first")
    assert recu.train("--save", "one", "--resume", "--epochs", 3, *words) == 0, recu.err


def test_a_finished_training_of_edited_code_is_not_called_finished(recu, own_code):
    own_code("first")
    assert recu.train("--save", "one", "--binariser", "own_signs:Own") == 0, recu.err
    own_code("second")
    assert recu.train("--save", "one", "--binariser", "own_signs:Own") == 2
    assert "was trained with other code than own_signs.py now" in recu.error()


def test_what_a_training_started_from_is_known_to_one_that_continues_its_best_checkpoint(recu):
    assert recu.train("--save", "zero") == 0, recu.err
    started = ["--init_from", "results/zero/model_best.pth.tar"]
    assert recu.train("--save", "one", "--epochs", 1, "--keep_resumable", *started) == 0, recu.err
    parent = recu.json("results/one/metrics.json")["parent"]
    assert recu.train("--save", "two", "--epochs", 2, "--resume", "results/one/model_best.pth.tar") == 0, recu.err
    assert parent is not None and recu.json("results/two/metrics.json")["parent"] == parent


def test_resume_on_other_data_is_refused(recu):
    assert recu.train("--save", "one", "--keep_resumable") == 0
    other = recu.folder / "images"
    shutil.copytree(recu.project / "images", other)
    (other / "train/class0/0.png").unlink()
    (other / "train/class1/0.png").unlink()
    checkpoint = recu.folder / "results/one/checkpoint.pth.tar"
    assert recu.train("--save", "one", "--resume", checkpoint, "--epochs", 3, "--data_path", other) == 2
    assert "was trained on other data" in recu.error()


OPTIONS = [
    ("--epochs 1", "epochs", 1),
    ("-b 12", "batch_size", 12),
    ("--batch_size 12", "batch_size", 12),
    ("-bt 5", "batch_size_test", 5),
    ("--batch_size_test 5", "batch_size_test", 5),
    ("--lr 0.02", "lr", 0.02),
    ("--no-warm_up", "warm_up", False),
    ("--warm_up", "warm_up", True),
    ("--optimizer adam --lr 0.001", "optimizer", "adam"),
    ("--momentum 0.5", "momentum", 0.5),
    ("--weight_decay 0.1", "weight_decay", 0.1),
    ("--weight_decay_groups imagenet", "weight_decay_groups", "imagenet"),
    ("--tau_min 0.6", "tau_min", 0.6),
    ("--tau_max 0.9", "tau_max", 0.9),
    ("--augmentation none", "augmentation", "none"),
    ("--stage 1", "stage", 1),
    ("--precision bf16", "precision", "bf16"),
]


@pytest.fixture(scope="session")
def plain(tmp_path_factory, tiny_project):
    """Best checkpoint's weights and rows of the training that the options are compared with."""
    from recu.cli.main import main

    folder = tmp_path_factory.mktemp("plain")
    words = ["train", "--epochs", 2, "-b", 16, "--model", "resnet20_1w1a", "--dataset", "tiny", "--gpus", "cpu"]
    words += ["--data_path", tiny_project / "images", "--params_dir", tiny_project / "params", "--workers", 0]
    words += ["--data_dir", folder / "data", "--results_dir", folder, "--save", "plain", "--tracking_uri", ""]
    assert main([str(word) for word in words]) == 0
    return folder / "plain", folder / "data"


@pytest.mark.parametrize(("words", "name", "value"), OPTIONS, ids=[words for words, _, _ in OPTIONS])
def test_a_recipe_option_reaches_the_recipe_and_the_result(recu, plain, words, name, value):
    assert recu.train("--save", "one", "--data_dir", plain[1], *words.split()) == 0, recu.err
    folder = recu.folder / "results/one"
    assert recu.json("results/one/metrics.json")["experiment"]["hyperparameters"][name] == value
    if words == "--warm_up":
        assert _rows(folder) == _rows(plain[0]), "the default"
    elif "-bt" in words or "_test" in words:
        assert [row["train_loss"] for row in _rows(folder)] == [row["train_loss"] for row in _rows(plain[0])]
    else:
        assert _rows(folder) != _rows(plain[0])


def test_compilation_is_for_gpus(recu, plain):
    assert recu.train("--save", "one", "--data_dir", plain[1], "--compile", "kernels", "--gpus", "cpu") == 2
    assert "torch.compile is for GPUs" in recu.error()
    assert recu.train("--save", "one", "--data_dir", plain[1], "--compile", "kernel") == 2
    assert "compile" in recu.error() and "kernels" in recu.error()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", [0.02, 0.04, 0.06]),
        ("--no-warm_up", [0.1, 0.075, 0.025]),
        ("--no-warm_up --lr_type cos", [0.1, 0.075, 0.025]),
        ("--no-warm_up --lr_type linear", [0.1, 0.2 / 3, 0.1 / 3]),
        ("--no-warm_up --lr_type linear_start", [0.2 / 3, 0.1 / 3, 0.0]),
        ("--no-warm_up --lr_type step --lr_decay_step 1 2", [0.1, 0.01, 0.001]),
        ("--no-warm_up --lr_type step --lr_decay_step 30 60 90", [0.1, 0.1, 0.1]),
    ],
)
def test_the_schedule_options_give_the_learning_rates(recu, plain, words, expected):
    assert recu.train("--save", "one", "--epochs", 3, "--data_dir", plain[1], *words.split()) == 0, recu.err
    assert [row["lr"] for row in _rows(recu.folder / "results/one")] == pytest.approx(expected)


def test_the_tau_options_give_the_taus(recu, plain):
    words = ["--tau_min", 0.6, "--tau_max", 0.9, "--data_dir", plain[1]]
    assert recu.train("--save", "one", "--keep_resumable", *words) == 0, recu.err
    assert [row["tau"] for row in _rows(recu.folder / "results/one")] == [
        tau_at(epoch, 2, 0.6, 0.9) for epoch in (0, 1)
    ]
    assert read_checkpoint(recu.folder / "results/one/checkpoint.pth.tar")["state_dict"]["layer1.0.conv1.tau"] == (
        pytest.approx(tau_at(1, 2, 0.6, 0.9))
    )


def test_what_is_not_given_is_the_recipe_of_the_family(recu, plain):
    # Epochs and batch size are given by this helper; the rest is a line of the paper's README for ImageNet.
    words = ["--family", "imagenet", "--model", "resnet18_1w1a", "--epochs", 1, "--data_dir", plain[1]]
    assert recu.train("--save", "one", *words) == 0, recu.err
    recipe = _experiment(recu.folder / "results/one").hyperparameters
    assert (recipe.weight_decay, recipe.weight_decay_groups, recipe.batch_size_test) == (1e-4, "imagenet", 256)
    assert _experiment(plain[0]).hyperparameters.weight_decay == 5e-4


@pytest.fixture
def photographs(recu):
    """Options for a dataset whose images stay files, and one of its training images."""
    params, images = recu.folder / "params", recu.folder / "photographs"
    shutil.copytree(recu.project / "params", params)
    shutil.copytree(recu.project / "images", images)
    datasets = params / "datasets.yaml"
    entry = datasets.read_text()[datasets.read_text().index("tiny:") :]
    entry = entry.replace("tiny:", "photographs:").replace("crop_flip", "resized_crop_lighting")
    datasets.write_text(datasets.read_text() + entry)
    return ["--params_dir", params, "--dataset", "photographs", "--data_path", images], images / "train/class3/5.png"


def test_an_unreadable_image_stops_the_training_or_is_skipped_and_counted(recu, photographs):
    words, image = photographs
    assert recu.train("--save", "whole", "--skip_unreadable", *words) == 0, recu.err
    assert [row["train_skipped"] for row in _rows(recu.folder / "results/whole")] == [0, 0]
    image.write_bytes(image.read_bytes()[:60])
    assert recu.train("--save", "stopped", *words) == 2
    assert "unreadable image" in recu.error() and str(image) in recu.error()
    assert not (recu.folder / "results/stopped/metrics.json").exists()
    assert recu.train("--save", "skipped", "--skip_unreadable", *words) == 0, recu.err
    assert [row["train_skipped"] for row in _rows(recu.folder / "results/skipped")] == [1, 1]
    assert f"skipped: unreadable image {image}" in recu.err
    assert "epoch 1 left out 1 unreadable training image(s)" in recu.err


def test_use_dali_reads_with_dali_or_says_what_to_install(recu, photographs, monkeypatch):
    words, _ = photographs
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    assert recu.train("--save", "one", "--use_dali", *words) == 2
    assert "nvidia-dali-cuda130" in recu.error() and "nvidia-dali-cuda110" in recu.error()
    assert not (recu.folder / "results/one/metrics.json").exists()
    assert recu.train("--save", "two", "--use_dali") == 2
    assert "loader 'dali' cannot serve Tiny" in recu.error()


def test_results_dir_and_save_name_the_folder(recu, plain):
    assert recu.train("--results_dir", "elsewhere", "--save", "here", "--epochs", 1, "--data_dir", plain[1]) == 0
    assert (recu.folder / "elsewhere/here/metrics.json").is_file() and not (recu.folder / "results").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("gpus", ["0", "0,1"])
def test_a_gpu_that_is_not_there_is_one_line_before_any_data_is_prepared(recu, gpus):
    """A command line of the paper's README."""
    words = f"--gpus {gpus} --epochs 600 --lr 0.1 -b 256 -bt 128 --lr_type cos --warm_up --weight_decay 5e-4"
    words += " --tau_min 0.85 --tau_max 0.99 --save one"
    assert recu.train(*words.split()) == 2
    assert f"--gpus {gpus}: there is no GPU 0" in recu.error()
    assert recu.train(*words.split(), "-e", "any.pth.tar") == 2
    assert f"--gpus {gpus}: there is no GPU 0" in recu.error()
    assert not (recu.folder / "data").exists()


def test_a_seed_repeats_and_another_does_not(recu, plain):
    for save, seed in (("same", 1), ("other", 2)):
        assert recu.train("--save", save, "--seed", seed, "--data_dir", plain[1]) == 0, recu.err
    assert _rows(recu.folder / "results/same") == _rows(plain[0])
    assert hash_file(recu.folder / "results/same/model_best.pth.tar") == hash_file(plain[0] / "model_best.pth.tar")
    assert _rows(recu.folder / "results/other") != _rows(plain[0])


def test_seed_zero_draws_one_and_records_it(recu, plain):
    seeds = set()
    for save in ("a", "b"):
        assert recu.train("--save", save, "--seed", 0, "--epochs", 1, "--data_dir", plain[1]) == 0, recu.err
        seeds.add(_experiment(recu.folder / "results" / save).seed)
        assert f"seed {max(seeds)} was drawn" in recu.err or f"seed {min(seeds)} was drawn" in recu.err
    assert len(seeds) == 2 and 0 not in seeds


def test_seed_zero_takes_the_drawn_seed_of_the_training_it_continues(recu, plain):
    words = ["--save", "a", "--seed", 0, "--data_dir", plain[1]]
    assert recu.train(*words, "--epochs", 1) == 0, recu.err
    drawn = _experiment(recu.folder / "results/a").seed
    assert recu.train(*words, "--epochs", 1) == 0 and "nothing to do" in recu.err
    # A seed that is not given is that of what is resumed, too.
    for given in (words, [word for word in words if word not in ("--seed", 0)]):
        assert recu.train(*given, "--epochs", 1, "--resume") == 0, recu.err
    assert _experiment(recu.folder / "results/a").seed == drawn


def test_start_epoch(recu, plain):
    assert recu.train("--save", "one", "--start_epoch", 1, "--data_dir", plain[1]) == 0, recu.err
    assert [row["epoch"] for row in _rows(recu.folder / "results/one")] == [1]
    assert recu.json("results/one/metrics.json")["start_epoch"] == 1
    assert recu.train("--save", "one", "--start_epoch", 1, "--data_dir", plain[1]) == 0 and "nothing to do" in recu.err


def test_print_freq_and_time_estimate(recu, plain):
    assert recu.train("--save", "a", "-p", 1, "--data_dir", plain[1]) == 0
    assert "epoch 1, step 1 of 3" in recu.err and "finish about" in recu.err
    assert recu.train("--save", "b", "--time_estimate", 0, "--data_dir", plain[1]) == 0
    assert "step 1 of 3" not in recu.err and "finish about" not in recu.err


def test_the_default_name_of_the_folder(recu, plain):
    assert recu.train("--epochs", 1, "--data_dir", plain[1]) == 0
    assert (recu.folder / "results/tiny-cifar.resnet20_1w1a-vanilla-seed1/metrics.json").is_file()


def test_init_from_and_stage1_start_from_the_files_weights(recu, plain):
    best = plain[0] / "model_best.pth.tar"
    assert recu.train("--save", "tuned", "--init_from", best, "--data_dir", plain[1]) == 0, recu.err
    assert recu.json("results/tuned/metrics.json")["parent"]["checkpoint_sha256"] == hash_file(best)
    assert _rows(recu.folder / "results/tuned") != _rows(plain[0])
    assert recu.train("--save", "first", "--stage", 1, "--epochs", 1, "--data_dir", plain[1]) == 0, recu.err
    first = recu.folder / "results/first/model_best.pth.tar"
    assert recu.train("--save", "second", "--stage1", first, "--data_dir", plain[1]) == 0, recu.err
    assert "initial weights from" in recu.err and "121 of 157 tensors taken, 36 missing" in recu.err
    # Without saying that the file is of stage 1, its lack of alpha and tau is an error.
    assert recu.train("--save", "third", "--init_from", first, "--data_dir", plain[1]) == 2
    assert "alpha" in recu.error()
    assert not (recu.folder / "results/third/checkpoint.pth.tar").exists()


def test_a_binariser_is_an_option_and_names_the_folder(recu, plain):
    words = ("--epochs", 1, "--data_dir", plain[1])
    assert recu.train("--binariser", "reste", *words) == 0, recu.err
    folder = recu.folder / "results/tiny-cifar.resnet20_1w1a-reste-seed1"
    assert recu.json(folder / "metrics.json")["experiment"]["hyperparameters"]["binariser"] == "reste"
    best = folder / "model_best.pth.tar"
    assert recu("evaluate", "-e", best, "--output", "it.json", "--data_dir", plain[1], *recu.places) == 0, recu.err
    assert recu.json("it.json")["binariser"] == "reste"
    assert recu("evaluate", "-e", best, "--binariser", "sign", "--data_dir", plain[1], *recu.places) == 2
    assert "says that it has binariser reste, but the options would have binariser sign" in recu.error()
    assert recu.train("--save", "other", "--binariser", "sign", "--init_from", best, *words) == 2
    assert "has binariser 'reste', this one 'sign'" in recu.error()
    assert recu.train("--binariser", "rest", *words) == 2
    assert "did you mean 'reste'" in recu.error()


def test_stage_2_of_biper_from_a_file_of_stage_1(recu, plain):
    words = ("--epochs", 1, "--data_dir", plain[1], "--binariser", "biper")
    assert recu.train("--save", "first", "--stage", 1, *words) == 0, recu.err
    first = recu.folder / "results/first/model_best.pth.tar"
    assert recu.train("--save", "second", "--stage1", first, *words) == 0, recu.err
    assert "157 of 157 tensors taken, 0 missing" in recu.err


def test_a_teacher_of_this_program_and_of_torchvision(recu, plain):
    best = plain[0] / "model_best.pth.tar"
    assert recu.train("--save", "taught", "--teacher", best, "--data_dir", plain[1]) == 0, recu.err
    assert _rows(recu.folder / "results/taught") != _rows(plain[0])
    assert "the teacher's weights from" in recu.err and "157 of 157 tensors taken" in recu.err
    assert _experiment(recu.folder / "results/taught").teacher.spec_hash == hash_file(best)[:16]
    import torchvision

    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(num_classes=6).state_dict(), "six.pth")
    torch.save(torchvision.models.resnet18(num_classes=7).state_dict(), "seven.pth")
    given = ["--teacher", "resnet18", "--epochs", 1, "--data_dir", plain[1]]
    assert recu.train("--save", "b", *given, "--teacher_weights", "six.pth") == 0, recu.err
    assert recu.train("--save", "c", *given, "--teacher_weights", "seven.pth") == 2
    assert "seven.pth" in recu.error() and "fc.weight (7, 512) for (6, 512)" in recu.error()
    assert recu.train("--save", "d", *given) == 2
    assert "has 1000 classes, the dataset has 6" in recu.error()
    assert recu.train("--save", "e", "--teacher", "resnet81", "--data_dir", plain[1]) == 2
    assert "did you mean 'resnet18'" in recu.error()


def test_evaluate_by_the_train_command(recu, plain):
    assert recu.train("-e", plain[0] / "model_best.pth.tar", "--data_dir", plain[1], "--output", "out.json") == 0
    assert recu.json("out.json")["n"] == 18


def test_type_selects_the_device(recu, plain):
    words = [word for word in recu.tiny if word not in ("--gpus", "cpu")]
    words += ["--data_dir", plain[1], "--tracking_uri", "", "--epochs", "1", "-b", "16"]
    assert recu("train", *words, "--save", "a", "--type", "torch.FloatTensor") == 0, recu.err
    assert recu("train", *words, "--save", "b", "--type", "float") == 2
    assert "expected a tensor type" in recu.error()
    if not torch.cuda.is_available():
        assert recu("train", *words, "--save", "c", "--type", "torch.cuda.FloatTensor") == 2
        assert "no CUDA device" in recu.error()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epochs -3", "epochs: should be greater than or equal to 1, found -3"),
        ("--lr 0", "lr: should be greater than 0"),
        ("--tau_min 0.99 --tau_max 0.9", "tau_min (0.99) must not exceed tau_max (0.9)"),
        ("--lr_type step", "lr_type 'step' needs lr_decay_step"),
        ("--lr_type cosine", "lr_type: "),
        ("--optimizer rmsprop", "optimizer: "),
        ("--model resnet2_1w1a", "did you mean 'resnet20_1w1a'?"),
        ("--dataset tinny", "did you mean 'tiny'?"),
        ("--method a/b", "--method: "),
        ("--family imagnet", "did you mean 'imagenet'?"),
        ("--variant 2021-04", "did you mean '2021-03'?"),
        ("--seed -1", "--seed is -1"),
        ("--start_epoch 2", "start_epoch is 2, expected 0 to 1"),
        ("--print_freq 0", "--print_freq is 0"),
        ("--workers -1", "--workers is -1"),
        ("--gpus nine", "neither 'cpu' nor a device number"),
        ("-b 47", "47"),
        ("--data_path nowhere", "nowhere does not exist"),
        ("--resume nowhere.pth.tar", "cannot read nowhere.pth.tar: No such file"),
        ("--stage1 nowhere.pth.tar", "cannot read nowhere.pth.tar"),
        ("--teacher_weights w.pth", "--teacher_weights needs --teacher"),
        ("--experiment {}", "--experiment fixes every parameter"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(recu, words, message):
    assert recu.train("--save", "one", *words.split()) == 2
    assert message in recu.error()
    assert not (recu.folder / "results/one/checkpoint.pth.tar").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--dataset digits --model resnet20_1w1a -b 359", "batch_size: 359 leaves one of 1437 training images"),
        ("--dataset digits --model resnet20_1w1a --use_dali", "loader 'dali' cannot serve Digits"),
        ("--dataset digits --model resnet20_1w1a --lr_type linear_start", "warm_up is not defined for lr_type"),
        ("--dataset digits --model resnet20_1w1a --tau_min 0.5", "tau_min: should be greater than 0.5"),
        ("--dataset digits --model resnet20_1w1a --lr 1e308", "lr: must fit into single precision"),
        ("--dataset digits --model resnet20_1w1a --compile kernels", "torch.compile is for GPUs"),
        ("--dataset digits --model resnet20_1w1a --teacher resnet34", "has 1000 classes, the dataset has 10"),
        ("--dataset digits --model resnet20_1w1a --teacher resnet43", "did you mean 'resnet34'?"),
    ],
)
def test_what_cannot_be_trained_is_said_before_any_data_is_prepared(recu, words, message):
    assert recu("train", "--gpus", "cpu", "--tracking_uri", "", *words.split()) == 2
    assert message in recu.error()
    assert list(recu.folder.iterdir()) == []


def test_what_is_left_out_is_the_authors_default_and_said(recu):
    # The digits are there without a download; the network's name is the authors' default.
    words = ["--dataset", "digits", "--epochs", 1, "--gpus", "cpu", "--params_dir", recu.project / "params"]
    assert recu("train", *words, "-b", 0) == 2
    assert "--model is left out: resnet18_1w1a, the default of the authors' program" in recu.err
    assert recu("train", "--model", "resnet20_1w1a", "--data_path", "nowhere", *words[2:]) == 2
    assert "--dataset is left out: cifar10, the default of the authors' program" in recu.err
    assert recu("evaluate", *recu.places) == 2
    assert "nothing to evaluate" in recu.error()


def test_what_resume_continues_says_what_is_left_out(recu, plain):
    assert recu.train("--save", "one", "--keep_resumable", "--data_dir", plain[1]) == 0
    words = [
        "--resume",
        "results/one/checkpoint.pth.tar",
        "--save",
        "two",
        "--epochs",
        3,
        "-b",
        16,
        "--tracking_uri",
        "",
    ]
    assert recu("train", *words, "--data_dir", plain[1], *recu.places) == 0, recu.err
    assert "--model is left out: resnet20_1w1a, that of" in recu.err
    assert [row["epoch"] for row in _rows(recu.folder / "results/two")] == [0, 1, 2]


def test_command_lines_of_the_authors_forms(recu, plain):
    words = (
        "--results_dir ./result --save r --epochs 1 --lr 0.05 --lr 0.1 --lr_type linear --lr_type COS --optimizer SGD"
    )
    words += " --start_epoch -1 --momentum 0.9 --time_estimate 0 --type torch.FloatTensor --gpu cpu -bt 9"
    given = [*words.split(), "--data_dir", plain[1]]
    assert recu.train(*given) == 0, recu.err
    recipe = _experiment(recu.folder / "result/r").hyperparameters
    assert (recipe.lr, recipe.lr_type, recipe.optimizer) == (0.1, "cos", "sgd"), "the last one given"
    assert recu.train(*given, "--resume") == 0 and "nothing to do" in recu.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epoch 3", "unknown option --epoch; did you mean --epochs?"),
        ("--weight-decay=5e-4", "unknown option --weight-decay; did you mean --weight_decay?"),
        ("--zzzzzz", "unknown option --zzzzzz (see recu train --help)"),
        ("stray", "unrecognized arguments: stray"),
        ("--start_epoch -2", "--start_epoch is -2"),
        ("--resume a.pth.tar --start_epoch 1", "--start_epoch begins a new training"),
        ("--resume", "--resume: there is no results/one/checkpoint.pth.tar to continue"),
        ("--tau_min 0.5", "tau_min"),
        ("--lr 1e308", "lr"),
        ("--teacher resnet18", "has 1000 classes, the dataset has 6"),
        ("--lr_type linear_start", "warm_up"),
        ("--model vgg_small_1w1a", "takes images of 32 to 39 pixels a side, the dataset's are 8"),
    ],
)
def test_what_can_be_refused_at_once_leaves_nothing_behind(recu, words, message):
    assert recu.train("--save", "one", *words.split()) == 2
    assert message in recu.error()
    assert not list(recu.folder.iterdir())


IGNORED = "--seed 7 --method m --save b --resume --start_epoch 3 --data_path x --stage1 y --use_dali --epochs 3"
OF_A_JOB = (
    "--data_dir data --results_dir r --runs_dir s --manifest m.json --gpus cpu --type torch.FloatTensor --kernels off"
    " --processes 1 --stall_minutes 5 --workers 0 --threads 1 -bt 7 --print_freq 5 --save_minutes 5 --time_estimate 0"
    " --end_time inf --keep_resumable --diagnostics 0 --tracking_uri s --teacher_weights w.pth"
)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            f"--experiment {{}} {IGNORED}",
            "--experiment fixes every parameter: leave out --data_path, --seed, --method, --save, --resume,"
            " --start_epoch, --stage1, --loader, --epochs",
        ),
        ("--experiment {} --output o.json", "--output goes with --evaluate FILE; what an experiment gives goes into"),
        (f"--experiment {{}} {OF_A_JOB}", "error: --experiment: "),
        ("--manifest m.json", "--manifest has no effect without --experiment; leave it out"),
        (
            "--manifest m.json --runs_dir s",
            "--runs_dir, --manifest have no effect without --experiment; leave them out",
        ),
        ("--output o.json --overwrite", "--output, --overwrite have no effect without --evaluate FILE; leave them out"),
        ("-e x --manifest m.json", "--manifest has no effect with --evaluate FILE; leave it out"),
        ("-e x --teacher t --stage1 s", "--stage1, --teacher have no effect with --evaluate FILE; leave them out"),
        ("-e x --tracking_uri s", "--tracking_uri has no effect with --evaluate FILE; leave it out"),
        ("-e x --epochs 3 --print_freq 5 --tracking_uri= --save b --resume --seed 3 --results_dir r", "cannot read x"),
    ],
)
def test_an_option_that_would_have_no_effect_is_refused(recu, words, message):
    assert recu("train", *recu.places[:2], *words.split()) == 2
    assert message in recu.error()
    assert not list(recu.folder.iterdir())


def test_initial_weights_of_another_network_are_refused_at_once(recu, plain):
    best = plain[0] / "model_best.pth.tar"
    assert recu.train("--save", "one", "--model", "resnet18_1w1a", "--init_from", best) == 2
    assert "model" in recu.error() and "the training that starts from it" in recu.error()
    assert "give a file of the same network, trained on data with the same classes and normalisation" in recu.error()
    assert recu.train("--save", "one", "--stage", 1, "--init_from", best) == 2
    assert "has stage 2, and a network of stage 1 starts from" in recu.error()
    assert recu.train("--save", "one", "--stage1", best) == 2
    assert "says that it has stage 2, but --stage1 would have stage 1: give a file of stage 1" in recu.error()
    assert not list(recu.folder.iterdir())


@pytest.mark.parametrize("option", ["--init_from", "--teacher"])
def test_a_file_learnt_on_images_normalised_otherwise_is_refused(recu, option):
    other = load_datasets(recu.project / "params")["tiny"].model_copy(update={"mean": (0.4, 0.5, 0.6)})
    torch.save(our_checkpoint(experiment(other, name="other")), "other.pth.tar")
    assert recu.train("--save", "one", option, "other.pth.tar") == 2
    assert "mean (0.4, 0.5, 0.6)" in recu.error() and "mean (0.5, 0.5, 0.5)" in recu.error()
    assert not (recu.folder / "results").exists()


def test_a_rate_that_overflows_diverges_in_one_line(recu, plain):
    words = ["--epochs", 1, "--optimizer", "adam", "--lr", 1e38, "--no-warm_up", "--data_dir", plain[1]]
    assert recu.train("--save", "one", *words) == 3
    assert "learning rate 1e+38; the last good state is kept" in recu.error()


def test_a_read_only_results_folder_is_said_before_any_work(recu):
    locked = recu.folder / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    if os.access(locked, os.W_OK):
        pytest.skip("this user (root) may write into read-only folders")
    assert recu.train("--results_dir", locked) == 2
    assert "is read-only" in recu.error()
    assert not (recu.folder / "data").exists()


def test_a_results_folder_below_a_file(recu):
    (recu.folder / "results").write_text("a file")
    assert recu.train() == 2
    assert "is not a folder" in recu.error()
