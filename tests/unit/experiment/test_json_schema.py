import re

import pytest
import yaml

from recu.experiment.json_schema import texts
from recu.experiment.params import suite_kind
from recu.experiment.paths import PARAMS_DIR, PROJECT_DIR
from recu.experiment.schema import Suite


@pytest.mark.parametrize("path", texts())
def test_what_is_made_from_the_models_is_up_to_date(path):
    assert (PROJECT_DIR / path).read_text() == texts()[path], f"{path} is out of step: run `make schemas`"


@pytest.mark.parametrize("file", sorted(PARAMS_DIR.rglob("*.yaml")), ids=lambda file: file.name)
def test_editors_find_the_schema_of_each_file_of_params(file):
    first, _, text = file.read_text().partition("\n")
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named is not None
    name = file.stem
    if file.parent.name == "suites":
        name = "suite" if suite_kind(yaml.safe_load(text)) is Suite else "released-suite"
    assert (file.parent / named[1]).resolve() == PROJECT_DIR / f"workflow/schemas/{name}.schema.json"
