"""Compiled loops give the numbers of the plain operations, to the last bit."""

from __future__ import annotations

import builtins
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from recu.kernels import sign_network
from recu.runtime.compiled_network import CompiledNetwork
from recu.runtime.network import Network
from recu.runtime.opening import StartingNetwork
from recu.runtime.reader import PackedError

RANDOM = np.random.default_rng(0)
SIDES = {"stride": [2, 1], "padding": [1, 2]}


def reals(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def binary(of: list[int], filters: int, channels: int, *, zeros: bool = False, **more: Any) -> dict[str, Any]:
    weight = RANDOM.choice(np.int8([-1, 1]), (filters, 3, 3, channels))
    if zeros:
        weight[0, 0, 0, 0] = 0
    return {"op": "binary", "of": of, "weight": weight, "stride": [1, 1], "padding": [1, 1], **more}


def affine(filters: int) -> dict[str, Any]:
    return {"scale": reals(filters), "factor": reals(filters), "shift": reals(filters), "hardtanh": True}


def every_operation(*, zeros: bool = False) -> list[dict[str, Any]]:
    return [
        {"op": "convolution", "of": [0], "weight": reals(16, 3, 5, 3), "bias": reals(16), **SIDES},
        {"op": "norm", "of": [1], "factor": reals(16), "shift": reals(16)},
        {"op": "hardtanh", "of": [2], "low": -1.0, "high": 1.0},
        {"op": "max_pool", "of": [3], "window": [3, 3], "stride": [2, 2], "padding": [1, 1]},
        binary([4], 20, 16, threshold=np.int32([2**31 - 1, -(2**31), *RANDOM.integers(-5, 5, 18)])),
        binary([5, 4], 16, 20, zeros=zeros, **affine(16)),
        {"op": "bias", "of": [6], "shift": reals(16)},
        {"op": "prelu", "of": [7], "slope": reals(16)},
        {"op": "scale", "of": [6], "factor": reals(16)},
        {"op": "add", "of": [8, 9]},
        {"op": "sign", "of": [10]},  # no step: NumPy's
        {"op": "add", "of": [10, 11]},
        {"op": "average_pool", "of": [12], "window": [2, 2], "stride": [2, 2]},
        {"op": "pad_channels", "of": [13], "before": 3, "after": 5},
        {"op": "subsample", "of": [14], "step": 2},
        {"op": "norm", "of": [15], "factor": reals(24), "shift": reals(24)},  # its hardtanh has other bounds
        {"op": "hardtanh", "of": [16], "low": -0.5, "high": 2.0},
        {"op": "mean", "of": [17]},
        {"op": "flatten", "of": [18]},
        {"op": "flatten", "of": [17]},
        {"op": "linear", "of": [19], "weight": reals(7, 24), "bias": reals(7)},
    ]  # fmt: skip


@pytest.mark.parametrize("zeros", [False, True], ids=["signs", "a weight without a sign"])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_operation(zeros, threads) -> None:
    operations = every_operation(zeros=zeros)
    plain, compiled = Network(operations), CompiledNetwork(operations, 16, threads)
    for size in (16, 21):
        images = reals(5, size, size, 3)
        images[:, ::3] = 0
        images[2, 1, 1] = np.nan
        assert np.array_equal(compiled(images), plain(images), equal_nan=True)
        assert np.array_equal(compiled(images[:1]), plain(images[:1]))


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_images_that_threads_share(threads, monkeypatch) -> None:
    monkeypatch.setattr(sign_network, "_LEAST_WORK", 1)
    operations = every_operation()
    network = CompiledNetwork(operations, 21, threads)
    images = reals(2, 21, 21, 3)
    images[:, ::3] = 0
    images[1, 1, 1] = np.nan
    expected = Network(operations)(images)
    for _ in range(20):
        assert np.array_equal(network(images), expected, equal_nan=True)
        assert np.array_equal(network(images[1:]), expected[1:], equal_nan=True)


def test_sums_that_two_bytes_do_not_hold_are_numpys() -> None:
    weight = np.ones((2, 3, 3, 4_000), np.int8)
    sides = {"stride": [1, 1], "padding": [0, 0]}
    operations = [
        {"op": "convolution", "of": [0], "weight": np.ones((4_000, 1, 1, 3), np.float32), **sides},
        {"op": "binary", "of": [1], "weight": weight, "scale": np.float32([1]), **sides},
    ]
    found = CompiledNetwork(operations, 3, 1)(np.ones((1, 3, 3, 3), np.float32))
    assert found.tolist() == [[[[36_000.0, 36_000.0]]]]


def test_a_hardtanh_whose_norm_is_numpys_is_not_lost() -> None:
    operations = [
        {"op": "convolution", "of": [0], "weight": 3 * reals(4, 1, 1, 3), "stride": [2, 1], "padding": [0, 0]},
        {"op": "norm", "of": [1], "factor": 3 * reals(4), "shift": reals(4)},
        {"op": "average_pool", "of": [1], "window": None},  # of an oblong image: no program, for none of this part
        {"op": "relu", "of": [3]},  # NumPy's
        {"op": "hardtanh", "of": [2], "low": -1.0, "high": 1.0},
        {"op": "mean", "of": [5]},
    ]
    images = 3 * reals(2, 6, 6, 3)
    assert np.array_equal(CompiledNetwork(operations, 6, 1)(images), Network(operations)(images))


def test_what_nothing_reads_is_not_computed() -> None:
    ones = np.ones(3, np.float32)
    operations = [{"op": "norm", "of": [0], "factor": ones, "shift": ones}, {"op": "relu", "of": [0]}]
    operations.append({"op": "flatten", "of": [2]})
    images = reals(1, 2, 2, 3)
    assert np.array_equal(CompiledNetwork(operations, 2, 1)(images), Network(operations)(images))


def test_an_infinite_weight_over_padding() -> None:
    weight = np.ones((1, 3, 3, 3), np.float32)
    weight[0, 0, 0, 0] = np.inf
    operations = [{"op": "convolution", "of": [0], "weight": weight, "stride": [1, 1], "padding": [1, 1]}]
    images = np.ones((1, 3, 3, 3), np.float32)
    expected = Network(operations)(images)
    assert np.isnan(expected).any()
    assert np.array_equal(CompiledNetwork(operations, 3, 1)(images), expected, equal_nan=True)


_GUARDED = """
import ctypes, mmap
import numpy as np
from recu.kernels import sign_network
from recu.runtime.compiled_network import CompiledNetwork
from recu.runtime.network import Network

kept = []

def guarded(size, dtype):
    kind = np.dtype(dtype)
    pages = -(-max(size * kind.itemsize, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, pages + mmap.PAGESIZE)
    kept.append(memory)
    end = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + pages
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(end), mmap.PAGESIZE, 0) == 0
    return np.frombuffer(memory, np.uint8, pages)[pages - size * kind.itemsize :].view(kind)

generator = np.random.default_rng(0)
sign_network._LEAST_WORK = 1
for channels, side in ((64, 6), (96, 7), (128, 7)):
    sides = {"stride": [1, 1], "padding": [1, 1]}
    weight = generator.choice(np.int8([-1, 1]), (64, 3, 3, channels))
    real = generator.standard_normal((channels, 1, 1, 3)).astype(np.float32)
    operations = [
        {"op": "convolution", "of": [0], "weight": real, "stride": [1, 1], "padding": [0, 0]},
        {"op": "binary", "of": [1], "weight": weight, "scale": np.ones(1, np.float32), **sides},
    ]
    network = CompiledNetwork(operations, side, 2)
    sign_network.aligned_empty = guarded
    images = generator.standard_normal((1, side, side, 3)).astype(np.float32)
    assert np.array_equal(network(images), Network(operations)(images))
print("read nothing beyond")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect and sizes of pages as on Linux")
def test_nothing_is_read_beyond_the_memory_that_threads_share() -> None:
    done = subprocess.run([sys.executable, "-c", _GUARDED], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "read nothing beyond\n"), done.stderr


def test_results_that_are_images() -> None:
    operations = every_operation()[:10]
    images = reals(2, 16, 16, 3)
    found = CompiledNetwork(operations, 16, 1)(images)
    assert found.ndim == 4 and np.array_equal(found, Network(operations)(images))


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        ({"op": "warp", "of": [0]}, "which this version does not know"),
        ({"op": "norm", "of": [0]}, "another form"),
        ({"op": "convolution", "of": [0], "weight": None, "stride": [1, 1], "padding": [0, 0]}, "another form"),
    ],
)
def test_what_is_no_operation_is_refused(operation, said) -> None:
    with pytest.raises(PackedError, match=said):
        CompiledNetwork([operation], 8, 1)


def test_a_few_images_are_numpys_and_more_the_loops() -> None:
    operations, images = every_operation(), reals(9, 32, 32, 3)
    network = StartingNetwork(operations)
    first = network(images[:8])
    assert isinstance(network._compute, Network)
    assert np.array_equal(np.concatenate([first, network(images[8:])]), Network(operations)(images))
    assert isinstance(network._compute, CompiledNetwork)


def test_without_numba_numpy_computes_and_says_so(monkeypatch, caplog) -> None:
    operations, images = every_operation(), reals(9, 32, 32, 3)
    found = builtins.__import__

    def without_numba(name: str, *rest: Any) -> Any:
        if name == "recu.runtime.compiled_network":
            raise ImportError("No module named 'numba'", name="numba")
        return found(name, *rest)

    network = StartingNetwork(operations)
    monkeypatch.setattr(builtins, "__import__", without_numba)
    logits = network(images)
    network(images)
    monkeypatch.undo()
    assert isinstance(network._compute, Network) and caplog.text.count("numba is not installed") == 1
    assert np.array_equal(logits, Network(operations)(images))
