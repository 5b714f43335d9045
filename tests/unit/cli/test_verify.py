"""`recu verify`: what tables rest on, and whatever is stale or was altered."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy
import pytest
import torch

from recu.base.files import hash_file
from recu.cli.main import main
from recu.data import open_prepared
from recu.data.manifest import digest_of_arrays, fingerprint_of
from recu.experiment import params, paths, plan
from recu.experiment.released import load_released
from recu.experiment.resolving import load_experiments
from recu.experiment.running import Running
from recu.models import build_model
from recu.report import figures
from recu.results import provenance
from recu.results.seal import SEAL, write_sealed_json
from recu.stages.evaluate import evaluate
from recu.stages.prepare import prepare
from recu.stages.publish import publish_released
from recu.stages.report import collect, render
from recu.stages.train import train
from recu.stages.verify import _Shared, _SuiteVerifier, grounds_of
from recu.verify.grounds import Places
from tests.unit.results.made import packed, speed

SUITE = """
title: Smallest
description: Verified.
dataset: tiny
seeds: [1]
hyperparameters: {batch_size: 16, warm_up: false}
methods:
  vanilla: {epochs: 1}
  finetune: {epochs: 1}
rows:
  - model: resnet20_1w1a
"""
GIVEN = """
title: Given
description: A file that somebody gave.
dataset: tiny
files:
  - name: best
    path: given.pth.tar
    model: resnet20_1w1a
    method: vanilla
    claimed_top1: 50.0
    obtain: ask
"""
NETWORK = "smallest/tiny/cifar.resnet20_1w1a"


@pytest.fixture(scope="module", autouse=True)
def same_code():
    """A file of the package that is edited while the tests run must not make results old."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "code_hash", lambda package: "c" * 64)
        yield


