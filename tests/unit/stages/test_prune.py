"""What is found to be needed by nothing, and what removing it leaves."""

import os
import shutil
import subprocess

import pytest

from recu.base.errors import CheckpointError, OutputError
from recu.base.files import _host, hash_file
from recu.base.lock import only_one
from recu.experiment import paths
from recu.experiment.params import load_config
from recu.kernels import machine_code
from recu.results.seal import write_sealed_json
from recu.stages.du import Disk, entries
from recu.stages.prune import freed, spares
from recu.training.checkpoint import previous_of


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _disk(project, **more) -> Disk:
    config = load_config(project.params)
    places = {"results_dir": project.results, "runs_dir": project.runs, "reports_dir": project.folder / "reports"}
    places |= {"data_dir": project.data_dir, "tracking_uri": f"sqlite:///{project.folder}/mlflow.db"}
    update = {name: str(place) for name, place in places.items()} | more
    return Disk(project.params, config.model_copy(update=update))


def _whys(disk) -> list[str]:
    return [spare.why for spare in spares(disk)]


@pytest.fixture
def kept(project):
    """A finished training that was told to keep its state."""
    project.keep_resumable = True
    experiment = project.experiment(epochs=1)
    project.train(experiment)
    return experiment


@pytest.fixture
def left(project):
    """A finished training whose job was killed before it freed the state."""
    return _left(project)


def _left(project):
    experiment = project.experiment(epochs=1)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("recu.stages.train._free", _killed)
        project.train(experiment)
    return experiment


def _killed(*_) -> None:
    raise KeyboardInterrupt


def test_a_state_that_was_to_be_kept_stays_whatever_params_says_now(project, kept):
    saved = project.results / "some/run"
    shutil.copytree(project.state(kept), saved)
    assert _whys(_disk(project)) == []
    for state in (saved, project.state(kept)):
        (state / paths.RUN).unlink()
    assert _whys(_disk(project)) == [], "the best checkpoint has the optimiser's state"


def test_a_training_that_was_told_to_keep_its_state_and_killed_at_its_end_keeps_it(project):
    project.keep_resumable = True
    assert project.state(_left(project)).exists() and _whys(_disk(project)) == []


def test_the_state_of_a_finished_training_goes_and_the_rest_stays(project, left):
    state, published = project.state(left), paths.train_folder(project.results, left.id)
    before = sum(file.stat().st_size for file in state.glob("checkpoint*"))
    assert _whys(_disk(project, keep_resumable=True)) == []
    (spare,) = spares(_disk(project))
    assert spare.why.startswith("the state of a finished training") and spare.bytes == before
    with only_one(state.parent, "x"), pytest.raises(OutputError, match=r"is in use by process \d+ on"):
        spare.free()
    assert (state / paths.CHECKPOINT).exists()
    spare.free()
    names = [paths.METRICS, paths.BEST_CHECKPOINT, paths.RUN, paths.LOG]
    assert sorted(file.name for file in state.iterdir())[-4:] == names
    assert project.trained(left)["checkpoint_sha256"] == hash_file(published / paths.BEST_CHECKPOINT)
    assert spares(_disk(project)) == []


def test_of_trainings_of_the_command_line_the_finished_ones_lose_their_state(project, left):
    """One that goes on beyond what its metrics.json tells of keeps it."""
    saved = project.results / "some/run"
    shutil.copytree(project.state(left), saved)
    shutil.rmtree(project.runs)
    (spare,) = spares(_disk(project))
    metrics = (saved / paths.METRICS).read_bytes()
    write_sealed_json(saved / paths.METRICS, project.trained(left) | {"epochs": 2})
    with pytest.raises(CheckpointError, match="its training is not the finished one of"):
        spare.free()
    (saved / paths.METRICS).write_bytes(metrics)
    spare.free()
    assert not list(saved.glob("checkpoint*")) and (saved / paths.BEST_CHECKPOINT).exists()


def test_states_and_copies_of_an_earlier_version_become_one_copy(project, left):
    state, published = project.state(left), paths.train_folder(project.results, left.id)
    (state / paths.METRICS).unlink()
    copy = published / "copy"
    shutil.copy(published / paths.BEST_CHECKPOINT, copy)
    copy.replace(published / paths.BEST_CHECKPOINT)
    for spare in spares(_disk(project)):
        spare.free()
    assert (published / paths.BEST_CHECKPOINT).samefile(state / paths.BEST_CHECKPOINT)
    assert (state / paths.METRICS).exists() and not list(state.glob("checkpoint*"))
    shutil.rmtree(published)
    assert project.train(left)["epochs"] == 1, "it is published again"


