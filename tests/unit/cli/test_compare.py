"""`recu compare`: the methods of a suite side by side, and whether that is what params/ asks for."""

from pathlib import Path

import pytest

from recu.experiment import paths
from recu.experiment.paths import PARAMS_DIR
from recu.experiment.resolving import load_experiments
from recu.results.records import Rows, write_record
from tests.unit.results.made import evaluation, made_row, training


@pytest.fixture
def compare(recu):
    """A function that collects rows of methods-demo, some of other parameters, and shows them."""
    planned = load_experiments(PARAMS_DIR, ("methods-demo",))
    one = made_row(train := training(model="resnet20_1w1a", dataset="digits"), evaluation(train))
    network = {"suite": "methods-demo", "network": "cifar.resnet20_1w1a"}

    def compare(changed: int) -> str:
        rows = [
            one.model_copy(
                update=network
                | {name: getattr(each, name) for name in ("method", "seed", "spec_hash")}
                | {"experiment_id": each.id, "binariser": each.hyperparameters.binariser}
                | ({"spec_hash": "0" * 16} if number < changed else {})
            )
            for number, each in enumerate(planned.values())
        ]
        write_record(recu.folder / paths.rows_file(Path("results"), "methods-demo"), Rows(rows=tuple(rows)))
        assert recu("compare", "methods-demo", "--params_dir", PARAMS_DIR) == 0, recu.err
        return recu.out

    return compare


def test_rows_of_other_parameters_are_said_to_be_stale(compare):
    table = compare(changed=0)
    assert "stale" not in table and "92.80" in table
    assert compare(changed=2) == (
        f"{table}\nstale: 2 of its results are not those that params/ asks for now; make it anew: `snakemake --cores"
        " all --config suites=methods-demo`\n"
    )
