"""A trained network as a packed file: its operations, and what a reader has to know of images, classes and origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from recu import __version__
from recu.base.errors import CheckpointError, ConfigError
from recu.experiment.fit import stored_size_of
from recu.experiment.schema import Dataset
from recu.export.graph import operations_of
from recu.runtime.checking import count_logits
from recu.runtime.reader import PackedError
from recu.runtime.writer import packed_bytes


def pack(network: nn.Module, *, said: Mapping[str, Any], dataset: Dataset, classes: Sequence[str] | None) -> bytes:
    """The content of a packed file.

    Args:
        network: in evaluation mode, on the CPU.
        said: of the network and its origin, JSON-compatible.
        dataset: how its training saw images.
        classes: names in label order, or None.

    Raises:
        ConfigError: the network has a layer without a packed form.
        CheckpointError: a number of it is not finite.
    """
    header = {
        **said,
        "classes": None if classes is None else list(classes),
        "image": {
            "size": dataset.image_size,
            "stored_size": stored_size_of(dataset),
            "view": dataset.seen_as,
            "mean": list(dataset.mean),
            "std": list(dataset.std),
        },
        "writer": f"recu {__version__}",
    }
    operations = operations_of(network)
    try:
        count_logits(operations, dataset.image_size)
    except PackedError as error:
        raise ConfigError(f"the network has no packed form: it {error}") from error
    try:
        return packed_bytes(header, operations)
    except ValueError as error:
        raise CheckpointError(f"the network cannot be packed: {error}; train again") from error
