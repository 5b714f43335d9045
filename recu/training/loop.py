"""The training steps of one epoch, and their two losses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recu.base.errors import DivergenceError
from recu.training.device import lay_out
from recu.training.sums import RunningSums

_log = logging.getLogger(__name__)


def soft_cross_entropy(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean over the batch of -sum p_teacher * log p_student (the distillation loss of the two-stage recipe).

    Args:
        logits: (N, classes) of the student.
        teacher_logits: (N, classes), constant for the gradient.
    """
    return -(teacher_logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1).mean()


def train_steps(
    model: nn.Module,
    loader: Any,
    optimizer: torch.optim.Optimizer,
    sums: RunningSums,
    *,
    epoch: int,
    start: int = 0,
    teacher: nn.Module | None = None,
    precision: str = "fp32",
) -> Iterator[int]:
    """Train over one epoch's batches; nothing here waits for the device.

    Args:
        model: from (N, 3, H, W) to (N, classes); put into training mode.
        loader: of `recu.data`; its batches are a function of epoch and index. One that lacks images lost them because
            they cannot be read.
        optimizer: with the epoch's learning rate.
        sums: running sums to add to.
        epoch: number of the epoch, counted from 0.
        start: first batch, for an epoch that is continued.
        teacher: frozen network in evaluation mode whose outputs replace the labels in the loss; None for cross-entropy.
        precision: "fp32", or "bf16" for autocast.

    Yields:
        The number of batches done in this epoch, after each one.

    Raises:
        DivergenceError: the optimiser's arithmetic overflows.
    """
    model.train()
    for step, (images, labels) in enumerate(loader.batches(epoch, start), start):
        whole = min(loader.batch_size, loader.num_images - step * loader.batch_size)
        sums.unreadable += whole - len(labels)
        if len(labels) < 2:
            if len(labels):
                _log.warning("epoch %d, batch %d: its one readable image is left out, BatchNorm needs two", epoch, step)
            sums.left_out += len(labels)
            yield step + 1
            continue
        images = lay_out(images)
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = model(images)
            teacher_logits = _teach(teacher, images)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels) if teacher_logits is None else soft_cross_entropy(logits, teacher_logits)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        _step(optimizer)
        sums.add(loss.detach(), logits.detach(), labels, step)
        yield step + 1


def _step(optimizer: torch.optim.Optimizer) -> None:
    try:
        optimizer.step()
    except RuntimeError as error:
        # Python's numbers are larger than the tensors', e.g. Adam's rate divided by its bias correction.
        if "overflow" not in str(error):
            raise
        raise DivergenceError("the optimiser's step is larger than single precision holds") from error


@torch.no_grad()
def _teach(teacher: nn.Module | None, images: Tensor) -> Tensor | None:
    return None if teacher is None else teacher(images).float()
