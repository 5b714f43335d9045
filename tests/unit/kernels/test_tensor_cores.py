"""TF32 is used where it was asked for, and what held before holds again."""

import subprocess
import sys

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


_PROGRAM = """
import os
import torch
from recu.kernels.tensor_cores import tf32_allowed

backends = torch.backends
PLACES = (backends, backends.cuda.matmul, backends.cudnn, backends.cudnn.conv)

def held():
    return [each.fp32_precision for each in (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)]

def check(place, precision):
    place.fp32_precision = precision
    before = held()
    for allowed in (True, False):
        with tf32_allowed(allowed):
            assert all((each == "tf32") == allowed for each in held()), (allowed, held())
        assert held() == before, (precision, held(), before)

for place in PLACES:
    for precision in ("ieee", "tf32", "none"):
        # In a process of its own: PyTorch does not forget which of its interfaces was used.
        child = os.fork()
        if not child:
            check(place, precision)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, (place, precision)
"""


def test_what_another_program_set_by_the_newer_interface_holds_again():
    subprocess.run([sys.executable, "-c", _PROGRAM], check=True, timeout=300)
