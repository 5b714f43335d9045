"""One command as several processes on this machine, started and watched by PyTorch's elastic launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from recu.base import preloaded
from recu.base.errors import ConfigError, Interrupted, LostProcess
from recu.training.device import check_gpus
from recu.training.gpu_slot import slots_folder, take_slots, visible_gpus
from recu.training.processes import SAID, STORE

_SIGNALS = "SIGTERM,SIGINT,SIGUSR1"
"""Handed on to the processes, which save their state."""
_GRACE_S = 30
"""How long they may take for that before they are killed."""
_SIGN_OF_LIFE_S = 3600
_LOOPBACK = Path("/sys/class/net/lo")


def launch(words: Sequence[str], *, gpus: str, count: int) -> None:
    """Run `recu WORDS` as `count` processes, one a device, and wait until they have ended.

    Args:
        words: the command line without the program's name.
        gpus: as for `recu.training.device.choose_device`; "" takes GPUs that no other job holds, as long as this
            process lives, or the CPU where there are none.
        count: processes.

    Raises:
        ConfigError: there are fewer GPUs.
        Interrupted: a signal came; state is saved, the same command continues.
        LostProcess: they were killed, or the temporary folder is gone or has no locks.
        SystemExit: they ended with an error, which one of them has said.
    """
    os.environ.pop(preloaded.ADDRESS, None)  # new processes are no forks of one that has imported everything
    words = [*words, "--gpus", _devices(gpus, count), "--processes", str(count)]
    # What PyTorch says of a failure is a page long; the processes say it themselves, in a line.
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed.elastic")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if _LOOPBACK.exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", _LOOPBACK.name)  # they are all on this machine
    with tempfile.TemporaryDirectory(prefix="recu-launcher-") as folder:
        said, store = Path(folder) / "said", Path(folder) / "store"
        os.environ |= {SAID: str(said), STORE: str(store)}
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=str(uuid.uuid4()),
            rdzv_backend="c10d",
            # What the launcher reads there can run code: it is this user's alone, where a server would be everybody's.
            # It is written to often enough to stay in a temporary folder that is cleared by age, and no more: who has
            # not written by the clock for three of these times counts as lost, also where the clock was set.
            rdzv_endpoint=str(store),
            rdzv_configs={"store_type": "file", "keep_alive_interval": _SIGN_OF_LIFE_S},
            local_addr="localhost",
            max_restarts=0,
            monitor_interval=0.1,
            signals_to_handle=_SIGNALS,
            shutdown_timeout=_GRACE_S,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-P", "-m", "recu", *words)
        except RendezvousError as error:
            raise LostProcess(
                f"cannot keep what the processes tell each other in {folder} ({error}): run the same command again,"
                " with TMPDIR in the environment a folder on a file system with locks"
            ) from error
        except ChildFailedError as error:
            _end_as([failure.exitcode for failure in error.failures.values()])
        except SignalException as stopped:
            if said.exists():
                raise SystemExit(Interrupted.exit_code) from stopped
            raise Interrupted(
                f"stopped by {stopped.sigval.name}: run the same command again to continue from the state saved last"
            ) from stopped


def _end_as(codes: Sequence[int]) -> None:
    """End as processes with these exit codes did; a negative one is the signal that killed it."""
    said = [code for code in codes if code > 0]
    if said:
        raise SystemExit(next((code for code in said if code != Interrupted.exit_code), said[0]))
    names = ", ".join(sorted({signal.Signals(-code).name for code in codes}))
    raise LostProcess(f"the job's processes were killed ({names}): run the same command again to continue")


def _devices(gpus: str, count: int) -> str:
    """What each of the processes is told as --gpus."""
    if gpus.strip() or not torch.cuda.is_available():
        named = check_gpus(gpus)
        return ",".join(map(str, named)) if named else "cpu"
    there = visible_gpus(torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    if count > len(there):
        raise ConfigError(f"--processes {count}: there are {len(there)} GPUs; give fewer, or --gpus cpu")
    return ",".join(map(str, take_slots(there, count, slots_folder())))
