"""One network in several processes: what each computes of a batch, and what becomes of their gradients and statistics.

As in the authors' `DataParallel`, each process sees consecutive images of the batch, BatchNorm normalises with the
statistics of those (or, with `sync_batch_norm`, of all), the loss is the mean over the whole batch, and the running
statistics of the first process count.
"""

from __future__ import annotations

import warnings

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from recu.nn.sync_batch_norm import synchronise
from recu.training.processes import Processes


class Replica(nn.Module):
    """A network that may be given no image at all and still takes part in the step.

    Args:
        network: (N, 3, H, W) to (N, classes).
        synchronised: whether its BatchNorms see the images of all processes; they then meet in the forward pass.
    """

    def __init__(self, network: nn.Module, *, synchronised: bool) -> None:
        super().__init__()
        self.network, self._synchronised = network, synchronised

    def forward(self, images: Tensor) -> Tensor:
        """The logits; of no image some value that depends on every parameter, with a gradient of zero."""
        if len(images) or self._synchronised:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", r"var\(\)")  # no image has no variance
                logits: Tensor = self.network(images)
            return logits
        return torch.stack([parameter.sum() for parameter in self.network.parameters()]).sum() * 0.0


def replicate(model: nn.Module, processes: Processes, *, synchronised: bool) -> nn.Module:
    """The network as `recu.training.loop.train_steps` calls it; with one process the network itself.

    Args:
        model: placed on this process's device. Its parameters become those of the first process, and their gradients
            the mean over the processes; its BatchNorms are replaced where they are to be synchronised.
        processes: that share each batch.
        synchronised: whether BatchNorm sees the whole batch.
    """
    if processes.count == 1:
        return model
    if synchronised:
        synchronise(model)
    # Only with this option do gradients keep their places in what is summed at once, and the order of a sum, which
    # decides its last bits, depends on the place: a training that is continued could not have the same ones.
    return DistributedDataParallel(
        Replica(model, synchronised=synchronised), forward_sync_buffers=False, find_unused_parameters=True
    )


def take_first_buffers(model: nn.Module, processes: Processes) -> None:
    """Give every process the running statistics of the first."""
    if processes.count == 1:
        return
    for buffer in model.buffers():
        dist.broadcast(buffer, src=0)
