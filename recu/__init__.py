"""Reproducibility pipeline for ReCU (Xu et al., "Reviving the Dead Weights in Binary Neural Networks", ICCV 2021).

What other programs use of the package, under names that stay when files move; each is loaded when it is first asked
for, so that importing the package takes no time.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_OFFERED = {
    "BinaryConv2d": "recu.binarisers.recu",
    "available_models": "recu.models",
    "build_model": "recu.models",
    "build_optimizer": "recu.training",
    "learning_rate_at": "recu.experiment.schedules",
    "load": "recu.stages.predict",
    "load_packed": "recu.stages.packed",
    "set_tau": "recu.binarisers.recu",
    "tau_at": "recu.binarisers.recu",
}


def __getattr__(name: str) -> Any:
    if name not in _OFFERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_OFFERED[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_OFFERED})
