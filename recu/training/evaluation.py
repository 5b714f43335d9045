"""Accuracy and loss of a network over a whole split, each image counted once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from recu.base.errors import DataError, DivergenceError
from recu.nn.inference import inference_form
from recu.training.device import lay_out
from recu.training.sums import Averages, RunningSums

Evaluation = Averages


@torch.inference_mode()
def evaluate(model: nn.Module, loader: Any, *, stop: Callable[[], bool] = lambda: False) -> Evaluation | None:
    """Evaluate with ordinary cross-entropy, in fp32 whatever the training's precision.

    Args:
        model: from (N, 3, H, W) to (N, classes); left in evaluation mode.
        loader: of `recu.data`, with `num_images`, `skipped` and `batches(epoch)`.
        stop: asked before each batch.

    Returns:
        The averages, or None where `stop` became true.

    Raises:
        DataError: the loader gave another number of images than it has, those it skipped as unreadable included.
        DivergenceError: the loss is not finite.
    """
    model.eval()
    network = inference_form(model)
    sums = None
    for step, (images, labels) in enumerate(loader.batches(0)):
        if stop():
            return None
        if not len(labels):  # every image of the batch is unreadable, which is counted below
            continue
        logits = network(lay_out(images)).float()
        sums = sums or RunningSums(logits.device)
        sums.add(F.cross_entropy(logits, labels), logits, labels, step)
    evaluation = sums.read() if sums else Evaluation(loss=0.0, top1=0.0, top5=0.0, n=0)
    if evaluation.n != loader.num_images:
        if loader.skipped:
            raise DataError(
                f"{loader.skipped} of {loader.num_images} test images cannot be read, and a smaller test split gives"
                " another number: only training images can be skipped; replace them and prepare the dataset again"
            )
        raise DataError(
            f"the loader gave {evaluation.n} images of a split of {loader.num_images}: each must count once;"
            " prepare the dataset again"
        )
    if not math.isfinite(evaluation.loss):
        raise DivergenceError(f"the loss over the {evaluation.n} test images is not finite ({evaluation.loss})")
    return evaluation
