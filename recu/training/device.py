"""Choosing the device, describing it, and laying a network out on it."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from recu.base.errors import ConfigError
from recu.base.place import ONLY, Place
from recu.experiment.own import CodeFile
from recu.experiment.running import Kernels
from recu.experiment.schema import gpu_numbers
from recu.kernels.exact import switch_off
from recu.kernels.tensor_cores import OVERRIDE
from recu.results import provenance
from recu.results.records import Provenance
from recu.training.gpu_slot import slots_folder, take_slots, visible_gpus
from recu.training.processes import Processes

COMPILE_MODES = {"kernels": "default", "cuda-graphs": "reduce-overhead"}
"""torch.compile's name of each."""

_UNCOMPILED = {
    **{"TORCH_COMPILE_DISABLE": "1", "TORCHDYNAMO_DISABLE": "1"},
    **{"TORCHDYNAMO_SUPPRESS_ERRORS": "", "TORCH_COMPILE_OVERRIDE_BACKENDS": ""},
}
"""Variables with which a network that was to be compiled is not, or not where that fails, and what they begin with."""

_MOST_SHAPES = 64
"""Shapes of batches for which networks are compiled in one process; PyTorch's own limit is 8, for all networks."""

_log = logging.getLogger(__name__)


def choose_device(gpus: str, place: Place = ONLY) -> torch.device:
    """Turn the value of `--gpus` into this process's device.

    Args:
        gpus: "" for the first CUDA device that no other training holds, or the CPU where there is none; "cpu"; or
            device numbers such as "0,1", one a process of this machine. Several processes that are given none have
            those of their numbers, or each the only one that it sees.
        place: of this process.

    Returns:
        The device.

    Raises:
        ConfigError: not a device number, no such device, or fewer than processes; the message names what there is.
    """
    numbers = check_gpus(gpus)
    if not gpus.strip() and torch.cuda.is_available():
        count = torch.cuda.device_count()
        gpus_here = visible_gpus(count, os.environ.get("CUDA_VISIBLE_DEVICES"))
        bound = place.launcher is None and count == 1  # srun can show each process its own alone
        numbers = take_slots(gpus_here, 1, slots_folder()) if place.count == 1 else list(range(count))
        numbers = numbers * place.local_count if bound else numbers
    if not numbers:
        if not gpus.strip():
            _note_hidden_gpus(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        return torch.device("cpu")
    if len(numbers) < place.local_count:
        raise ConfigError(
            f"{place.local_count} processes share this machine's {len(numbers)} GPUs ({_what_there_is()}): start one"
            " process a GPU"
        )
    if len(numbers) > place.local_count:
        _log.warning("--gpus %s names more devices than the %d in use", gpus, place.local_count)
    return torch.device(f"cuda:{numbers[place.local_rank]}")


def _note_hidden_gpus(visible: str) -> None:
    """Say that a variable which names GPUs, and does not mean "none", leaves the CPU."""
    if visible.strip() not in ("", "-1", "NoDevFiles"):
        _log.warning(
            "CUDA_VISIBLE_DEVICES=%s names no GPU that PyTorch can use here: the CPU computes; where that is meant,"
            " give --gpus cpu",
            visible,
        )


def check_gpus(gpus: str) -> list[int]:
    """The device numbers in the value of `--gpus`; none for "" and "cpu".

    Raises:
        ConfigError: see `choose_device`.
    """
    try:
        numbers = gpu_numbers(gpus)
    except ValueError as error:
        raise ConfigError(f"--gpus {error} ({_what_there_is()})") from error
    for number in numbers:
        if number >= torch.cuda.device_count():
            raise ConfigError(f"--gpus {gpus}: there is no GPU {number} ({_what_there_is()})")
    return numbers


def describe(device: torch.device) -> str:
    """A name of the device for people and records, e.g. "NVIDIA H200" or "CPU, 2 threads (Intel Xeon ...)"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads ({_processor_name()})"


def origin_of(device: torch.device, processes: Processes, sources: Iterable[CodeFile] = ()) -> Provenance:
    """What computes in all processes: their devices in one text, e.g. "2 x NVIDIA A100-SXM4-40GB", code and packages.

    Args:
        device: of this process.
        processes: that work together.
        sources: files of users' code, as for `recu.results.provenance.collect`.

    Raises:
        ConfigError: machines have other code or packages than the first, which the record would not say.
        Interrupted: as `recu.results.provenance.collect`.
    """
    names = processes.gather(describe(device))
    counts = {name: names.count(name) for name in names}
    text = names[0] if len(names) == 1 else ", ".join(f"{count} x {name}" for name, count in counts.items())
    origin = provenance.collect(text, sources)
    for what, own in (("code", origin.code_hash), ("packages", origin.environment_hash)):
        if len(found := sorted(set(processes.gather(own)))) > 1:
            raise ConfigError(
                f"the machines of this job have different {what} (hashes {', '.join(each[:12] for each in found)}):"
                " give all the same checkout and environment"
            )
    return origin


def place(
    model: nn.Module, device: torch.device, *, compile_as: str | None = None, kernels: Kernels = "auto"
) -> nn.Module:
    """Move a network to the device in the memory layout its convolutions are fastest in, and compile it if wanted.

    channels_last changes strides only; it is the layout oneDNN and cuDNN compute in.

    Args:
        model: changed in place; its parameters keep their names.
        device: where it goes.
        compile_as: a key of `COMPILE_MODES`, or None.
        kernels: "off" for the layers' own forwards alone.

    Raises:
        ConfigError: compilation is asked for on a CPU, or turned off by the environment.
    """
    if compile_as is not None:
        _check_compilation(compile_as, device)
    if kernels == "off":
        switch_off(model)
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compile_as is not None:
        _let_compile()
        model.compile(mode=COMPILE_MODES[compile_as], dynamic=False)
    return model


def _let_compile() -> None:
    """Beyond its limit PyTorch goes on uncompiled, which its log says and no result would."""
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, _MOST_SHAPES)


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ConfigError where a device would compute in another precision than the record is going to say."""
    if precision != "tf32":
        return
    advice = "use fp32 or bf16, or choose a GPU of compute capability 8.0 or newer"
    if device.type != "cuda":
        raise ConfigError(f"precision is 'tf32' and the device is the {device.type.upper()}, which has none: {advice}")
    if torch.cuda.get_device_capability(device) < (8, 0):
        raise ConfigError(f"precision is 'tf32', which {torch.cuda.get_device_name(device)} lacks: {advice}")
    if os.environ.get(OVERRIDE) == "0":
        raise ConfigError(f"precision is 'tf32', which results name, and {OVERRIDE}=0 turns it off: unset {OVERRIDE}")


def _check_compilation(compile_as: str, device: torch.device) -> None:
    if device.type != "cuda":
        raise ConfigError(
            f"compile is {compile_as!r} and the device is the {device.type.upper()}: torch.compile is for GPUs"
            " here, on a CPU the package's own loops are compiled; leave compile out, or choose a GPU"
        )
    for name, least in _UNCOMPILED.items():
        if (value := os.environ.get(name, "")) and value.startswith(least):
            raise ConfigError(
                f"compile is {compile_as!r}, which the results name, and {name}={value} can turn it off: unset {name},"
                " or leave compile out"
            )


def lay_out(images: torch.Tensor) -> torch.Tensor:
    """Images (N, C, H, W) in the layout that `place` gave the network."""
    return images.contiguous(memory_format=torch.channels_last)


def _what_there_is() -> str:
    count = torch.cuda.device_count()
    if not count:
        return "this machine has no CUDA device that PyTorch can use; leave --gpus out or give --gpus cpu"
    names = ", ".join(f"{number}: {torch.cuda.get_device_name(number)}" for number in range(count))
    return f"there is {names}"


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if os.access(cpuinfo, os.R_OK):
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
