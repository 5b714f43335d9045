"""What a table has to know about its suite besides the results."""

from __future__ import annotations

from recu.experiment.resolving import Origin
from recu.experiment.schema import Model
from recu.experiment.values import Name


class DatasetFacts(Model):
    """Of `recu.experiment.schema.Dataset`, what a table shows."""

    title: str
    published_as: str | None


class MethodFacts(Model):
    """Of `recu.experiment.schema.Method`, what a table shows."""

    description: str
    published_as: str | None
    reconstruction: bool


class SuiteFacts(Model):
    """One suite; made by the planner, so that a change of any of it renders the table again."""

    name: Name
    title: str
    description: str
    experiments: tuple[Origin, ...]
    """Or released files, in table order."""
    datasets: dict[str, DatasetFacts]
    methods: dict[str, MethodFacts]
    """Of the experiments."""
