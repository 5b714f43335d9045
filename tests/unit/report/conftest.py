"""What a table knows about its suite."""

import pytest

from recu.experiment.suite_facts import DatasetFacts, MethodFacts, SuiteFacts


@pytest.fixture
def suite():
    return SuiteFacts(
        name="cifar10",
        title="CIFAR-10",
        description="The paper's recipe.",
        experiments=(),
        datasets={
            "cifar10": DatasetFacts(title="CIFAR-10", published_as="CIFAR-10"),
            "digits": DatasetFacts(title="Digits", published_as=None),
        },
        methods={
            "vanilla": MethodFacts(description="From scratch.", published_as="vanilla", reconstruction=False),
            "finetune": MethodFacts(description="From vanilla.", published_as="finetune", reconstruction=True),
        },
    )
