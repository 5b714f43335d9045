from recu.experiment.json_schema import schema_texts
from recu.experiment.paths import PROJECT_DIR


def test_schemas_on_disk_are_those_of_the_configuration():
    for name, text in schema_texts().items():
        file = PROJECT_DIR / "workflow" / "schemas" / name
        assert file.read_text() == text, f"{name} is out of step with recu/experiment/schema.py: run `make schemas`"
