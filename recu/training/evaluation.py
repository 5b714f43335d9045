"""Accuracy and loss of a network over a whole split, each image counted once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from recu.base.errors import DataError, DivergenceError
from recu.nn.inference import inference_form
from recu.training.device import lay_out
from recu.training.processes import ALONE, Processes
from recu.training.sums import Averages, RunningSums


@dataclass(frozen=True, kw_only=True)
class Evaluation(Averages):
    """Of a whole split."""

    confusion: tuple[tuple[int, ...], ...] | None = None
    """Images of class i that were taken for class j, at [i][j]; None where it was not asked for."""


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Any,
    *,
    stop: Callable[[], bool] = lambda: False,
    processes: Processes = ALONE,
    seen: Callable[[int], object] = lambda _: None,
    classes: int = 0,
) -> Evaluation | None:
    """Evaluate with ordinary cross-entropy, in fp32 whatever the training's precision.

    Args:
        model: from (N, 3, H, W) to (N, classes); left in evaluation mode.
        loader: of `recu.data`, with `num_images`, `skipped` and `batches(epoch)`.
        stop: asked before each batch.
        processes: that share the split, whole batches each, so that all sums are those of one process to the bit.
        seen: told after each batch of this process how many images it had.
        classes: of a confusion matrix; 0 for none.

    Returns:
        The averages, or None where `stop` became true.

    Raises:
        DataError: the loader gave another number of images than it has, those it skipped as unreadable included.
        DivergenceError: the loss is not finite.
    """
    model.eval()
    network = inference_form(model)
    batches, own = loader.batches(0), []
    confusion = torch.zeros(classes * classes, dtype=torch.int64)
    for step in count():
        batch = next(batches, None)
        stopped, more = processes.any_of(batch is not None and stop(), batch is not None)
        if stopped:
            return None
        if not more:
            break
        # Another process has one batch more; or every image of the batch is unreadable, which is counted below.
        if batch is None or not len(batch[1]):
            own.append(RunningSums(torch.device("cpu")))
            continue
        images, labels = batch
        logits = network(lay_out(images)).float()
        own.append(RunningSums(logits.device))
        own[-1].add(F.cross_entropy(logits, labels), logits, labels, step)
        if classes:
            confusion = confusion.to(logits.device)
            # The class of the top-1: of equal logits, argmax may take another than topk does.
            places = labels * classes + logits.topk(min(5, logits.shape[1]), dim=1).indices[:, 0]
            confusion.index_put_((places,), torch.ones_like(places), accumulate=True)
        seen(len(labels))
    sums = _in_order(processes.gather([sums.state() for sums in own])).read()
    counts = processes.sum(confusion).view(classes, classes).tolist() if classes else None
    confused = None if counts is None else tuple(tuple(line) for line in counts)
    evaluation = Evaluation(**asdict(sums), confusion=confused)
    if evaluation.n != loader.num_images:
        skipped = processes.total(loader.skipped)
        if skipped:
            raise DataError(
                f"{skipped} of {loader.num_images} test images cannot be read, and a smaller test split gives"
                " another number: only training images can be skipped; replace them and prepare the dataset again"
            )
        raise DataError(
            f"the loader gave {evaluation.n} images of a split of {loader.num_images}: each must count once;"
            " prepare the dataset again"
        )
    if not math.isfinite(evaluation.loss):
        raise DivergenceError(f"the loss over the {evaluation.n} test images is not finite ({evaluation.loss})")
    return evaluation


def _in_order(states: Sequence[Sequence[dict[str, Any]]]) -> RunningSums:
    """The sums over all batches, by process and place: added in the batches' order, which decides the last bits."""
    whole, batch = RunningSums(torch.device("cpu")), RunningSums(torch.device("cpu"))
    for state in chain.from_iterable(zip(*states, strict=True)):
        batch.restore(state)
        whole.include(batch)
    return whole