@pytest.mark.parametrize("altered", [paths.BEST_CHECKPOINT, paths.METRICS, paths.CHECKPOINT])
def test_a_state_is_kept_where_anything_else_of_its_training_is_not_whole(project, left, altered):
    state = project.state(left)
    for folder in (state, paths.train_folder(project.results, left.id)):
        if (folder / altered).exists():
            (folder / altered).write_bytes((folder / altered).read_bytes().replace(b'"epochs": 1', b'"epochs": 9')[:-9])
    for spare in spares(_disk(project)):
        if spare.path.name == paths.CHECKPOINT:
            with pytest.raises(Exception, match=r"is kept|was altered|is not the checkpoint|valid JSON"):
                spare.free()
    assert (state / paths.CHECKPOINT).exists()


def test_a_training_that_goes_on_after_a_finished_one_keeps_its_state(project, left):
    """Other data begin anew in the same folder, while the earlier result still stands."""
    state = project.state(left)
    (state / paths.METRICS).unlink()
    published = paths.train_folder(project.results, left.id)
    write_sealed_json(published / paths.METRICS, project.trained(left) | {"data_fingerprint": "0" * 64})
    (spare,) = [each for each in spares(_disk(project)) if each.path.name == paths.CHECKPOINT]
    with pytest.raises(CheckpointError, match="its training is not the finished one of"):
        spare.free()
    assert (state / paths.CHECKPOINT).exists()


def test_of_an_interrupted_training_only_what_stands_beside_a_whole_checkpoint_goes(project, kept):
    state = project.state(kept)
    project.params = shutil.copytree(project.params, project.folder / "params")
    shutil.rmtree(project.results)
    (state / paths.METRICS).unlink()
    disk = _disk(project)
    disk.__dict__["experiments"] = {kept.id: kept}
    shutil.copy(state / paths.CHECKPOINT, previous_of(state / paths.CHECKPOINT))
    (spare,) = spares(disk)
    assert spare.path == previous_of(state / paths.CHECKPOINT)
    whole = (state / paths.CHECKPOINT).read_bytes()
    (state / paths.CHECKPOINT).write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        spare.free()
    assert spare.path.exists()
    (state / paths.CHECKPOINT).write_bytes(whole)
    spare.free()
    assert not spare.path.exists() and (state / paths.CHECKPOINT).exists() and spares(disk) == []


def test_a_file_that_vanishes_meanwhile_counts_for_nothing(project, monkeypatch):
    folder = _state(project, "0" * 16)
    walk = os.walk

    def walk_while_a_job_runs(*how, **more):
        for where, folders, files in walk(*how, **more):
            yield where, folders, [*files, "metrics.json.part"]

    monkeypatch.setattr("recu.stages.du.os.walk", walk_while_a_job_runs)
    disk = _disk(project)
    (entry,) = [each for each in entries(disk) if each.place == "runs"]
    assert (entry.path, entry.bytes) == (folder, 1000)
    (spare,) = [each for each in spares(disk) if each.path == folder]
    shutil.rmtree(folder)
    assert spare.bytes == 0


def _state(project, name: str, identifier: str = "gone/tiny/cifar.resnet20_1w1a/vanilla/seed1"):
    folder = project.runs / identifier / name
    folder.mkdir(parents=True)
    (folder / paths.CHECKPOINT).write_bytes(bytes(1000))
    (folder / paths.HISTORY).write_text("")
    return folder


def test_states_that_params_does_not_have_go_and_nothing_else_in_runs(project):
    abandoned = [_state(project, name) for name in ("0" * 16, f"{'1' * 16}-aside", f"{'2' * 16}.old")]
    other = project.runs / "gone/notes"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    found = spares(_disk(project))
    assert sorted(spare.path for spare in found) == sorted(abandoned) and all(spare.bytes == 1000 for spare in found)
    for spare in found:
        spare.free()
    assert (other / "notes.txt").exists() and not any(folder.exists() for folder in abandoned)


