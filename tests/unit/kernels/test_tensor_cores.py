"""TF32 is used where it was asked for, and what held before holds again."""

import pytest
import torch

from recu.kernels.tensor_cores import allow_tf32, tf32_allowed


def _allowed() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("within", [True, False])
def test_what_held_before_holds_again_whatever_happens_within(before, within):
    allow_tf32(before)
    with pytest.raises(ZeroDivisionError), tf32_allowed(within):
        assert _allowed() == (within, within)
        raise ZeroDivisionError
    assert _allowed() == (before, before)
    allow_tf32(False)
