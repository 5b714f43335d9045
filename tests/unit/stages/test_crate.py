"""A suite as an RO-Crate: whole, described, refused where a result is not as it should be."""

import io
import json
import shutil
from pathlib import Path

import pytest

from recu.base.errors import ConfigError, OutputError, ResultError
from recu.base.files import hash_file, read_json
from recu.experiment import params, paths, plan
from recu.experiment.resolving import load_experiments
from recu.results.seal import write_sealed_json
from recu.stages.crate import write_crate
from recu.stages.report import collect, render
from tests.unit.results.made import packed, speed
from tests.unit.stages.test_pages import ID, SUITE, made, places, trained  # noqa: F401

rocrate = pytest.importorskip("rocrate", reason="needs the extra `crate`")
LICENCE = "https://spdx.org/licenses/CC-BY-4.0"


@pytest.fixture
def rendered(places):  # noqa: F811
    return with_tables(places)


def with_tables(places):  # noqa: F811
    config = params.load_config(places.params_dir)
    planned = plan.load_plan(places.params_dir, config, ("smallest",))
    rows = paths.rows_file(places.results_dir, "smallest")
    render(rows, planned.facts()["smallest"], planned.published, places.reports_dir)
    return places


def test_without_its_package_it_is_said_how_to_install_it(rendered, tmp_path, monkeypatch):
    monkeypatch.setattr("recu.base.needed.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"rocrate cannot be imported: .*pip install .*'\.\[crate\]'"):
        write_crate(rendered, "smallest", tmp_path / "crate", licence=LICENCE)


def described(folder: Path) -> dict[str, dict]:
    graph = json.loads((folder / "ro-crate-metadata.json").read_text())["@graph"]
    return {entity["@id"]: entity for entity in graph}


def test_every_file_is_copied_and_described_with_what_made_it(rendered, tmp_path):
    crate = tmp_path / "crates/smallest"
    count = write_crate(rendered, "smallest", crate, licence=LICENCE)
    entities = described(crate)
    files = {file.relative_to(crate).as_posix() for file in crate.rglob("*") if file.is_file()}
    assert files - {"ro-crate-metadata.json"} == {name for name, each in entities.items() if each["@type"] == "File"}
    assert len(files) == count + 1 and list(crate.parent.iterdir()) == [crate]
    checkpoint = f"results/train/{ID}/{paths.BEST_CHECKPOINT}"
    assert hash_file(crate / checkpoint) == hash_file(rendered.results_dir / f"train/{ID}" / paths.BEST_CHECKPOINT)
    training, evaluation = entities[f"#train/{ID}"], entities[f"#evaluate/{ID}"]
    assert {"@id": checkpoint} in training["result"] and {"@id": checkpoint} in evaluation["object"]
    assert evaluation["result"] == {"@id": f"results/evaluate/{ID}/{paths.METRICS}"}
    assert training["instrument"]["@id"] in entities and entities["./"]["license"] == LICENCE


def test_a_row_with_a_name_has_a_crate(tiny_project, prepared, tmp_path):
    suite = SUITE.replace("- model: resnet20_1w1a", "- {model: resnet20_1w1a, name: first}")
    crate, named = tmp_path / "crate", ID.replace("_1w1a", "_1w1a+first")
    write_crate(
        with_tables(trained(tmp_path / "made", tiny_project, prepared, suite)), "smallest", crate, licence=LICENCE
    )
    assert (crate / f"results/train/{named}" / paths.BEST_CHECKPOINT).is_file()
    assert described(crate)[f"#train/{named}"]


def test_manifests_packed_files_and_speeds_that_rows_rest_on_are_in_it(places, tmp_path):  # noqa: F811
    exported, timed = (places.results_dir / stage / ID / paths.METRICS for stage in ("export", "speed"))
    file = exported.with_name(paths.PACKED)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"packed")
    train = read_json(places.results_dir / "train" / ID / paths.METRICS)
    write_sealed_json(exported, packed(train, packed_sha256=hash_file(file)))
    write_sealed_json(timed, speed(train, packed_sha256=hash_file(file)))
    rows, planned = paths.rows_file(places.results_dir, "smallest"), load_experiments(places.params_dir, ("smallest",))
    collect([each.origin for each in planned.values()], places.results_dir, places.runs_dir, rows, speed=True)
    crate = tmp_path / "crate"
    write_crate(with_tables(places), "smallest", crate, licence=LICENCE)
    manifest = paths.manifest_file(places.results_dir, "tiny")
    for source in (exported, timed, file, manifest):
        copy = crate / "results" / source.relative_to(places.results_dir)
        assert copy.read_bytes() == source.read_bytes()
    entities = described(crate)
    assert entities[f"#speed/{ID}"]["object"] == {"@id": f"results/export/{ID}/{paths.PACKED}"}
    for action in ("train", "evaluate"):
        assert {"@id": "results/prepare/tiny/manifest.json"} in entities[f"#{action}/{ID}"]["object"]
    file.write_bytes(b"other")
    with pytest.raises(ResultError, match=r"export/.* is altered .*packed file beside it is another"):
        write_crate(places, "smallest", tmp_path / "other", licence=LICENCE)


