"""BatchNorm over the images of all processes that share a batch: PyTorch's, which knows GPUs only, and one for CPUs.

The statistics of the whole batch make several processes compute what one does; without them each normalises with the
statistics of its own images, as the authors' `DataParallel` does.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.modules.batchnorm import _BatchNorm

from recu.base.errors import ConfigError


class _Sum(torch.autograd.Function):
    """Over all processes; so is its gradient, since each process's loss depends on the sum."""

    @staticmethod
    def forward(_ctx: FunctionCtx, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: FunctionCtx, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm(_BatchNorm):
    """What `torch.nn.SyncBatchNorm` computes, with collectives that CPUs have too."""

    def _check_input_dim(self, input: Tensor) -> None:
        del input  # any number of axes behind the channels

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) to the same shape; N may be 0 in some of the processes."""
        if not self.training:
            return super().forward(input)
        others = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1] + [1] * (input.dim() - 2)
        size = torch.tensor(float(input.numel() // input.shape[1]), dtype=torch.float64)
        dist.all_reduce(size)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        # The sum of squares around the mean, as one process computes it: of large terms little would be left otherwise.
        mean = _Sum.apply(values.sum(others)) / float(size)
        centred = values - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(others)) / float(size)
        running = self.get_buffer("running_mean"), self.get_buffer("running_var")
        for average, now in zip(running, (mean, variance * float(size / (size - 1))), strict=True):
            average.lerp_(now.detach(), self.momentum or 0.0)
        self.get_buffer("num_batches_tracked").add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)


def synchronise(model: nn.Module) -> None:
    """Let every BatchNorm of a network see the images of all processes; parameters and buffers stay the very same.

    Raises:
        ConfigError: one is of a class of its own, or without parameters, statistics or momentum: what a synchronised
            one computes in its place would be something else.
    """
    norms = {name: layer for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)}
    for name, layer in norms.items():
        usual = type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d) and layer.affine and layer.track_running_stats
        if not usual or layer.momentum is None:
            raise ConfigError(
                f"sync_batch_norm: layer {name}, {layer}, is no usual BatchNorm; leave sync_batch_norm out"
            )
    if next(model.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for name, layer in norms.items():
        new = SyncBatchNorm(layer.num_features, layer.eps, layer.momentum).train(layer.training)
        new._parameters, new._buffers = layer._parameters, layer._buffers
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, new)
