"""The content of a checkpoint file, read so that nothing in it can run code or take all memory.

PyTorch's reader with `weights_only=True` refuses every class and function it does not know. Files found in public hold
NumPy numbers, options, paths and dates beside their weights: these few names get stand-ins here, which keep a number or
an array of numbers and drop everything else. No class that a file names is ever made.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recu.base.errors import CheckpointError
from recu.base.file_kinds import describe_kind
from recu.base.files import check_ordinary
from recu.base.text import visible

_MOST_UNPACKED = 100
"""Times its size that a file's parts may take in memory; torch.save does not compress at all."""
_SMALL = 1 << 20
"""Bytes that anything may take."""
_CHECKPOINT_KINDS = (
    "a PyTorch checkpoint",
    "a PyTorch checkpoint in the form before 1.6",
    "a damaged or cut zip archive",
)
_ADVICE = (
    ("packed network", "recu predict, recu evaluate -e and recu.load_packed() take it; give its checkpoint here"),
    ("safetensors", "convert it: torch.save(safetensors.torch.load_file(FILE), 'weights.pth')"),
    ("TorchScript", "convert it: torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), 'weights.pth')"),
    (".npz", "convert it: torch.save({n: torch.from_numpy(a) for n, a in numpy.load(FILE).items()}, 'weights.pth')"),
    ("Python pickle", "write it where it was made: torch.save(model.state_dict(), 'weights.pth')"),
    ("compressed with", "decompress it and give what comes out"),
    ("archive", "unpack it and give the file inside"),
    ("a folder", "give the file itself"),
    ("pointer", "run that command and try again"),
    ("an empty file", "fetch it again"),
    ("an HTML page", "download the file that the page is about"),
)
"""What to do with a file of another kind, by words of `describe_kind`."""


def read_bytes(path: Path) -> bytes:
    """The whole file, so that what is hashed is what is read. Raises CheckpointError."""
    try:
        check_ordinary(path)
        return path.read_bytes()
    except MemoryError as error:
        raise CheckpointError(f"{path} is larger than the memory: it is no checkpoint of a network here") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error


def read_content(data: bytes, path: Path) -> Any:
    """What torch.save wrote: tensors on the CPU, plain values, and stand-ins.

    Args:
        data: the file's bytes, in the zip format or that before PyTorch 1.6.
        path: the file, for messages.

    Raises:
        CheckpointError: one line: damaged, of another kind, holding objects that could run code, or tensors that claim
            more than the file has.
    """
    _check_parts(data, path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_stand_ins()):
            warnings.simplefilter("ignore")
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the damaged content happens to trigger
        raise _unreadable(path, error) from error
    for tensor in _tensors(content):
        if tensor.layout == torch.strided and tensor.device.type == "cpu" and tensor.nbytes > max(len(data), _SMALL):
            raise CheckpointError(
                f"{path} is damaged or made to deceive: a tensor in it claims {tensor.nbytes} bytes, the file has"
                f" {len(data)}"
            )
    return content


def as_tensor(value: Any) -> Tensor | None:
    """A tensor or an array of numbers as a tensor; None for anything else."""
    if isinstance(value, PlainArray) and value.values is not None:
        return torch.from_numpy(value.values)
    return value if type(value) in (Tensor, torch.nn.Parameter) else None


