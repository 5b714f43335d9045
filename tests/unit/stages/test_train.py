"""The train stage: what it publishes, what it starts from, and what it refuses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from recu.base.errors import BusyError, CheckpointError, ConfigError, Interrupted, OutputError, ResultError
from recu.base.files import hash_file, read_json
from recu.base.lock import only_one
from recu.experiment import paths
from recu.experiment.binarisers import available_binarisers
from recu.experiment.resolving import Origin, TeacherWeights
from recu.nn import BinaryConv2d
from recu.results import provenance
from recu.stages import train as module
from recu.stages.networks import Teacher
from recu.stages.prepare import prepare
from recu.tracking.run import FollowedRun
from recu.tracking.wanted import Folders, read_run
from recu.training import checkpoint as checkpoint_module
from recu.training.checkpoint import RESUME_KEY, previous_of, read_checkpoint
from recu.training.seeding import seed_everything
from recu.training.trainer import Trainer
from tests.history import comparable, read_history
from tests.unit.training import ours


def _folder(project, experiment):
    return paths.train_folder(project.results, experiment.id)


def test_published_metrics(project):
    experiment = project.experiment()
    metrics = project.train(experiment)
    assert set(metrics) >= {
        "experiment", "spec_hash", "data_fingerprint", "best", "last", "epochs", "train_seconds", "history",
        "checkpoint_sha256", "provenance", "mlflow_run_id", "parent",
    }  # fmt: skip
    assert metrics["experiment"] == {"id": experiment.id} | experiment.model_dump(mode="json")
    assert metrics["spec_hash"] == experiment.spec_hash
    assert metrics["checkpoint_sha256"] == hash_file(_folder(project, experiment) / paths.BEST_CHECKPOINT)
    assert set(metrics["best"]) == {"epoch", "top1", "top5", "loss"}
    assert metrics["provenance"]["packages"]["torch"] == torch.__version__.partition("+")[0]
    published = ["metrics.json", "model_best.pth.tar"]
    assert sorted(file.name for file in _folder(project, experiment).iterdir()) == published


def test_a_finished_training_keeps_its_best_weights_once_and_no_state(project):
    experiment = project.experiment()
    project.train(experiment)
    state, best = project.state(experiment), _folder(project, experiment) / paths.BEST_CHECKPOINT
    # What publishes it again stays where Snakemake does not look.
    kept = [
        "diagnostics.jsonl",
        "experiment.json",
        "history.jsonl",
        "metrics.json",
        "model_best.pth.tar",
        "run.json",
        "train.log",
    ]
    assert sorted(file.name for file in state.iterdir()) == kept
    assert best.samefile(state / paths.BEST_CHECKPOINT)
    content = read_checkpoint(best)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in content["state_dict"].values())
    on_disk = {(file.stat().st_ino, file.stat().st_size) for file in project.folder.rglob("*") if file.is_file()}
    assert content["optimizer"]["state"] == {}
    # metrics.json, twice, has the histograms of both epochs; another copy of the weights would be ten times as much.
    assert sum(size for _, size in on_disk) < weights + 300_000


def test_what_more_epochs_need_is_kept_where_that_is_asked_for(project):
    experiment = project.experiment(epochs=1)
    project.train(experiment)
    without = read_checkpoint(_folder(project, experiment) / paths.BEST_CHECKPOINT)
    shutil.rmtree(project.runs)
    project.keep_resumable = True
    project.train(experiment)
    best = read_checkpoint(_folder(project, experiment) / paths.BEST_CHECKPOINT)
    last = read_checkpoint(project.state(experiment) / paths.CHECKPOINT)
    assert best["optimizer"]["state"] and last["optimizer"]["state"] and last[RESUME_KEY]["random"]
    assert all(torch.equal(tensor, best["state_dict"][name]) for name, tensor in without["state_dict"].items())
    # Asked for no more, it goes without training again.
    project.keep_resumable = False
    project.train(experiment)
    assert not (project.state(experiment) / paths.CHECKPOINT).exists()


@pytest.mark.parametrize("moment", ["publish", "free_state", "unlink"])
def test_a_training_killed_while_it_is_published_or_freed_loses_nothing(project, monkeypatch, moment):
    experiment = project.experiment(epochs=1)

    def killed(*_, **__):
        raise KeyboardInterrupt

    def one_goes(path):
        previous_of(path).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if moment == "publish":
            patched.setattr(module, "publish", killed)
        else:
            patched.setattr(checkpoint_module, "free_state", killed if moment == "free_state" else one_goes)
        with pytest.raises(KeyboardInterrupt):
            project.train(experiment)
    assert (project.state(experiment) / paths.CHECKPOINT).exists()
    monkeypatch.setattr(Trainer, "_epoch", lambda *arguments: pytest.fail("it trained again"))
    metrics = project.train(experiment)
    assert metrics["checkpoint_sha256"] == hash_file(_folder(project, experiment) / paths.BEST_CHECKPOINT)
    assert not list(project.state(experiment).glob("checkpoint*"))


def test_the_same_training_elsewhere_is_a_copy_where_there_are_no_hard_links(project, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr("os.link", refuse)
    experiment = project.experiment(epochs=1)
    metrics = project.train(experiment)
    assert metrics["checkpoint_sha256"] == hash_file(_folder(project, experiment) / paths.BEST_CHECKPOINT)
    assert metrics["checkpoint_sha256"] == hash_file(project.state(experiment) / paths.BEST_CHECKPOINT)


@pytest.mark.parametrize(
    ("name", "reason"),
    [(paths.BEST_CHECKPOINT, r"is not the checkpoint that metrics\.json"), (paths.METRICS, "was altered after it was")],
)
def test_what_a_finished_training_left_is_trained_anew_where_it_was_altered(project, caplog, name, reason):
    experiment = project.experiment(epochs=1)
    before = project.train(experiment)
    file = project.state(experiment) / name
    file.write_bytes(file.read_bytes().replace(b'"epochs": 1', b'"epochs": 2') + b" ")
    after = project.train(experiment)
    assert re.search(f"is not taken up: .*{reason}.*; starting afresh, it is kept in .*-aside", caplog.text)
    assert after["checkpoint_sha256"] == before["checkpoint_sha256"]


def test_a_run_that_the_store_names_only_later_is_named_when_publishing_again(project, monkeypatch):
    class Named(FollowedRun):
        def id(self):
            return "run7"

    experiment = project.experiment(epochs=1)
    assert project.train(experiment)["mlflow_run_id"] is None
    monkeypatch.setattr("recu.tracking.run.FollowedRun", Named)
    assert project.train(experiment)["mlflow_run_id"] == "run7"
    shown = read_run(Folders(project.state(experiment), _folder(project, experiment)))
    assert shown.description.spec_hash == experiment.spec_hash and shown.status == "FINISHED"
    assert [row.epoch for row in shown.rows] == [0]


def test_a_layer_that_does_not_say_its_cost_ends_a_training_before_its_first_epoch(project, monkeypatch):
    class Silent(BinaryConv2d):
        pass

    monkeypatch.setattr("recu.models.build.convolution_of", lambda *_: Silent)
    experiment = project.experiment()
    with pytest.raises(ConfigError, match=r"\(Silent\) .* define layer_cost\(\) in the body of its class"):
        project.train(experiment)
    assert not (project.state(experiment) / paths.CHECKPOINT).exists()


def test_finetune_starts_from_the_parents_best_weights(project):
    vanilla = project.experiment()
    parent = project.train(vanilla)
    finetune = project.experiment("finetune", parent=vanilla, lr=1e-9, warm_up=False, epochs=1)
    metrics = project.train(finetune)
    assert metrics["parent"] == {
        "id": vanilla.id,
        "spec_hash": vanilla.spec_hash,
        "checkpoint_sha256": parent["checkpoint_sha256"],
    }
    before, after = (
        read_checkpoint(_folder(project, e) / paths.BEST_CHECKPOINT)["state_dict"] for e in (vanilla, finetune)
    )
    # At a learning rate of a billionth the weights stay what they were.
    torch.testing.assert_close(after["layer1.0.conv1.weight"], before["layer1.0.conv1.weight"], rtol=0, atol=1e-6)


def test_a_parent_of_other_parameters_or_altered_is_refused(project):
    vanilla = project.experiment()
    project.train(vanilla)
    other = project.experiment(lr=0.05)
    with pytest.raises(ResultError, match=rf"other parameters \(hash {vanilla.spec_hash}, expected {other.spec_hash}"):
        project.train(project.experiment("finetune", parent=other))
    file = _folder(project, vanilla) / paths.BEST_CHECKPOINT
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ResultError, match=r"is not the checkpoint that metrics\.json"):
        project.train(project.experiment("finetune", parent=vanilla))
    shutil.rmtree(_folder(project, vanilla))
    with pytest.raises(ResultError, match=r"cannot read .*metrics\.json: No such file"):
        project.train(project.experiment("finetune", parent=vanilla))


def test_stage_2_starts_from_stage_1_and_a_teacher_is_read(project):
    first = project.experiment("stage1", stage=1)
    project.train(first)
    second = project.experiment("stage2", parent=first)
    taught = second.model_copy(update={"teacher": second.init_from, "method": "taught"})
    assert project.train(second)["parent"]["id"] == first.id
    assert project.train(taught)["history"][0]["train_loss"] != project.trained(second)["history"][0]["train_loss"]


def test_the_code_of_a_teacher_of_ones_own_is_in_the_students_code_hash(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (project.folder / "own_teacher.py").write_text("from recu.binarisers.sign import SignConv2d as Own\n")
    teacher = project.experiment("teacher", epochs=1, binariser="own_teacher:Own")
    of_teacher = project.train(teacher)["provenance"]["code_hash"]
    student = project.experiment(epochs=1)
    alone = project.train(student)["provenance"]["code_hash"]
    taught = student.model_copy(update={"teacher": teacher.origin, "method": "taught"})
    assert project.train(taught)["provenance"]["code_hash"] == of_teacher != alone == provenance.code_at_start()


def test_stage_2_of_biper_takes_every_tensor_of_stage_1_and_records_its_schedule(project, caplog):
    first = project.experiment("stage1", stage=1, binariser="biper")
    assert project.train(first)["history"][1]["scheduled"] == {"f": 20.0}
    project.train(project.experiment("stage2", parent=first, binariser="biper"))
    assert "157 of 157 tensors taken, 0 missing, 0 unexpected" in caplog.text


def test_an_evaluation_knows_the_binariser_of_a_training(project):
    experiment = project.experiment(binariser="ir-net", epochs=1)
    trained = project.train(experiment)
    project.evaluate(experiment)
    metrics = read_json(paths.evaluate_folder(project.results, experiment.id) / paths.METRICS)
    assert metrics["binariser"] == "ir-net" and metrics["top1"] == trained["best"]["top1"]
    assert trained["history"][0]["scheduled"] == {"t": 0.001}


def test_a_torchvision_teachers_file_is_the_one_planned_and_is_named(project, tmp_path):
    import torchvision

    files = [tmp_path / "teacher1.pth", tmp_path / "teacher2.pth"]
    for seed, file in enumerate(files):
        torch.manual_seed(seed)
        torch.save(torchvision.models.resnet18(num_classes=6).state_dict(), file)
    origin = Origin(id="torchvision:resnet18", spec_hash=TeacherWeights(str(files[0])).spec_hash)
    recipe = project.experiment(epochs=1).hyperparameters.model_copy(update={"teacher": origin.id})
    experiment = project.experiment().model_copy(update={"hyperparameters": recipe, "teacher": origin})
    for weights in (files[1], None):
        with pytest.raises(ConfigError, match="are not those that the experiment was planned with"):
            project.train(experiment, teacher_weights=weights)
    assert not project.runs.exists()
    teacher = project.train(experiment, teacher_weights=files[0])["teacher"]
    assert teacher["id"] == origin.id and teacher["checkpoint_sha256"] == hash_file(files[0])
    assert len(teacher["weights_sha256"]) == 64


def test_a_finished_training_publishes_again_without_training(project, monkeypatch):
    experiment = project.experiment()
    before = project.train(experiment)
    content = (_folder(project, experiment) / paths.BEST_CHECKPOINT).read_bytes()
    shutil.rmtree(project.results)
    monkeypatch.setattr(Trainer, "_epoch", lambda *arguments: pytest.fail("it trained again"))
    after = project.train(experiment)
    assert (_folder(project, experiment) / paths.BEST_CHECKPOINT).read_bytes() == content
    assert after["history"] == before["history"] and after["train_seconds"] == before["train_seconds"]


def test_a_training_published_again_keeps_what_trained_it(project, monkeypatch):
    experiment = project.experiment(epochs=1)
    before = project.train(experiment)
    shutil.rmtree(project.results)
    collect = provenance.collect
    monkeypatch.setattr(
        provenance,
        "collect",
        lambda *what: collect(*what).model_copy(update={"git_commit": "f" * 40, "created": "now"}),
    )
    after = project.train(experiment)
    assert after["provenance"] == before["provenance"] and after["segments"] == before["segments"]
    (segment,) = after["segments"]
    assert segment["provenance"] == after["provenance"] and segment["settings"] == after["settings"]
    assert (segment["from_epoch"], segment["to_epoch"]) == (0, 0)
    assert (segment["experiment"], segment["spec_hash"]) == (experiment.canonical, experiment.spec_hash)


def test_code_that_changed_while_a_training_was_interrupted_is_named_beside_the_other(project, monkeypatch, caplog):
    experiment, save, collect = project.experiment(), Trainer._finish_epoch, provenance.collect

    def stop(trainer, row):
        save(trainer, row)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_finish_epoch", stop)
    with pytest.raises(Interrupted):
        project.train(experiment)
    monkeypatch.setattr(Trainer, "_finish_epoch", save)
    monkeypatch.setattr(provenance, "collect", lambda *what: collect(*what).model_copy(update={"code_hash": "f" * 64}))
    metrics = project.train(experiment)
    assert "continuing with another code (ffffffffffff, was" in caplog.text
    first, second = metrics["segments"]
    assert second["provenance"]["code_hash"] == "f" * 64 != first["provenance"]["code_hash"]
    assert (first["to_epoch"], second["to_epoch"]) == (1, 1), "epoch 1 was begun by one and ended by the other"
    assert metrics["provenance"] == second["provenance"]


def test_a_state_of_another_seed_is_set_aside(project, caplog):
    project.keep_resumable = True
    experiment = project.experiment(epochs=1)
    other = experiment.model_copy(update={"seed": 2})
    project.train(experiment)
    project.state(other).mkdir(parents=True)
    for name in (paths.CHECKPOINT, paths.HISTORY, paths.BEST_CHECKPOINT):
        shutil.copy(project.state(experiment) / name, project.state(other))
    metrics = project.train(other)
    assert "is not taken up: it is another experiment's (seed 1 -> 2); starting afresh" in caplog.text
    assert metrics["experiment"]["seed"] == 2
    assert metrics["checkpoint_sha256"] != project.trained(experiment)["checkpoint_sha256"]
    aside = project.state(other).with_name(f"{other.spec_hash}-aside")
    assert hash_file(aside / paths.CHECKPOINT) == hash_file(project.state(experiment) / paths.CHECKPOINT)


def test_parts_of_another_training_without_its_checkpoint_do_not_reach_the_result(project):
    experiment = project.experiment(epochs=1)
    whole = project.train(experiment)
    kept = project.folder / "kept"
    project.state(experiment).rename(kept)
    project.state(experiment).mkdir()
    (project.state(experiment) / paths.HISTORY).write_text('{"epoch": 0, "test_top1": 100.0}\n')
    shutil.copy(kept / paths.BEST_CHECKPOINT, project.state(experiment))
    again = project.train(experiment)
    assert again["checkpoint_sha256"] == whole["checkpoint_sha256"]
    assert len(read_history(project.state(experiment) / paths.HISTORY)) == 1


def test_a_parent_that_was_trained_again_makes_its_child_be_trained_again(project, monkeypatch, caplog):
    vanilla = project.experiment(epochs=1)
    finetune = project.experiment("finetune", parent=vanilla, epochs=1)
    project.train(vanilla)
    first = project.train(finetune)
    shutil.rmtree(project.state(vanilla))
    # Other bits under the same parameters, as another machine may give.
    monkeypatch.setattr("recu.training.seeding.seed_everything", lambda seed: seed_everything(seed + 1))
    parent = project.train(vanilla)
    monkeypatch.setattr("recu.training.seeding.seed_everything", seed_everything)
    second = project.train(finetune)
    assert "its parent has been trained again" in caplog.text
    assert second["parent"]["checkpoint_sha256"] == parent["checkpoint_sha256"]
    assert second["parent"]["checkpoint_sha256"] != first["parent"]["checkpoint_sha256"]
    assert second["checkpoint_sha256"] != first["checkpoint_sha256"]


@pytest.mark.parametrize("binariser", available_binarisers())
def test_an_interrupted_training_continues_to_the_same_result(project, monkeypatch, binariser):
    experiment = project.experiment(binariser=binariser)
    whole = project.train(experiment)
    shutil.rmtree(project.results)
    shutil.rmtree(project.runs)
    save = Trainer._save
    saves = []

    def interrupt(trainer, *arguments):
        save(trainer, *arguments)
        saves.append(1)
        if len(saves) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_save", interrupt)
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        project.train(experiment)
    assert not project.results.exists()
    monkeypatch.setattr(Trainer, "_save", save)
    parts = project.train(experiment)
    assert parts["checkpoint_sha256"] == whole["checkpoint_sha256"]
    assert [comparable(row) for row in parts["history"]] == [comparable(row) for row in whole["history"]]
    log = (project.state(experiment) / paths.LOG).read_text()
    assert "stopped by SIGTERM" in log and "continuing at epoch" in log


def test_other_parameters_never_continue_each_others_state(project):
    short, longer = project.experiment(epochs=1), project.experiment(epochs=2)
    project.train(short)
    assert project.train(longer)["epochs"] == 2
    assert len(read_history(project.state(longer) / paths.HISTORY)) == 2
    assert len(read_history(project.state(short) / paths.HISTORY)) == 1


def test_other_data_starts_afresh_and_keeps_the_earlier_state(project, tiny_project, tmp_path, caplog):
    experiment = project.experiment()
    first = project.train(experiment)
    shutil.copytree(tiny_project / "images", tmp_path / "images")
    for label in (0, 1):
        (tmp_path / f"images/train/class{label}/0.png").unlink()
    other = prepare("tiny", project.dataset, data_dir=tmp_path / "data", source=tmp_path / "images", workers=0)
    second = project.train(experiment, prepared=other)
    assert "starting afresh" in caplog.text
    assert first["data_fingerprint"] != second["data_fingerprint"]
    assert [row["epoch"] for row in second["history"]] == [0, 1]
    (aside,) = project.state(experiment).parent.glob(f"{experiment.spec_hash}-data-*")
    assert len(read_history(aside / paths.HISTORY)) == 2


def test_a_network_or_a_place_that_cannot_be_is_refused_first(project):
    with pytest.raises(ConfigError, match="did you mean 'resnet20_1w1a'"):
        project.train(project.experiment().model_copy(update={"model": "resnet2_1w1a"}))
    project.results.write_text("a file")
    with pytest.raises(OutputError, match="is not a folder"):
        project.train(project.experiment())
    assert not project.runs.exists()


def test_a_results_folder_that_vanishes_while_training_is_made_again(project, monkeypatch):
    experiment = project.experiment(epochs=1)
    publish = module.publish
    project.results.mkdir()

    def remove_first(folder, *arguments):
        shutil.rmtree(project.results)
        return publish(folder, *arguments)

    monkeypatch.setattr(module, "publish", remove_first)
    assert project.train(experiment)["epochs"] == 1


def _command(project, experiment):
    return [
        sys.executable, "-m", "recu", "train", "--experiment", experiment.canonical,
        "--params_dir", project.params, "--data_dir", project.data_dir, "--results_dir", project.results,
        "--runs_dir", project.runs, "--gpus", "cpu", "--workers", "0", "--threads", "1", "--tracking_uri", "",
    ]  # fmt: skip


def test_a_job_that_compiles_nothing_imports_no_compiler(project):
    # PyTorch's optimisers, and operations on the meta device, import it by themselves, in two seconds.
    code = """
