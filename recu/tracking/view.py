"""How MLflow's pages show an experiment: its description, and a view of its trainings with the columns that matter.

MLflow keeps a view that is shared by its address in a tag of the experiment. What the tag holds is not documented; this
is what the pages of MLflow 3.17 write and read, and a page that cannot read it shows its usual columns.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.tracking import MlflowClient

_KEY = "recu"
_BEST = "metrics.`best/top1`"
_VIEW = {
    "selectedColumns": ["params.`method`", "params.`seed`", "params.`model`", _BEST, "metrics.`last/top1`"],
    "orderByKey": _BEST,
    "orderByAsc": False,
    "searchFilter": "tags.`recu.stage` = 'train'",
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
}


def describe_experiment(client: MlflowClient, experiment: Experiment, note: str | None = None) -> None:
    """Give an experiment the view of its trainings, and a description, where it has others.

    Args:
        client: of its store.
        experiment: as the store has it now.
        note: in Markdown; None leaves the description as it is.
    """
    tags = {f"mlflow.sharedViewState.{_KEY}": json.dumps(_VIEW)}
    if note is not None:
        tags["mlflow.note.content"] = note
    for name, value in tags.items():
        if experiment.tags.get(name) != value:
            client.set_experiment_tag(experiment.experiment_id, name, value)


def address_of(server: str, experiment_id: str) -> str:
    """Where a server shows an experiment's trainings; without the work flow's name it opens on traces, of which there
    are none.
    """
    return (
        f"{server}/#/experiments/{quote(experiment_id, safe='')}/runs?workflowType=machine_learning"
        f"&viewStateShareKey={_KEY}"
    )