class Unread:
    """Stands for a value beside the weights that nothing here needs; keeps nothing of it."""

    def __new__(cls, *_arguments: Any) -> Unread:
        """Whatever the arguments."""
        return super().__new__(cls)

    def __init__(self, *_arguments: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


class PlainType:
    """Stands for `numpy.dtype`: the name of a type of numbers, and their byte order."""

    def __init__(self, code: Any = "", *_flags: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    @property
    def dtype(self) -> np.dtype | None:
        """The type; None where it is none of plain numbers."""
        numbers = isinstance(self.code, str) and re.fullmatch(r"b1|[iu][1248]|f[248]", self.code)
        return np.dtype(self.code).newbyteorder(self.order) if numbers and self.order in ("<", ">", "|", "=") else None


class PlainArray:
    """Stands for `numpy.ndarray`: numbers, or nothing where it holds something else."""

    def __init__(self, *_arguments: Any) -> None:
        self.values: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, kind, by_columns, data = state
        if isinstance(kind, PlainType) and kind.dtype is not None and isinstance(data, bytes):
            flat = np.frombuffer(data, kind.dtype)
            native = flat.astype(kind.dtype.newbyteorder("="))
            self.values = native.reshape(shape, order="F" if by_columns else "C").copy()


def _scalar(kind: Any, data: Any = b"") -> Any:
    """Stands for NumPy's maker of single numbers."""
    if not isinstance(kind, PlainType) or kind.dtype is None or not isinstance(data, bytes):
        return Unread()
    return np.frombuffer(data, kind.dtype, count=1)[0].item()


def _empty_dict(*_factory: Any) -> dict[Any, Any]:
    return {}


def _empty_list(*_length: Any) -> list[Any]:
    return []


_UNREAD = {
    "argparse": ("Namespace",),
    "types": ("SimpleNamespace",),
    "torch.torch_version": ("TorchVersion",),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "uuid": ("UUID",),
    "builtins": ("list", "dict", "int", "float", "str", "bool", "tuple", "frozenset", "slice", "range"),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "pathlib": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "pathlib._local": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "numpy": ("bool_", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8"),
}
"""Classes by module whose values may stand beside the weights and are dropped."""


@cache
def _stand_ins() -> list[Any]:
    """What each name that PyTorch does not know stands for here, as `torch.serialization.safe_globals` takes it."""
    table: dict[str, Any] = {f"{module}.{name}": Unread for module, names in _UNREAD.items() for name in names}
    table |= {"collections.defaultdict": _empty_dict, "collections.deque": _empty_list, "numpy.dtype": PlainType}
    table["numpy.ndarray"] = PlainArray
    for package in ("numpy.core", "numpy._core"):
        table |= {f"{package}.multiarray.scalar": _scalar, f"{package}.multiarray._reconstruct": PlainArray}
    return [(stand_in, name) for name, stand_in in table.items()]


def _check_parts(data: bytes, path: Path) -> None:
    """Compare the checksums of a zip-format file, which torch itself ignores: a flipped bit would become a weight."""
    try:
        if not zipfile.is_zipfile(io.BytesIO(data)):
            return
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
            damaged = archive.testzip() if unpacked <= max(_MOST_UNPACKED * len(data), _SMALL) else None
    except Exception as error:  # zipfile raises many kinds for damaged files
        raise CheckpointError(f"{path} is damaged: {one_line(error)}") from error
    if unpacked > max(_MOST_UNPACKED * len(data), _SMALL):
        raise CheckpointError(f"{path} is made to deceive: its {len(data)} bytes unpack to {unpacked}")
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: the checksum of its part {damaged!a} is wrong")


def _tensors(content: Any) -> Iterator[Tensor]:
    """Every tensor once. Without recursion, since a file may nest without end, or hold itself."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    """Why PyTorch could not read it, in words of this program where its own are a page about defaults."""
    blocked = re.search(r"(?:GLOBAL|global|class|function) '?<?([\w.]+)", str(error))
    if blocked and type(error).__name__ == "UnpicklingError":
        return CheckpointError(
            f"{path} holds Python objects that could run code ({blocked[1][:80]}), and only tensors and plain values"
            " are read: if you trust it, write its weights alone where those classes are known: c = torch.load(FILE,"
            " map_location='cpu', weights_only=False), then torch.save(c.state_dict(), 'weights.pth') of a network or"
            " torch.save(c['state_dict'], 'weights.pth') of a dict"
        )
    kind = _kind(path)
    if kind is not None and kind not in _CHECKPOINT_KINDS:
        advice = next((f"; {advice}" for words, advice in _ADVICE if words in kind), "")
        return CheckpointError(f"{path} is no checkpoint: it is {kind}{advice}")
    if "PytorchStreamReader" in str(error):
        return CheckpointError(f"{path} is damaged or cut off, expected a whole checkpoint: copy it again")
    reason = "PyTorch cannot read it" if "weights_only" in str(error) else one_line(error)
    return CheckpointError(f"{path} is damaged or not a checkpoint: {reason}")


def _kind(path: Path) -> str | None:
    try:
        return describe_kind(path)
    except OSError:
        return None


def shown(name: Any) -> str:
    """A name out of a file as it may stand in a line: short and visible."""
    text = visible(name) if isinstance(name, str) else ascii(name)
    return text if len(text) <= 80 else f"{text[:77]}..."


def listed(names: Sequence[Any], most: int = 4) -> str:
    """The first `most` of some names out of a file, and how many more there are."""
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shown, names[:most])) + more


def one_line(error: Exception) -> str:
    """The error's text, short and without line breaks."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."
