"""Names and paths that a user writes reach a program as they are, whatever the shell thinks of them."""

import subprocess
import sys

import pytest
import yaml

from recu.base.errors import ConfigError
from recu.experiment import plan
from recu.experiment.params import parse_file, parse_workflow_config
from recu.experiment.paths import PARAMS_DIR
from recu.experiment.schema import Suite, WorkflowConfig

NASTY = (
    "with spaces/and more",
    "a'; touch ran; '",
    'a"; touch ran; "',
    "$(touch ran) `touch ran` ${HOME} $HOME",
    "a && touch ran || touch ran | cat > ran",
    "{output} {{x}} {params.source} %s",
    "--overwrite",
    "*?[a-z]~ !! #comment \\ \\n",
    "two\nlines",
    "é ü 数",
)
SHOW = "import sys; print(ascii(sys.argv[1:]))"


def in_the_shell(command: str, folder) -> str:
    """What a program of a rule would be given."""
    bash = f"set -euo pipefail; recu() {{ {sys.executable} -c '{SHOW}' \"$@\"; }}; {command}"
    answer = subprocess.run(["bash", "-c", bash], cwd=folder, capture_output=True, text=True, check=True)
    return answer.stdout.strip()


@pytest.mark.parametrize("path", NASTY)
def test_a_source_reaches_the_program_as_it_was_written(tmp_path, path):
    # As the prepare rule has it: options of the command are formatted by Snakemake, values of parameters are not.
    command = "recu prepare " + plan.as_options(data_dir=path) + " {source}"
    shown = in_the_shell(command.format(source=plan.as_words(source=path)), tmp_path)
    assert shown == ascii(["prepare", "--data_dir", path, "--source", path])
    assert list(tmp_path.iterdir()) == [], "nothing else ran"


@pytest.mark.parametrize("name", ["a b", "a;touch ran", "../x", "/etc", "$(x)", "-rf", "", "a\nb", "'"])
def test_names_that_become_paths_and_words_of_commands_are_refused(tmp_path, name):
    config = yaml.safe_load((PARAMS_DIR / "config.yaml").read_text())
    suite = yaml.safe_load((PARAMS_DIR / "suites/demo.yaml").read_text())
    with pytest.raises(ConfigError, match="suites"):
        parse_workflow_config(config | {"suites": name})
    with pytest.raises(ConfigError, match="sources"):
        parse_workflow_config(config | {"sources": {name: "data"}})
    file = tmp_path / "suite.yaml"
    for changed in ({"dataset": name}, {"methods": {name: {}}}, {"rows": [{"model": name}]}):
        file.write_text(yaml.safe_dump(suite | changed))
        with pytest.raises(ConfigError, match="should be letters, digits"):
            parse_file(file, Suite)


def test_a_path_of_the_configuration_may_hold_anything():
    config = yaml.safe_load((PARAMS_DIR / "config.yaml").read_text())
    assert parse_workflow_config(config | {"sources": {"digits": NASTY[1]}}).sources == {"digits": NASTY[1]}
    assert isinstance(parse_workflow_config(config), WorkflowConfig)