def test_what_params_names_stays_wherever_it_lies(project):
    """A released file that a table rests on, and a teacher's weights, in the state of what params/ has no more."""
    project.params = shutil.copytree(project.params, project.folder / "params")
    measured, teacher, link, gone = (_state(project, digit * 16) for digit in "0123")
    (link / "file.pth").symlink_to(teacher / paths.CHECKPOINT)
    files = "".join(
        f"  - {{name: f{number}, path: {file}, model: resnet20_1w1a, method: vanilla, claimed_top1: 1, obtain: x}}\n"
        for number, file in enumerate((measured / paths.CHECKPOINT, link / "file.pth"))
    )
    text = f"title: Mine\ndescription: Of mine.\ndataset: digits\nfiles:\n{files}"
    (project.params / "suites/mine.yaml").write_text(text)
    disk = _disk(project, teacher_weights=str(teacher / paths.CHECKPOINT))
    assert [spare.path for spare in spares(disk)] == [gone]
    needed = {entry.path.name: entry.needed_by for entry in entries(disk) if entry.place == "runs"}
    assert needed["0" * 16] == ("suite mine",) and needed["3" * 16] == ()


def test_what_git_tracks_stays(project):
    folder = _state(project, "0" * 16)
    for words in (["init", "-q"], ["add", "-f", str(folder / paths.HISTORY)]):
        subprocess.run(["git", "-C", str(project.folder), *words], check=True)
    assert spares(_disk(project)) == []


def test_files_of_killed_jobs_and_loops_of_other_code_go(project, caches):
    project.results.mkdir()
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, alive, elsewhere = (
        project.results / f".metrics.json.{host}-{process}-00000000.part"
        for host, process in ((_host(), dead.pid), (_host(), os.getpid()), ("0" * 8, dead.pid))
    )
    for file in (left, alive, elsewhere):
        file.write_text("half")
    old, own = caches / "recu-0123456789abcdef", caches / f"recu-{machine_code.source_hash()}"
    for folder in (old, own, caches / "recu-mine"):
        folder.mkdir(parents=True, mode=0o700)
        (folder / "loop.nbc").write_text("code")
    found = spares(_disk(project))
    assert [(spare.path, spare.bytes) for spare in found] == [(left, 4), (old, 4)]
    for spare in found:
        spare.free()
    assert alive.exists() and elsewhere.exists() and own.exists() and (caches / "recu-mine").exists()


def test_everything_on_disk_is_told_once_with_what_needs_it(project, left):
    disk = _disk(project)
    project.evaluate(left)
    run = project.folder / "mlartifacts/1/run7/artifacts"
    run.mkdir(parents=True)
    os.link(paths.train_folder(project.results, left.id) / paths.BEST_CHECKPOINT, run / paths.BEST_CHECKPOINT)
    (run / "train.log").write_text("log")
    _state(project, "0" * 16)
    _state(project, f"{'0' * 16}/evaluate")
    disk.__dict__["experiments"] = {left.id: left, **{left.id + "0": project.experiment("finetune", parent=left)}}
    found = {(entry.place, entry.name): entry for entry in entries(disk)}
    state = found["runs", f"{left.id}/{left.spec_hash}"]
    result = found["results", f"train/{left.id}"]
    assert result.needed_by == ("suite tests", f"start of {project.experiment('finetune', parent=left).id}")
    assert state.needed_by == (f"publishing {left.id} again",)
    assert found["runs", f"{left.id}/{left.spec_hash}/evaluate"].needed_by == ("recu sync",)
    gone = f"gone/tiny/cifar.resnet20_1w1a/vanilla/seed1/{'0' * 16}"
    assert found["runs", gone].needed_by == found["runs", f"{gone}/evaluate"].needed_by == ()
    assert found["mlartifacts", "1/run7"].bytes == 3, "the checkpoint is counted where it is published"
    assert found["data", "tiny"].needed_by == ("suite tests",)
    on_disk = {
        file.lstat().st_ino: file.lstat().st_size
        for root in (project.results, project.runs, project.folder / "mlartifacts", project.data_dir)
        for file in root.rglob("*")
        if file.is_file() and ".lock" not in file.name
    }
    assert sum(entry.bytes for entry in found.values()) == sum(on_disk.values())
    checkpoints = project.state(left).glob("checkpoint*")
    assert freed(spares(disk), state.path) == sum(file.stat().st_size for file in checkpoints)
