"""A result and published numbers."""

import pytest

from recu.experiment.schema import Published, PublishedResult
from tests.unit.results.made import evaluation, made_row, training


@pytest.fixture
def row():
    """A function that makes one result row."""

    def make(**changes):
        train = training(**changes)
        return made_row(train, evaluation(train))

    return make


@pytest.fixture
def published():
    return Published(
        results=tuple(
            PublishedResult(
                dataset="CIFAR-10",
                model="resnet18_1w1a",
                method=method,
                batch_size=256,
                epochs=600,
                top1=top1,
                source="s",
            )
            for method, top1 in (("vanilla", 92.8), ("finetune", 93.2))
        )
    )
