"""A suite as an RO-Crate: whole, described, refused where a result is not as it should be."""

import io
import json
import shutil
from pathlib import Path

import pytest

from recu.base.errors import ConfigError, OutputError, ResultError
from recu.base.files import hash_file
from recu.experiment import params, paths, plan
from recu.stages.crate import write_crate
from recu.stages.report import render
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
