"""The BatchNorm for evaluation gives PyTorch's results to the last bit, in the memory of its input."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from recu.kernels.inference_norm import InferenceNorm2d


def batch_norm(channels: int, **options) -> nn.BatchNorm2d:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(channels, **options).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    if norm.affine:
        norm.weight.data.normal_()
        norm.bias.data.normal_()
    return norm


@pytest.mark.parametrize("hardtanh", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("shape", [(3, 16, 8, 8), (2, 5, 3, 7), (1, 130, 1, 1)])
@torch.inference_mode()
def test_results_are_the_librarys(hardtanh, affine, shape) -> None:
    norm, x = batch_norm(shape[1], affine=affine), torch.randn(shape).contiguous(memory_format=torch.channels_last)
    expected = F.hardtanh(norm(x)) if hardtanh else norm(x)
    found = InferenceNorm2d(norm, hardtanh=hardtanh)(x)
    assert torch.equal(found, expected) and found.data_ptr() == x.data_ptr()


@torch.inference_mode()
def test_what_is_not_a_number_stays_so_and_other_types_are_left_to_the_library() -> None:
    norm, x = batch_norm(4), torch.randn(2, 4, 3, 3)
    x[1, 2, 0, 0] = torch.nan
    assert InferenceNorm2d(norm, hardtanh=True)(x)[1, 2, 0, 0].isnan()
    half = torch.randn(2, 4, 3, 3).bfloat16()
    assert torch.equal(InferenceNorm2d(norm, hardtanh=True)(half), F.hardtanh(norm(half)))
