"""The model card of an exported network: README.md with the YAML that the Hugging Face hub reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from recu.base.text import markdown_text, visible


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card says; nothing of it is made up where the checkpoint does not say it."""

    network: str
    """As `recu.experiment.resolving.network_name`."""
    binariser: str
    """Its title."""
    stage: int
    dataset: str
    """Name in params/datasets.yaml."""
    title: str
    """How tables call the dataset."""
    classes: tuple[str, ...] | None
    licence: str
    """Identifier of the hub."""
    source: dict[str, Any]
    """Of the checkpoint: file, SHA-256, and what else it says of itself."""
    top1: float | None
    """Per cent, as measured here on all test images; None where it was not."""
    images: int
    """How many they are."""
    parameters: int
    image_size: int
    options: str
    """Of `recu predict`, for what tensors alone do not say."""


def card_text(card: Card) -> str:
    """README.md: YAML between two lines of dashes, then prose."""
    head: dict[str, Any] = {
        "license": card.licence,
        "library_name": "recu-repro",
        "pipeline_tag": "image-classification",
        "tags": ["binary-neural-network", "1-bit", "safetensors", card.network.rpartition(".")[2]],
        "datasets": [card.dataset],
        "metrics": ["accuracy"],
    }
    if card.top1 is not None:
        head["model-index"] = [
            {
                "name": card.network,
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "Image Classification"},
                        "dataset": {"type": card.dataset, "name": card.title, "split": "test"},
                        "metrics": [{"type": "accuracy", "name": "top-1", "value": round(card.top1 / 100, 6)}],
                    }
                ],
            }
        ]
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    lines = [f"- {key}: `{visible(str(value))}`" for key, value in card.source.items()]
    found = "Nothing was measured when this card was written."
    if card.top1 is not None:
        found = f"Top-1 {card.top1:.2f} % on the {card.images} test images of {markdown_text(card.title)}."
    named = "Its checkpoint does not name the classes." if card.classes is None else f"{len(card.classes)} classes."
    return f"""---
{front}---

# {card.network}, {card.binariser}

A network for images of {card.image_size}x{card.image_size} pixels, {card.parameters} parameters, trained for
{markdown_text(card.title)} with ReCU-repro. {_WHAT_IS_BINARY[card.stage]} {named}

## Measured

{found}

## Where it comes from

{chr(10).join(lines)}

## Use

`model.safetensors` holds the latent weights under the names of `recu.build_model`:

```python
import torch
from safetensors.torch import load_file

torch.save(load_file("model.safetensors"), "weights.pth")
```

```
recu predict weights.pth IMAGE {card.options}
```

A file in which binary weights take one bit: `recu export FILE --to packed --output FILE.recu`.
"""


_WHAT_IS_BINARY = {
    0: "Nothing of it is binary.",
    1: "Its activations are binary, its weights are real.",
    2: "Weights and activations of its inner convolutions are binary; the stored weights are the real ones that the"
    " binary ones are made of.",
}
