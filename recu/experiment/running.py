"""How and where a job runs: what changes no result. Free of torch; options and params/config.yaml take its defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kernels = Literal["auto", "off"]
"""Whether a layer may be computed by `recu.kernels`; the same numbers but for rounding."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """What a person may choose without changing a result."""

    gpus: str = ""
    """As for `recu.training.device.choose_device`."""
    processes: int = 0
    """That share the job, one a device; 0 for as many as `gpus` names, or one."""
    stall_minutes: float = 10.0
    """How long the others wait for one of them; a batch may take its loader as long."""
    workers: int = 2
    """Loader processes, for datasets that are not held in memory."""
    threads: int = 0
    """CPU threads of torch; 0 leaves its choice."""
    kernels: Kernels = "auto"
    """"off" for the layers' own forwards alone."""
    tracking_uri: str | None = None
    """MLflow store; None or empty: none. MLFLOW_TRACKING_URI in the environment wins."""
    print_freq: int = 100
    """Steps between two lines of running averages; each line waits for the device once."""
    time_estimate: bool = True
    """Whether lines say when the training is expected to finish."""
    end_time: float = 0.0
    """Unix time in seconds at which the job's scheduler ends it; 0 for never."""
    save_minutes: float = 10.0
    """Longest training time that a kill within an epoch can cost."""
    bar: bool | None = None
    """None: a progress bar where stderr is a terminal."""
    diagnostics: bool = True
    """Whether the binary layers are measured after each epoch of a training (docs/diagnostics.md)."""
    keep_resumable: bool = False
    """Whether a finished training keeps the state that more epochs would continue from."""
