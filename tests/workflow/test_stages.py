"""One run of the whole DAG at the smallest size, which `make test` has too; all others are for `make test-workflow`."""

import json

import pandas

from recu.experiment.plan import FIGURES, TABLE_FORMATS
from tests.workflow.conftest import Project

NETWORK = "smallest/tiny/cifar.resnet20_1w1a"


def test_every_stage_publishes_its_results(finished: Project):
    for stage in ("train", "evaluate"):
        for method in ("vanilla", "finetune"):
            file = finished.folder / f"results/{stage}/{NETWORK}/{method}/seed1/metrics.json"
            metrics = json.loads(file.read_text())
            assert 0 <= (metrics["best"] if stage == "train" else metrics)["top1"] <= 100
    table = pandas.read_csv(finished.folder / "reports/smallest.csv")
    assert len(table) == 2
    pages = [f"runs/{NETWORK}/{method}/seed1.html" for method in ("vanilla", "finetune")]
    drawn = [f"figures/smallest/{figure}.{form}" for figure in FIGURES for form in ("svg", "png")]
    for name in (*(f"smallest.{form}" for form in TABLE_FORMATS), *drawn, *pages, "index.html", "claims.html"):
        assert (finished.folder / "reports" / name).stat().st_size > 200