import json
import sys
from recu.cli.main import main

for words in json.loads(sys.argv[1]):
    print(main(words), "torch" in sys.modules, "torch._dynamo" in sys.modules)
"""
    train = [str(word) for word in _command(project, project.experiment(epochs=1))[3:]]
    evaluate = [word if word != "train" else "evaluate" for word in train]
    command = [sys.executable, "-c", code, json.dumps([train, evaluate])]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.stdout.splitlines() == ["0 True False"] * 2, answer.stderr


def test_the_run_is_followed_before_pytorch_is_imported(project):
    # MLflow takes as long to import as PyTorch; it is imported meanwhile, in the follower's process.
    experiment = project.experiment(epochs=1)
    project.train(experiment)
    code = """
import sys
import recu.tracking.run
from recu.cli.main import main

def follow(*_):
    print("torch" in sys.modules)
    raise SystemExit

recu.tracking.run.FollowedRun = follow
main(sys.argv[1:])
"""
    other = project.experiment(epochs=2)
    for stage, what in (("train", other), ("evaluate", experiment)):
        words = [word if word != "train" else stage for word in _command(project, what)[3:]]
        answer = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
        assert answer.stdout.strip() == "False", answer.stderr


@pytest.mark.slow
def test_the_command_line_trains_evaluates_and_waits_for_another(project):
    long, short = project.experiment(epochs=400), project.experiment(epochs=1)
    first = subprocess.Popen(_command(project, long), stderr=subprocess.PIPE, text=True)
    while not (project.state(long) / paths.CHECKPOINT).exists():
        assert first.poll() is None
        time.sleep(0.1)
    # The same experiment with other parameters: it must neither run beside the first nor end without a result.
    second = subprocess.Popen(_command(project, short), stderr=subprocess.PIPE, text=True)
    line = second.stderr.readline()
    assert f"is in use by process {first.pid} on" in line and "waiting" in line
    assert second.poll() is None
    first.send_signal(signal.SIGTERM)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 75 and "run the same command again" in errors and "Traceback" not in errors
    second.communicate(timeout=60)
    assert second.returncode == 0
    assert project.trained(short)["spec_hash"] == short.spec_hash
    evaluated = subprocess.run(
        [word if word != "train" else "evaluate" for word in _command(project, short)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert evaluated.returncode == 0, evaluated.stderr
    found = json.loads((paths.evaluate_folder(project.results, short.id) / paths.METRICS).read_text())
    assert found["top1"] == project.trained(short)["best"]["top1"]


@pytest.mark.slow
def test_mlflow_shows_one_run_a_stage_linked_to_its_parent(project, monkeypatch):
    from mlflow.tracking import MlflowClient

    from recu.tracking.store import prepare_store

    project.tracking_uri = f"sqlite:///{project.folder}/mlflow.db"
    # A training this short may be over before a busy machine has made the store.
    prepare_store(project.tracking_uri, ["tests"])
    vanilla = project.experiment()
    finetune = project.experiment("finetune", parent=vanilla)
    epoch = Trainer._epoch

    def once(trainer, stop, progress):
        row = epoch(trainer, stop, progress)
        os.kill(os.getpid(), signal.SIGTERM)
        return row

    monkeypatch.setattr(Trainer, "_epoch", once)
    with pytest.raises(Interrupted):
        project.train(vanilla)
    client = MlflowClient(project.tracking_uri)
    (store,) = client.search_experiments(filter_string="name = 'tests'")
    (run,) = client.search_runs([store.experiment_id])
    assert run.info.status == "KILLED"
    monkeypatch.setattr(Trainer, "_epoch", epoch)
    metrics = project.train(vanilla)
    assert metrics["mlflow_run_id"] == run.info.run_id
    project.train(finetune)
    project.evaluate(vanilla)
    runs = {run.info.run_name.partition(" | ")[2]: run for run in client.search_runs([store.experiment_id])}
    name = "cifar.resnet20_1w1a vanilla seed1"
    assert set(runs) == {name, f"{name} evaluate", "cifar.resnet20_1w1a finetune seed1"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for child in (f"{name} evaluate", "cifar.resnet20_1w1a finetune seed1"):
        assert runs[child].data.tags["mlflow.parentRunId"] == run.info.run_id
    steps = [entry.step for entry in client.get_metric_history(run.info.run_id, "test/top1")]
    assert steps == [0, 1]
    assert runs[name].data.params["lr"] == "0.1"
    assert runs[name].data.tags["data_fingerprint"] == metrics["data_fingerprint"]
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert artifacts == {"model_best.pth.tar", "experiment.json", "train.log"}
    checkpoint = paths.train_folder(project.results, vanilla.id) / paths.BEST_CHECKPOINT
    assert checkpoint.stat().st_nlink == 3, "results/, runs/ and the store name one file"


def test_a_teacher_of_other_classes_is_refused(tmp_path):
    """Its answers would be taken for those of other classes."""
    classes = [f"class{label}" for label in range(6)]
    file = tmp_path / "teacher.pth.tar"
    torch.save(ours.our_checkpoint(ours.experiment(), classes=classes), file)
    assert not Teacher(name=str(file)).build(classes).network.training
    with pytest.raises(CheckpointError, match="class 'class0' as label 0, which is 'CLASS5' in the data"):
        Teacher(name=str(file)).build(["CLASS5", *classes[:-1]])


def test_a_job_of_limited_time_does_not_wait_for_long(project, monkeypatch):
    experiment = project.experiment()
    monkeypatch.setattr(module, "_MOST_WAIT_S", 0.2)
    project.end_time = time.time() + 3600
    with only_one(project.runs / experiment.id, "x"), pytest.raises(BusyError, match=r"is in use by process \d+ on"):
        project.train(experiment)
    assert BusyError.exit_code == 75


def test_a_job_saves_before_its_time_is_over_and_continues_to_the_same_bits(project):
    experiment = project.experiment()
    whole = project.train(experiment)["checkpoint_sha256"]
    shutil.rmtree(project.runs)
    shutil.rmtree(project.results / "train")
    project.end_time = 1.0
    for _ in range(3):
        with pytest.raises(Interrupted, match="stopped by the time limit"):
            project.train(experiment)
    project.end_time = 0.0
    metrics = project.train(experiment)
    assert metrics["checkpoint_sha256"] == whole and len(metrics["segments"]) == 4


@pytest.mark.slow
def test_two_schedulers_where_locks_exclude_nobody_take_turns(project):
    """As on NFS with local_lock: both get the lock of the file system, and one of them is told of the other."""
    code = (
        "import fcntl, sys; fcntl.flock = lambda *_: None; from recu.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    experiments = project.experiment(epochs=3), project.experiment(epochs=2)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, *_command(project, experiment)[3:]], stderr=subprocess.PIPE, text=True
        )
        for experiment in experiments
    ]
    said = [process.communicate(timeout=200)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    (waited,) = (number for number, text in enumerate(said) if "is in use by process" in text)
    metrics = project.trained(experiments[waited])
    assert metrics["spec_hash"] == experiments[waited].spec_hash, "the last one's, whole"
    best = hash_file(_folder(project, experiments[waited]) / paths.BEST_CHECKPOINT)
    assert metrics["checkpoint_sha256"] == best
