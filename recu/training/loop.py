"""The training steps of one epoch, and their two losses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recu.base.errors import DivergenceError
from recu.kernels.tensor_cores import tf32_allowed
from recu.training.device import lay_out
from recu.training.processes import ALONE, Processes
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
    processes: Processes = ALONE,
    synchronised: bool = False,
    counted: bool = False,
) -> Iterator[int]:
    """Train over one epoch's batches; nothing here waits for the device.

    Args:
        model: from (N, 3, H, W) to (N, classes), see `recu.training.replicas.replicate`; put into training mode.
        loader: of `recu.data`; its batches are a function of epoch and index. One that lacks images lost them because
            they cannot be read.
        optimizer: with the epoch's learning rate.
        sums: running sums to add to.
        epoch: number of the epoch, counted from 0.
        start: first batch, for an epoch that is continued.
        teacher: frozen network in evaluation mode whose outputs replace the labels in the loss; None for cross-entropy.
        precision: "fp32"; "tf32" for convolutions and products on a GPU; "bf16" for autocast.
        processes: that share each batch.
        synchronised: whether BatchNorm sees the images of all processes.
        counted: whether a part may lack images, so that the processes have to tell each other how many they have.

    Yields:
        The number of batches done in this epoch, after each one.

    Raises:
        DivergenceError: the optimiser's arithmetic overflows.
    """
    model.train()
    for step, (images, labels) in enumerate(loader.batches(epoch, start), start):
        batch = min(loader.batch_size, loader.num_images - step * loader.batch_size)
        part = len(processes.share.part(batch))
        sums.unreadable += part - len(labels)
        if len(labels) == 1 and not synchronised:
            images, labels = images[:0], _leave_out(labels, sums, epoch, step)
        if counted or processes.count == 1:
            batch = processes.total(len(labels))
        if batch < 2:
            _leave_out(labels, sums, epoch, step)
            yield step + 1
            continue
        images = lay_out(images)
        with tf32_allowed(precision == "tf32"):
            with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
                logits = model(images)
                teacher_logits = _teach(teacher, images) if len(labels) else None
            logits = _for_loss(logits)
            optimizer.zero_grad(set_to_none=True)
            if len(labels):
                if teacher_logits is None:
                    loss = F.cross_entropy(logits, labels)
                else:
                    loss = soft_cross_entropy(logits, teacher_logits)
                sums.add(loss.detach(), logits.detach(), labels, step)
            else:
                loss = logits.sum() * 0.0
            share = processes.count * len(labels) / batch
            # The mean over the processes is then that over the whole batch, whatever number of images each has.
            (loss if share == 1 else loss * share).backward()
        _step(optimizer)
        yield step + 1


def _leave_out(labels: Tensor, sums: RunningSums, epoch: int, step: int) -> Tensor:
    """Count an image that is left out; returns the labels that stay: none."""
    if len(labels):
        _log.warning("epoch %d, batch %d: its one readable image is left out, BatchNorm needs two", epoch + 1, step + 1)
    sums.left_out += len(labels)
    return labels[:0]


def _step(optimizer: torch.optim.Optimizer) -> None:
    try:
        optimizer.step()
    except RuntimeError as error:
        # Python's numbers are larger than the tensors', e.g. Adam's rate divided by its bias correction.
        if "overflow" not in str(error):
            raise
        raise DivergenceError("the optimiser's step is larger than single precision holds") from error


def _for_loss(logits: Tensor) -> Tensor:
    """In fp32 at least, whatever autocast made of them."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@torch.no_grad()
def _teach(teacher: nn.Module | None, images: Tensor) -> Tensor | None:
    return None if teacher is None else _for_loss(teacher(images))