@pytest.fixture(scope="module", autouse=True)
def nothing_is_drawn():
    """Seconds for each test; that equal results give equal figures is a test of the report's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "_saved", lambda _draw, form, *_, **__: f"<svg>{form}</svg>".encode())
        yield


@pytest.fixture(scope="module")
def published(tiny_project, tmp_path_factory) -> Path:
    """A complete project, made once; tests work on copies."""
    folder = tmp_path_factory.mktemp("verified")
    shutil.copytree(tiny_project / "params", folder / "params")
    for file in (folder / "params/suites").iterdir():
        file.unlink()
    (folder / "params/suites/smallest.yaml").write_text(SUITE)
    config = folder / "params/config.yaml"
    config.write_text(config.read_text().replace("suites: demo", "suites: smallest"))
    datasets = params.load_datasets(folder / "params")
    copy = paths.manifest_file(folder / "results", "tiny")
    source = tiny_project / "images"
    prepared = prepare("tiny", datasets["tiny"], data_dir=folder / "data", source=source, workers=0, output=copy)
    experiments = load_experiments(folder / "params", ("smallest",))
    for experiment in experiments.values():
        for stage in (train, evaluate):
            stage(
                experiment,
                dataset=datasets["tiny"],
                prepared=prepared,
                results_dir=folder / "results",
                runs_dir=folder / "runs",
                running=Running(gpus="cpu", workers=0),
            )
    suite = params.load_suite(folder / "params", "smallest")
    methods = params.load_defaults(folder / "params").methods
    facts = plan.suite_facts("smallest", suite, experiments, datasets, methods)
    rows = paths.rows_file(folder / "results", "smallest")
    collect(facts.experiments, folder / "results", folder / "runs", rows)
    numbers = params.load_published(folder / "params")
    render(rows, facts, numbers, folder / "reports")
    shutil.copy(folder / _metrics("train").with_name(paths.BEST_CHECKPOINT), folder / "given.pth.tar")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # the released file's path is relative
        _measure_released(datasets, numbers)
    return folder


def _measure_released(datasets, numbers) -> None:
    (Path("params/suites/given.yaml")).write_text(GIVEN)
    results = Path("results")
    released = load_released(Path("params"), ("given",), results)
    (file,) = released.values()
    _publish_and_measure(file, datasets)
    suite = params.load_suites(Path("params"), ("given",))["given"]
    facts, rows = plan.suite_facts("given", suite, released, datasets, {}), paths.rows_file(results, "given")
    collect(facts.experiments, results, Path("runs"), rows)
    render(rows, facts, numbers, Path("reports"))


def _publish_and_measure(file, datasets) -> None:
    results = Path("results")
    publish_released(file, dataset=datasets["tiny"], results_dir=results)
    evaluate(
        file,
        dataset=datasets["tiny"],
        prepared=open_prepared(Path("data/tiny"), datasets["tiny"]),
        results_dir=results,
        runs_dir=Path("runs"),
        running=Running(gpus="cpu", workers=0),
    )


@pytest.fixture
def project(published, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "project"
    shutil.copytree(published, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def verify(capsys):
    def call(*words):
        code = main(["verify", *words])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out + err

    return call


def _metrics(stage: str, method: str = "vanilla") -> Path:
    return Path(f"results/{stage}/{NETWORK}/{method}/seed1/metrics.json")


def _edit(file: Path, change, *, seal: bool = False) -> None:
    content = json.loads(file.read_text())
    change(content)
    if seal:
        write_sealed_json(file, content)
    else:
        file.write_text(json.dumps(content))


def test_what_was_just_made_is_good_and_every_cell_names_what_it_rests_on(project, verify):
    code, shown = verify("--output", "found.json", "--strict")
    assert code == 0, shown
    # Two trainings, two evaluations, the rows, eleven rendered files and the data; a released file, its evaluation,
    # the rows and five rendered files.
    assert "29 good, 0 missing, 0 stale, 0 altered" in shown
    found = json.loads(Path("found.json").read_text())
    assert found["good"] is True
    given, suite = sorted(found["suites"], key=lambda suite: suite["name"])
    assert given["grounds"][0]["top1"] == suite["grounds"][0]["top1"], "it is the same file"
    assert [ground["method"] for ground in suite["grounds"]] == ["vanilla", "finetune"]
    for ground in suite["grounds"]:
        trained = json.loads(_metrics("train", ground["method"]).read_text())
        measured = json.loads(_metrics("evaluate", ground["method"]).read_text())
        assert ground["checkpoint_sha256"] == trained["checkpoint_sha256"]
        assert (ground["spec_hash"], ground["top1"]) == (trained["spec_hash"], measured["top1"])
        for name in ("git_commit", "code_hash", "environment_hash"):
            assert ground[name] == trained["provenance"][name]
        assert ground["data_fingerprint"] == trained["data_fingerprint"]
        for name in ("checkpoint_sha256", "data_fingerprint", "environment_hash"):
            assert ground[name][:12] in shown


def test_nothing_published_is_no_fault(project, verify):
    shutil.rmtree("results")
    shutil.rmtree("reports")
    code, shown = verify()
    assert code == 0 and "no results yet: given, smallest" in shown


def test_another_released_file_or_an_edited_measurement_is_found(project, verify):
    measured, published = (Path(f"results/{stage}/given/best/metrics.json") for stage in ("evaluate", "train"))
    _edit(measured, _set("loss", 0.001))
    code, shown = verify("given")
    assert code == 4 and f"altered: {measured}: was altered" in shown
    assert "stale: results/report/given/rows.json: cannot be collected again" in shown
    Path("given.pth.tar").unlink()
    Path("given.pth.tar").write_bytes(b"another file")
    code, shown = verify("given")
    assert code == 4 and f"stale: {published}: other parameters: sha256 " in shown
    assert f"stale: {measured}" in shown or f"altered: {measured}" in shown
    _edit(published, lambda content: content["released"].__setitem__("claimed_top1", 99.0), seal=True)
    code, shown = verify("given")
    assert code == 4 and f"altered: {published}: its parameters do not give its spec_hash" in shown


OWN = "from recu.binarisers.sign import SignConv2d as Own\n"


def test_users_code_behind_a_released_file_and_behind_a_teacher_is_looked_at(project, verify, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (before,) = load_released(Path("params"), ("given",), Path("results")).values()
    assert "binariser" not in before.canonical, "hashes of entries that name none stay as they were"
    (project / "own_given.py").write_text(OWN)
    network = build_model("resnet20_1w1a", family="cifar", num_classes=6, binariser="own_given:Own")
    torch.save({"state_dict": network.state_dict()}, "given.pth.tar")
    shutil.rmtree("results/train/given")
    (project / "params/suites/given.yaml").write_text(GIVEN + "    binariser: own_given:Own\n    stage: 2\n")
    datasets = params.load_datasets(project / "params")
    (file,) = load_released(Path("params"), ("given",), Path("results")).values()
    _publish_and_measure(file, datasets)
    places = Places(
        params_dir=Path("params"),
        data_dir=Path("data"),
        results_dir=Path("results"),
        runs_dir=Path("runs"),
        reports_dir=Path("reports"),
    )
    assert "made by other code" not in verify("given")[1]
    (project / "own_given.py").write_text(OWN + "# changed\n")
    assert "made by other code" in verify("given")[1]
    (ground,) = grounds_of(places, "given")
    assert all("made by other code" in each.notes[0] for each in (ground.training, ground.evaluation))
    teacher = "  - {model: resnet20_1w1a, methods: {vanilla: {binariser: own_given:Own}}}\n"
    student = "  - {model: resnet20_1w1a, name: taught, methods: {vanilla: {teacher: cifar.resnet20_1w1a/vanilla}}}\n"
    text = SUITE[: SUITE.index("rows:")].replace("  finetune: {epochs: 1}\n", "") + "rows:\n" + teacher + student
    (project / "params/suites/taught.yaml").write_text(text)
    verifier = _SuiteVerifier(_Shared(places), "taught", params.load_suite(Path("params"), "taught"))
    own = [verifier._own_of_training(each, each.hyperparameters.binariser) for each in verifier._experiments.values()]
    assert [[code.name for code in each] for each in own] == [["own_given.py"], ["own_given.py"]]


def test_the_table_of_a_released_file_outlives_the_file(project, verify):
    Path("given.pth.tar").unlink()
    code, shown = verify("--strict")
    assert code == 0 and "29 good" in shown, "its content lies among the results"


def test_a_released_file_of_which_nothing_is_left_has_to_be_put_back(project, verify):
    published = Path("results/train/given/best/model_best.pth.tar")
    for file in (Path("given.pth.tar"), published):
        file.unlink()
    code, shown = verify("--strict", "given")
    metrics = published.with_name("metrics.json")
    assert code == 4 and f"missing: {metrics}: the checkpoint beside it is not there" in shown
    back = "put the released file back: given.pth.tar (`obtain` in params/suites/given.yaml); then `snakemake"
    assert back in shown and f"--forcerun {metrics}" in shown


def _set(key, value):
    return lambda content: content.__setitem__(key, value)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (_metrics("train"), lambda m: m["best"].__setitem__("top1", 99.9), "was altered after it was published"),
        (_metrics("train"), lambda m: m.pop(SEAL), "has no content_sha256"),
        (_metrics("evaluate", "finetune"), _set("loss", 0.001), "was altered after it was published"),
        (_metrics("evaluate"), lambda m: m.clear(), "is not of the expected form"),
        (Path("results/report/smallest/rows.json"), lambda m: m["rows"].pop(), "was altered after it was published"),
    ],
)  # fmt: skip
def test_an_edited_file_is_named(project, verify, file, change, message):
    _edit(file, change)
    code, shown = verify()
    assert code == 4
    assert any(line.startswith(f"altered: {file}: ") and message in line for line in shown.splitlines()), shown


@pytest.mark.parametrize("name", [*(f"smallest.{form}" for form in plan.TABLE_FORMATS), "figures/smallest/classes.png"])
def test_an_edited_report_is_named(project, verify, name):
    file = Path("reports") / name
    file.write_bytes(file.read_bytes() + b" ")
    code, shown = verify()
    assert code == 4 and f"altered: {file}: is not what results/report/smallest/rows.json gives" in shown


@pytest.fixture
def packed_project(project):
    """One whose table lists packed files and their speeds."""
    for method in ("vanilla", "finetune"):
        train, exported = json.loads(_metrics("train", method).read_text()), _metrics("export", method)
        exported.parent.mkdir(parents=True)
        exported.with_name(paths.PACKED).write_bytes(method.encode())
        digest = hash_file(exported.with_name(paths.PACKED))
        write_sealed_json(exported, packed(train, packed_sha256=digest))
        write_sealed_json(_metrics("speed", method), speed(train, packed_sha256=digest))
    folder, rows = Path("params"), paths.rows_file(Path("results"), "smallest")
    planned = plan.load_plan(folder, params.load_config(folder), ("smallest",))
    facts = planned.facts()["smallest"]
    collect(facts.experiments, Path("results"), Path("runs"), rows, speed=True)
    render(rows, facts, planned.published, Path("reports"))
    return project


def _other_bytes(file: Path) -> None:
    file.write_bytes(b"other")


@pytest.mark.parametrize(
    ("subject", "harm", "status", "why"),
    [
        ("export", lambda file: file.with_name(paths.PACKED).unlink(), "missing", "packed file beside it is not there"),
        ("export", lambda file: _other_bytes(file.with_name(paths.PACKED)), "altered", "beside it is another than the"),
        ("export", lambda file: _edit(file, _set("other_class", 0)), "altered", "was altered after"),
        ("export", lambda file: _edit(file, _set("checkpoint_sha256", "0"), seal=True), "stale", "another checkpoint"),
        ("speed", lambda file: _edit(file, _set("packed_sha256", "0"), seal=True), "stale", "another packed file"),
        ("speed", lambda file: _edit(file, _set("threads", 9)), "altered", "was altered after"),
        ("speed", lambda file: file.unlink(), "missing", "not there, though .* rests on it"),
    ],
)  # fmt: skip
def test_packed_files_and_speeds_behind_a_table_are_judged(packed_project, verify, subject, harm, status, why):
    file, words = _metrics(subject), "--config suites=smallest packed=true benchmark=true --forcerun "
    code, shown = verify("smallest", "--strict")
    assert code == 0 and "25 good, 0 missing" in shown, shown
    harm(file)
    code, shown = verify("smallest", "--strict")
    assert code == 4 and re.search(rf"^{status}: {file}: .*{why}", shown, re.MULTILINE), shown
    assert re.search(rf"`snakemake --cores all {words}.*{file}", shown), shown


def test_a_table_that_lists_packed_files_is_made_again_with_them(packed_project, verify):
    Path("reports/smallest.csv").write_text("")
    code, shown = verify("smallest")
    assert code == 4
    assert "--config suites=smallest packed=true benchmark=true --forcerun reports/smallest.csv`" in shown


def test_tables_made_before_params_changed_are_stale_and_nothing_is_called_altered(project, verify):
    suite = Path("params/suites/smallest.yaml")
    suite.write_text(suite.read_text().replace("title: ", "title: Renamed "))
    code, shown = verify()
    assert code == 4 and "0 altered" in shown
    for form in ("json", "md", "html"):
        assert (
            f"stale: reports/smallest.{form}: is not what results/report/smallest/rows.json and params/ give" in shown
        )


def test_another_checkpoint_is_found_in_the_training_its_evaluation_and_its_child(project, verify):
    file = _metrics("train").with_name(paths.BEST_CHECKPOINT)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    code, shown = verify()
    assert code == 4
    assert f"altered: {_metrics('train')}: the checkpoint beside it is another" in shown
    assert f"stale: {_metrics('evaluate')}: measured another checkpoint" in shown
    assert f"stale: {_metrics('train', 'finetune')}: rests on another checkpoint of its parent" in shown


def test_a_missing_checkpoint_is_missing(project, verify):
    _metrics("train", "finetune").with_name(paths.BEST_CHECKPOINT).unlink()
    code, shown = verify()
    assert "the checkpoint beside it is not there" in shown and "1 missing" in shown
    assert code == 0, "not there is neither stale nor altered"
    assert f"--forcerun {_metrics('train', 'finetune')}`" in shown
    assert verify("--strict")[0] == 4


@pytest.mark.parametrize(
    "gone",
    [
        _metrics("train"), _metrics("train", "finetune"), _metrics("evaluate"),
        Path("results/train/given/best/metrics.json"), Path("results/report/given/rows.json"),
        Path("results/report/smallest/rows.json"), Path("results/prepare/tiny/manifest.json"),
        Path("reports/smallest.csv"), Path("results/evaluate/given/best/metrics.json"),
    ],
)  # fmt: skip
def test_what_others_rest_on_is_missed_by_strict(project, verify, gone):
    gone.unlink()
    code, shown = verify("--strict")
    assert code == 4 and "1 missing that others rest on" in shown, shown
    assert any(line.startswith("missing: ") and str(gone) in line for line in shown.splitlines()), shown
    assert f"--forcerun {gone}" in shown


def test_a_suite_that_is_being_made_is_complete_so_far(project, verify):
    shutil.rmtree("reports")
    for file in (_metrics("train", "finetune"), _metrics("evaluate", "finetune"), _metrics("evaluate")):
        file.unlink()
    Path("results/report/smallest/rows.json").unlink()
    code, shown = verify("--strict", "smallest")
    assert code == 0 and "19 missing" in shown, shown


def test_every_piece_of_a_training_is_judged(project, verify):
    def cut(metrics):
        (piece,) = metrics["segments"]
        old = piece["provenance"] | {"code_hash": "0" * 64}
        metrics["segments"] = [piece | {"provenance": old}, piece | {"from_epoch": 1, "to_epoch": 3}]

    _edit(_metrics("train", "finetune"), cut, seal=True)
    code, shown = verify("--strict", "smallest")
    assert "made by other code of the same recipe version (000000000000) in epoch 1" in shown
    assert "in epochs 1 to 3" not in shown
    assert code == 4 and f"`mv {_state('finetune')} {_state('finetune')}.old && snakemake" in shown


def test_pieces_of_other_parameters_are_stale(project, verify):
    def cut(metrics):
        (piece,) = metrics["segments"]
        metrics["segments"] = [piece | {"spec_hash": "0" * 16}, piece | {"from_epoch": 1, "to_epoch": 3}]

    _edit(_metrics("train", "finetune"), cut, seal=True)
    code, shown = verify("smallest")
    assert (
        code == 4 and "stale: " in shown and "trained with other parameters (hash 0000000000000000) in epoch 1" in shown
    )
    assert f"mv {_state('finetune')} " in shown


def test_a_provenance_that_is_not_that_of_the_last_epochs_is_altered(project, verify):
    _edit(_metrics("train"), lambda m: m["provenance"].__setitem__("git_commit", "0" * 40), seal=True)
    code, shown = verify("smallest")
    assert code == 4 and "altered: " in shown and "its provenance is not that of its last epochs" in shown


def _state(method):
    metrics = json.loads(_metrics("train", method).read_text())
    return paths.state_folder(Path("runs"), metrics["experiment"]["id"], metrics["spec_hash"])


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"3", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"experiment": 1}', b'{"top1": NaN}'],
)
def test_files_of_any_content_are_altered_and_never_a_traceback(project, verify, content):
    results = Path("results")
    rows, copy = paths.rows_file(results, "smallest"), paths.manifest_file(results, "tiny")
    for file in (_metrics("train"), _metrics("evaluate"), rows, copy, *results.glob("*/given/best/metrics.json")):
        file.write_bytes(content)
    code, shown = verify("--output", "found.json")
    assert code == 4 and "error: " in shown and shown.count("error: ") == 1
    assert f"altered: {_metrics('train')}: is not of the expected form" in shown


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("value", [5, None, [1], []])
def test_rows_of_another_form_are_altered_and_never_a_traceback(project, verify, value, sealed):
    rows = paths.rows_file(Path("results"), "smallest")
    _edit(rows, _set("rows", value), seal=sealed)
    code, shown = verify("smallest")
    assert code == 4 and f"altered: {rows}: " in shown and f"--forcerun {rows}" in shown


@pytest.mark.parametrize("value", [None, 3, {"\x1b": 1e400}])
@pytest.mark.parametrize("key", ["experiment", "data_fingerprint", "provenance", "parent", "segments", "spec_hash"])
def test_values_of_any_kind_are_no_traceback(project, verify, key, value):
    file = _metrics("train", "finetune")
    _edit(file, _set(key, value))
    code, shown = verify("--output", "found.json")
    assert code == 4 and f"altered: {file}" in shown and "\x1b" not in shown


def test_without_the_folder_of_states_nothing_differs(project, verify):
    shutil.rmtree("runs")
    assert verify("--strict")[0] == 0


def test_results_of_a_suite_that_is_gone_are_a_note(project, verify):
    Path("params/suites/given.yaml").unlink()
    code, shown = verify()
    for stage in ("train", "evaluate"):
        assert code == 0 and f"note: results/{stage}/given/best/metrics.json belongs to no experiment" in shown


def test_a_measurement_of_an_earlier_version_is_a_note(project, verify):
    Path("results/released/given/best").mkdir(parents=True)
    Path("results/released/given/best/metrics.json").write_text("{}")
    code, shown = verify("given")
    assert code == 0 and "note: results/released/given/best/metrics.json belongs to no experiment" in shown


def test_more_than_a_line_holds_is_named_by_rules(project, verify, monkeypatch):
    monkeypatch.setattr("recu.verify.mending._MOST_FILES", 1)
    _edit(_metrics("evaluate"), _set("loss", 0.001))
    Path("reports/smallest.md").write_text("")
    code, shown = verify()
    assert code == 4 and "--config suites=smallest --forcerun evaluate collect report`" in shown


def test_other_parameters_name_what_changed(project, verify):
    file = Path("params/suites/smallest.yaml")
    file.write_text(file.read_text().replace("finetune: {epochs: 1}", "finetune: {epochs: 3}"))
    code, shown = verify()
    assert code == 4
    assert f"stale: {_metrics('train', 'finetune')}: other parameters: hyperparameters.epochs 1 -> 3" in shown
    assert f"stale: {_metrics('train')}" not in shown, "the vanilla training is as it should be"
    assert "stale: results/report/smallest/rows.json: cannot be collected again" in shown


def test_a_raised_recipe_version_makes_everything_stale(project, verify):
    file = Path("params/defaults.yaml")
    before = json.loads(_metrics("train").read_text())["experiment"]["recipe_version"]
    text = file.read_text()
    assert f"recipe_version: {before}" in text
    file.write_text(text.replace(f"recipe_version: {before}", f"recipe_version: {before + 1}"))
    code, shown = verify()
    assert code == 4 and f"other parameters: recipe_version {before} -> {before + 1}" in shown


def test_other_data_is_found_from_its_manifest(project, verify):
    file = Path("data/tiny/manifest.json")
    other = json.loads(file.read_text())
    labels = file.with_name("test_labels.npy")
    numpy.save(labels, numpy.load(labels)[::-1])
    other["files"]["test_labels.npy"] = hash_file(labels)
    hashes = (other["files"][f"test_{part}.npy"] for part in ("images", "labels"))
    other["content"]["test"] = digest_of_arrays(other["classes"], *hashes)
    other["fingerprint"] = fingerprint_of(other["content"], other["identity"])
    file.write_text(json.dumps(other))
    code, shown = verify()
    assert code == 4 and "other data (fingerprint " in shown and f"now {other['fingerprint']:.12}" in shown


def test_prepared_data_that_was_altered_is_found(project, verify):
    file = Path("data/tiny/train_images.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    code, shown = verify()
    assert code == 4 and f"altered: data/tiny: {file} is no longer what was prepared" in shown


def test_another_environment_is_a_note_unless_strict(project, verify, monkeypatch):
    versions = provenance.package_versions()
    monkeypatch.setattr(provenance, "environment_hash", lambda: "e" * 16)
    monkeypatch.setattr(provenance, "package_versions", lambda: versions | {"torch": "9.9"})
    code, shown = verify("smallest")
    assert code == 0 and f"changed: torch {versions['torch']} -> 9.9)" in shown
    code, shown = verify("smallest", "--strict")
    assert code == 4 and "4 made by other code or in another environment" in shown
    assert "`mv runs/smallest runs/smallest.old && snakemake " in shown, "all of them anew"


def test_other_code_is_a_note_unless_strict(project, verify):
    def change(metrics):
        for origin in (metrics["provenance"], metrics["segments"][-1]["provenance"]):
            origin["code_hash"] = "0" * 64

    _edit(_metrics("train"), change, seal=True)
    code, shown = verify()
    assert "1 result made by other code of the same recipe version (000000000000)" in shown
    assert "altered: results/report/smallest/rows.json" in shown and code == 4, "its rows name the code too"
    code, shown = verify("--strict")
    assert code == 4 and "1 made by other code" in shown


def test_a_result_nobody_asks_for_is_a_note(project, verify):
    file = Path("results/train/smallest/tiny/cifar.resnet20_1w1a/other/seed1/metrics.json")
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    code, shown = verify()
    assert code == 0 and f"note: {file} belongs to no experiment" in shown
    (advised,) = re.findall(r"if nobody needs it, move (\S+) away", shown)
    shutil.move(advised, project / "away")
    assert "belongs to no experiment" not in verify()[1]


def test_an_unknown_suite_proposes_the_nearest(project, verify):
    code, shown = verify("smalest")
    assert code == 2 and "did you mean 'smallest'" in shown