@pytest.mark.parametrize(("harm", "status"), [("altered", "altered"), ("gone", "missing")])
def test_a_suite_of_which_the_data_is_not_as_prepared_is_refused(rendered, tmp_path, harm, status):
    manifest, images = paths.manifest_file(rendered.results_dir, "tiny"), rendered.data_dir / "tiny/train_images.npy"
    if harm == "gone":
        manifest.unlink()
    else:
        images.write_bytes(images.read_bytes()[:-1] + b"x")
    with pytest.raises(ResultError, match=rf"not whole: .*data/tiny is {status} .*`recu verify smallest`"):
        write_crate(rendered, "smallest", tmp_path / "crate", licence=LICENCE)


@pytest.mark.parametrize("harm", ["altered", "missing"])
def test_a_suite_that_is_not_whole_is_refused(rendered, tmp_path, harm):
    table = rendered.reports_dir / "smallest.csv"
    table.unlink() if harm == "missing" else table.write_text("dataset\n")
    with pytest.raises(ResultError, match=rf"not whole: .*smallest\.csv is {harm} .*`recu verify smallest`"):
        write_crate(rendered, "smallest", tmp_path / "crate", licence=LICENCE)
    assert not (tmp_path / "crate").exists()


def test_nothing_is_replaced(rendered, tmp_path):
    with pytest.raises(OutputError, match="is there already"):
        write_crate(rendered, "smallest", tmp_path, licence=LICENCE)


def test_a_public_validator_accepts_it(rendered, tmp_path, monkeypatch):
    validator = pytest.importorskip("rocrate_validator", reason="needs roc-validator 0.13: pip install roc-validator")
    from requests import ConnectionError, Response, adapters
    from rocrate_validator import models, services
    from urllib3 import HTTPResponse

    def send(adapter, request, **how):
        """The terms of RO-Crate out of the package that wrote them, and nothing from elsewhere."""
        if not request.url.startswith("https://w3id.org/ro/crate/"):
            raise ConnectionError(request.url)
        content = (Path(rocrate.__file__).parent / "data/ro-crate.jsonld").read_bytes()
        answer = Response()
        answer.status_code, answer.url, answer.request, answer._content = 200, request.url, request, content
        answer.headers["Content-Type"] = "application/ld+json"
        answer.raw = HTTPResponse(io.BytesIO(content), headers=answer.headers, status=200, preload_content=False)
        return answer

    monkeypatch.setattr(adapters.HTTPAdapter, "send", send)
    assert validator
    crate = tmp_path / "crate"
    write_crate(rendered, "smallest", crate, licence=LICENCE)

    def problems() -> list[str]:
        settings = services.ValidationSettings(
            rocrate_uri=str(crate),
            profile_identifier="ro-crate-1.3",
            requirement_severity=models.Severity.REQUIRED,
            cache_path=str(tmp_path / "cache"),
        )
        return [each.message for each in services.validate(settings).get_issues()]

    assert problems() == []
    shutil.rmtree(crate / "params")
    assert problems() != []
