"""Seeding of every random generator, their states as plain values, and reproducible arithmetic."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch

from recu.base.errors import ConfigError
from recu.kernels.tensor_cores import OVERRIDE, allow_tf32

_ARITHMETIC = {"ONEDNN_DEFAULT_FPMATH_MODE": "STRICT", "DNNL_DEFAULT_FPMATH_MODE": "STRICT", OVERRIDE: "0"}
"""Variables that have fp32 computed in less, each with the value that does not: on the CPU in bf16 or fp16, by oneDNN,
which reads them when torch is imported; on a GPU in TF32."""


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators (CPU and every GPU). Any seed >= 0 is fixed, 0 included."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def check_arithmetic() -> None:
    """Raise ConfigError where the environment has fp32 computed in less."""
    for name, strict in _ARITHMETIC.items():
        if os.environ.get(name, "").upper() not in (strict, ""):
            raise ConfigError(
                f"{name}={os.environ[name]} has fp32 computed in less than single precision, and results would not say"
                f" so: unset {name}"
            )


def make_deterministic(*, compiles: bool = False) -> None:
    """Make equal inputs give equal bits on this machine: deterministic kernels, and fp32 that is really fp32.

    Args:
        compiles: whether torch.compile is going to be used, and has to be told too.

    An operation without a deterministic kernel warns instead of failing, since that is a property of the GPU library
    and not something the user could mend.

    Raises:
        ConfigError: the environment has fp32 computed in less.
    """
    check_arithmetic()
    # cuBLAS reads it when it is first used; without it its workspaces, and so its results, may differ.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if compiles:
        torch.use_deterministic_algorithms(True, warn_only=True)
    else:
        # The same for everything but the compiler, which is not imported for it: two seconds of every evaluation.
        torch.set_deterministic_debug_mode("warn")
    # Only a help for finding reads of uninitialised memory; it writes every new tensor once more.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    # TF32 keeps ten bits of the mantissa: an option to be named, not a default to be met by surprise.
    allow_tf32(False)


def random_states() -> dict[str, Any]:
    """The states of all generators as tensors and plain Python values, which `weights_only=True` loads."""
    numpy_state = np.random.get_state(legacy=False)
    return {
        "python": random.getstate(),
        "numpy": {
            "bit_generator": str(numpy_state["bit_generator"]),
            "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """The inverse of `random_states`. States of GPUs are restored where there are as many as were saved."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy_state = states["numpy"]
    np.random.set_state(
        {
            "bit_generator": numpy_state["bit_generator"],
            "state": {"key": numpy_state["key"].numpy().astype(np.uint32), "pos": numpy_state["pos"]},
            "has_gauss": numpy_state["has_gauss"],
            "gauss": numpy_state["gauss"],
        }
    )
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
