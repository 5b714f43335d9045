"""Seeds and states of every generator."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from recu.base.errors import ConfigError
from recu.training.checkpoint import read_checkpoint, write_checkpoint
from recu.training.seeding import make_deterministic, random_states, restore_random_states, seed_everything


def _draw():
    return random.random(), random.gauss(0, 1), np.random.standard_normal(), torch.rand(3).tolist(), np.random.rand()


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_a_seed_fixes_every_generator(seed):
    seed_everything(seed)
    first = _draw()
    seed_everything(seed)
    assert _draw() == first
    seed_everything(seed + 1)
    assert _draw() != first


def test_states_survive_a_checkpoint(tmp_path):
    seed_everything(5)
    _draw()
    write_checkpoint(tmp_path / "file", {"state_dict": {"weight": torch.ones(1)}, "random": random_states()})
    expected = [_draw() for _ in range(3)]
    seed_everything(99)
    restore_random_states(read_checkpoint(tmp_path / "file")["random"])
    assert [_draw() for _ in range(3)] == expected


@pytest.mark.parametrize(("compiles", "compiler"), [(False, False), (True, True)])
def test_deterministic_kernels_are_chosen_and_the_compiler_is_imported_only_to_be_used(compiles, compiler):
    code = (
        "import sys, torch; from recu.training.seeding import make_deterministic\n"
        f"make_deterministic(compiles={compiles})\n"
        "assert torch.are_deterministic_algorithms_enabled()\n"
        "assert torch.is_deterministic_algorithms_warn_only_enabled()\n"
        f"assert ('torch._inductor' in sys.modules) == {compiler}\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "less", "strict"),
    [
        ("ONEDNN_DEFAULT_FPMATH_MODE", "bf16", "strict"),
        ("DNNL_DEFAULT_FPMATH_MODE", "any", "STRICT"),
        ("NVIDIA_TF32_OVERRIDE", "1", "0"),
    ],
)
def test_an_environment_that_lowers_precision_is_refused(monkeypatch, name, less, strict):
    monkeypatch.setenv(name, less)
    with pytest.raises(ConfigError, match=f"{name}={less} has fp32 computed in less than single precision"):
        make_deterministic()
    for value in (strict, ""):
        monkeypatch.setenv(name, value)
        make_deterministic()
