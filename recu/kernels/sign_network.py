"""A network's layers between the first convolution and the last pooling, image by image in one call.

Layer by layer every image of a batch passes through memory once and more a layer. Here a thread takes an image through
all layers before it takes the next, so that what a layer writes is still in the cache when the next one reads it, and a
single image pays for one call instead of one for each layer. Where there are more threads than images, all of them
share an image, a layer's rows in pieces (`recu.kernels.pieces`). Every value is that of the layers one by one, to the
last bit: the loops are those of `recu.kernels.sign_codes`.

A `Program` is built step by step, then run on arrays. Nothing here needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from recu.kernels.aligned import aligned_empty
from recu.kernels.compiled import compiled, in_threads
from recu.kernels.pieces import done, draw, in_pieces, wait_for
from recu.kernels.real_sums import OUTPUTS, POSITIONS, add_products, in_blocks
from recu.kernels.sign_codes import (
    Affine,
    FilterCodes,
    Geometry,
    SignCodes,
    bounds_of,
    image_to_signs,
    image_to_values,
    normalise_image,
    pack_image,
    rooms,
)
from recu.kernels.sign_lookup import SIGNS, products

_VALUES, _SIGNS, _NORMALISE, _PACK, _AVERAGE, _LARGEST, _PRELU, _ADD, _REALS, _MEAN, _FLATTEN = range(11)
"""What a step does."""
_ALIGNMENT = 64
_LEAST_WORK = 1 << 20
"""Products of signs that a piece of a step has at least, 4 to 8 microseconds: another thread takes up a piece within
half a microsecond. With less a network of few channels gains nothing."""
_PRODUCTS_PER_REAL, _PRODUCTS_PER_VALUE = 32, 64
"""Products of signs that take as long as one of real numbers, and as a step over single values takes for one."""


class Shape(NamedTuple):
    """Of one image."""

    height: int
    width: int
    channels: int

    @property
    def size(self) -> int:
        """Numbers it has."""
        return self.height * self.width * self.channels


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """Real values of one image that a step wrote, at a place of the memory for them."""

    shape: Shape
    place: int


@dataclass(frozen=True, slots=True, eq=False)
class Signs:
    """Signs of one image that a step wrote, as codes with a padding, at a place of the memory for them."""

    shape: Shape
    padding: tuple[int, int]
    place: int

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """Of the codes, with their padding."""
        (down, across), (height, width, channels) = self.padding, self.shape
        return height + 2 * down, width + 2 * across, -(-channels // SIGNS)


_FIELDS = (
    *("kind", "source", "out", "residual", "constants", "clips"),
    *("in_height", "in_width", "in_channels", "height", "width", "channels"),
    *("codes_in", "numbers", "taps", "padded_filters", "starts", "starts_size", "offsets", "run", "rows", "row_step"),
    *("codes_out", "down", "across", "window", "stride", "padding"),
    *("window_across", "stride_across", "padding_across", "adds_bias"),
    *("first_piece", "pieces"),
)
"""Of a step, in whole numbers: sizes, and places in the arrays of a program; -1 for none."""
_STEP = np.dtype([(name, np.int64) for name in _FIELDS])


class Program:
    """Steps over the values of one image, (H, W, C) each, and the memory they need.

    Args:
        dtype: float32 or float64, of all values.
        inputs: shapes of what the program is given.

    Attributes:
        inputs: what stands for each of these.
    """

    def __init__(self, dtype: np.dtype, inputs: Sequence[Shape]) -> None:
        self._dtype = np.dtype(dtype)
        self._steps: list[dict[str, int]] = []
        self._constants, self._reals, self._bounds, self._numbers, self._places = (
            _Pool(np.dtype(kind)) for kind in (self._dtype, np.float64, np.int16, np.uint8, np.int64)
        )
        self._values, self._codes = _Memory(), _Memory()
        self.inputs = [self._new_values(shape) for shape in inputs]
        self._outputs: list[Values] = []
        self._arrays: tuple[np.ndarray, ...] | None = None

    @property
    def memory(self) -> tuple[int, int]:
        """Values and codes that there must be room for, for one image."""
        return self._values.size, self._codes.size

    def convolve_to_values(
        self,
        signs: Signs,
        filters: FilterCodes,
        stride: tuple[int, int],
        affine: Affine,
        *,
        residual: Values | None = None,
        hardtanh: bool = False,
        in_place: bool = False,
        code_padding: tuple[int, int] | None = None,
    ) -> tuple[Values, Signs | None]:
        """As `sign_codes.convolve_to_values`; the residual must have the result's shape."""
        step, shape = self._convolution(signs, filters, stride)
        if residual is not None and residual.shape != shape:
            raise ValueError(f"the residual's shape is {residual.shape}, the convolution's {shape}")
        out = residual if in_place and residual is not None else self._new_values(shape)
        codes = None if code_padding is None else self._new_signs(shape, code_padding)
        step |= {
            "kind": _VALUES,
            "out": out.place,
            "residual": -1 if residual is None else residual.place,
            "constants": self._constants.add(*(np.tile(values, shape.width) for values in affine)),
            "clips": int(hardtanh),
        }
        self._steps.append(step | _codes_of(codes))
        return out, codes

    def convolve_to_signs(
        self,
        signs: Signs,
        filters: FilterCodes,
        stride: tuple[int, int],
        direction: np.ndarray,
        threshold: np.ndarray,
        code_padding: tuple[int, int],
    ) -> Signs:
        """As `sign_codes.convolve_to_signs`."""
        step, shape = self._convolution(signs, filters, stride)
        bounds = (np.tile(values, shape.width) for values in bounds_of(direction, threshold))
        codes = self._new_signs(shape, code_padding)
        self._steps.append(step | {"kind": _SIGNS, "constants": self._bounds.add(*bounds)} | _codes_of(codes))
        return codes

    def normalise(
        self,
        values: Values,
        factor: np.ndarray,
        shift: np.ndarray,
        *,
        hardtanh: bool = False,
        code_padding: tuple[int, int] | None = None,
    ) -> Signs | None:
        """As `sign_codes.normalise`: the values are overwritten."""
        codes = None if code_padding is None else self._new_signs(values.shape, code_padding)
        constants = self._constants.add(*(np.tile(each, values.shape.width) for each in (factor, shift)))
        step = {"kind": _NORMALISE, "out": values.place, "constants": constants, "clips": int(hardtanh)}
        self._steps.append(step | values.shape._asdict() | _codes_of(codes))
        return codes

    def pack(self, values: Values, padding: tuple[int, int]) -> Signs:
        """As `sign_codes.pack_images`."""
        codes = self._new_signs(values.shape, padding)
        self._steps.append({"kind": _PACK, "out": values.place} | values.shape._asdict() | _codes_of(codes))
        return codes

    def average(self, values: Values, stride: int, before: int, after: int) -> Values:
        """Average pooling over stride x stride, fewer at the far edges, between `before` and `after` channels of 0."""
        height, width, channels = values.shape
        shape = Shape(-(-height // stride), -(-width // stride), before + channels + after)
        return self._pooling(values, shape, {"kind": _AVERAGE, "stride": stride, "padding": before})

    def largest(self, values: Values, window: int, stride: int, padding: int) -> Values:
        """Maximum pooling over window x window with padding on all sides; what is not a number stays so."""
        height, width = (
            (side + 2 * padding - window) // stride + 1 for side in (values.shape.height, values.shape.width)
        )
        shape = Shape(height, width, values.shape.channels)
        step = {"kind": _LARGEST, "window": window, "stride": stride, "padding": padding}
        return self._pooling(values, shape, step)

    def prelu(self, values: Values, slope: np.ndarray) -> None:
        """Write values * slope (C,) over those that are not above 0."""
        constants = self._constants.add(np.tile(slope, values.shape.width))
        self._steps.append({"kind": _PRELU, "out": values.place, "constants": constants} | values.shape._asdict())

    def add(self, first: Values, second: Values) -> Values:
        """The sum of two values of one shape."""
        out = self._new_values(first.shape)
        step = {"kind": _ADD, "source": first.place, "residual": second.place, "out": out.place}
        self._steps.append(step | first.shape._asdict())
        return out

    def convolve_reals(
        self,
        values: Values,
        weight: np.ndarray,
        bias: np.ndarray | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Values:
        """A convolution with real weights (O, kH, kW, I).

        Sums are in float64 by row, column and channel of the filter, with the bias (O,) last, and rounded once.
        """
        filters, *taps, _ = weight.shape
        terms = weight.reshape(filters, -1).T
        height, width = (
            (side + 2 * zeros - tap) // step + 1
            for side, zeros, tap, step in zip(values.shape[:2], padding, taps, stride, strict=True)
        )
        step = {
            "kind": _REALS,
            "constants": self._reals.add(in_blocks(terms).reshape(-1), np.zeros(filters) if bias is None else bias),
            "adds_bias": int(bias is not None),
            "window": taps[0],
            "window_across": taps[1],
            "stride": stride[0],
            "stride_across": stride[1],
            "padding": padding[0],
            "padding_across": padding[1],
        }
        return self._pooling(values, Shape(height, width, filters), step)

    def mean(self, values: Values) -> Values:
        """The mean of each channel over all pixels: a sum in float64 row by row, divided, rounded."""
        return self._pooling(values, Shape(1, 1, values.shape.channels), {"kind": _MEAN})

    def flatten(self, values: Values) -> Values:
        """As channels of one pixel, channel by channel and in each row by row."""
        return self._pooling(values, Shape(1, 1, values.shape.size), {"kind": _FLATTEN})

    def release(self, written: Values | Signs) -> None:
        """What no later step reads, whose memory a later one may take."""
        memory = self._values if isinstance(written, Values) else self._codes
        memory.release(written.place)

    def finish(self, outputs: Sequence[Values]) -> Program:
        """Name the results; nothing can be added any more."""
        self._outputs = list(outputs)
        steps = np.zeros(len(self._steps), _STEP)
        for row, step in zip(steps, self._steps, strict=True):
            for name in _FIELDS:
                row[name] = step.get(name, -1 if name in ("residual", "codes_out") else 0)
            row["pieces"] = _pieces_of(row)
        steps["first_piece"] = np.cumsum(steps["pieces"]) - steps["pieces"]
        pools = (self._constants, self._reals, self._bounds, self._numbers, self._places)
        self._arrays = (steps, *(pool.array() for pool in pools), products().reshape(-1))
        return self

    def run(self, inputs: Sequence[np.ndarray], threads: int) -> list[np.ndarray]:
        """Arrays (N, H, W, C) in one piece to the results, likewise; the inputs are left as they are."""
        if self._arrays is None:
            raise ValueError("a program is finished before it is run")
        count = len(inputs[0])
        for values, given in zip(self.inputs, inputs, strict=True):
            if given.shape != (count, *values.shape) or given.dtype != self._dtype:
                raise ValueError(f"a program for {self._dtype} {values.shape} was given {given.dtype} {given.shape}")
        outputs = [np.empty((count, *values.shape), self._dtype) for values in self._outputs]
        pieces = int(self._arrays[0]["pieces"].max(initial=1))
        if count < min(threads, pieces):
            self._run_together(inputs, outputs, min(threads, pieces))
            return outputs
        rows = (tuple(array.reshape(count, -1) for array in arrays) for arrays in (inputs, outputs))
        places = (tuple(values.place for values in each) for each in (self.inputs, self._outputs))
        in_threads(_run, threads, count, *self._arrays, self.memory, *rows, *places)
        return outputs

    def result_shape(self, signs: Signs, filters: FilterCodes, stride: tuple[int, int]) -> Shape:
        """Of a convolution."""
        return Shape(*_geometry_of(signs, filters, stride).size, filters.filters)

    def _run_together(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], threads: int) -> None:
        """Images one after the other, all threads on one."""
        assert self._arrays is not None
        # Each call its own memory, which a thread that comes too late may still know.
        memory = aligned_empty(self._values.size, self._dtype), aligned_empty(self._codes.size, np.uint8)
        for image in range(len(inputs[0])):
            for values, given in zip(self.inputs, inputs, strict=True):
                memory[0][values.place :][: values.shape.size] = given[image].reshape(-1)
            in_pieces(_run_pieces, threads, len(self._arrays[0]), *self._arrays, *memory)
            for values, result in zip(self._outputs, outputs, strict=True):
                result[image].reshape(-1)[:] = memory[0][values.place :][: values.shape.size]

    def _convolution(self, signs: Signs, filters: FilterCodes, stride: tuple[int, int]) -> tuple[dict[str, int], Shape]:
        geometry = _geometry_of(signs, filters, stride)
        shape = Shape(*geometry.size, filters.filters)
        taps, padded_filters = filters.numbers.shape
        step = {
            "codes_in": signs.place,
            "numbers": self._numbers.add(filters.numbers.reshape(-1)),
            "taps": taps,
            "padded_filters": padded_filters,
            "starts": self._places.add(geometry.starts),
            "starts_size": len(geometry.starts),
            "offsets": self._places.add(geometry.offsets),
            "run": geometry.run,
            "rows": geometry.rows,
            "row_step": geometry.row_step,
        }
        return step | shape._asdict(), shape

    def _pooling(self, values: Values, shape: Shape, step: dict[str, int]) -> Values:
        out = self._new_values(shape)
        sides = {"in_height": values.shape.height, "in_width": values.shape.width}
        step |= {"source": values.place, "out": out.place, "in_channels": values.shape.channels}
        self._steps.append(step | sides | shape._asdict())
        return out

    def _new_values(self, shape: Shape) -> Values:
        return Values(shape, self._values.take(shape.size))

    def _new_signs(self, shape: Shape, padding: tuple[int, int]) -> Signs:
        codes = Signs(shape, padding, 0)
        return Signs(shape, padding, self._codes.take(int(np.prod(codes.code_shape))))


def _pieces_of(step: np.void) -> int:
    """How many pieces of a step's rows are worth a thread each."""
    work = step["height"] * step["width"] * step["channels"]
    if step["kind"] in (_VALUES, _SIGNS):
        work *= step["taps"] * SIGNS
    elif step["kind"] == _REALS:
        work *= step["window"] * step["window_across"] * step["in_channels"] * _PRODUCTS_PER_REAL
    else:
        work *= _PRODUCTS_PER_VALUE
    return int(min(step["height"], max(1, work // _LEAST_WORK)))


def _geometry_of(signs: Signs, filters: FilterCodes, stride: tuple[int, int]) -> Geometry:
    # A stand-in for one image: a geometry depends on shapes alone.
    images = SignCodes(np.empty((1, *signs.code_shape), np.uint8), signs.padding, signs.shape.channels)
    return Geometry.of(images, filters, stride)


def _codes_of(signs: Signs | None) -> dict[str, int]:
    if signs is None:
        return {}
    return {"codes_out": signs.place, "down": signs.padding[0], "across": signs.padding[1]}


class _Pool:
    """Arrays behind one another."""

    def __init__(self, dtype: np.dtype) -> None:
        self._dtype, self._parts, self._size = dtype, [np.zeros(0, dtype)], 0

    def add(self, *parts: np.ndarray) -> int:
        """Where the first of them begins."""
        place = self._size
        self._parts += [part.astype(self._dtype, copy=False) for part in parts]
        self._size += sum(len(part) for part in parts)
        return place

    def array(self) -> np.ndarray:
        return np.concatenate(self._parts, out=aligned_empty(self._size, self._dtype))


class _Memory:
    """Places for arrays of which not all are needed at once."""

    def __init__(self) -> None:
        self.size = 0
        self._sizes: dict[int, int] = {}
        self._free: list[tuple[int, int]] = []

    def take(self, size: int) -> int:
        """The smallest free place that is large enough, or a new one."""
        size = -(-size // _ALIGNMENT) * _ALIGNMENT
        fitting = [(room, place) for room, place in self._free if room >= size]
        if fitting:
            room, place = min(fitting)
            self._free.remove((room, place))
        else:
            room, place = size, self.size
            self.size += size
        self._sizes[place] = room
        return place

    def release(self, place: int) -> None:
        self._free.append((self._sizes.pop(place), place))


@compiled
def _run(
    first,
    stop,
    steps,
    constants,
    reals,
    bounds,
    numbers,
    places,
    table,
    sizes,
    inputs,
    outputs,
    input_places,
    output_places,
):
    values, codes = np.empty(sizes[0], constants.dtype), np.empty(sizes[1], np.uint8)
    for image in range(first, stop):
        for i in range(len(inputs)):
            given = inputs[i][image]
            values[input_places[i] : input_places[i] + len(given)] = given
        for i in range(len(steps)):
            step = steps[i]
            _do(step, 0, step.height, values, codes, constants, reals, bounds, numbers, places, table)
        for i in range(len(outputs)):
            result = outputs[i][image]
            result[:] = values[output_places[i] : output_places[i] + len(result)]


@compiled
def _run_pieces(drawn, helps, steps, constants, reals, bounds, numbers, places, table, values, codes):
    for i in range(len(steps)):
        step = steps[i]
        part = draw(drawn, helps, i, step.pieces)
        while part >= 0:
            wait_for(drawn, step.first_piece)
            top, bottom = step.height * part // step.pieces, step.height * (part + 1) // step.pieces
            _do(step, top, bottom, values, codes, constants, reals, bounds, numbers, places, table)
            done(drawn)
            part = draw(drawn, helps, i, step.pieces)
    if not helps:
        last = steps[len(steps) - 1]
        wait_for(drawn, last.first_piece + last.pieces)


@compiled
def _do(step, first, last, values, codes, constants, reals, bounds, numbers, places, table):
    """Rows of a step's result, from the first to before the last."""
    if step.kind == _VALUES or step.kind == _SIGNS:
        _convolve(step, first, last, values, codes, constants, bounds, numbers, places, table)
    elif step.kind == _NORMALISE or step.kind == _PACK:
        _over_rows(step, first, last, values, codes, constants)
    elif step.kind == _AVERAGE:
        _average(step, first, last, values)
    elif step.kind == _LARGEST:
        _largest(step, first, last, values)
    elif step.kind == _REALS:
        _convolve_reals(step, first, last, values, reals)
    else:
        _rearrange(step, first, last, values, constants)


@compiled
def _image(memory, place, height, width, channels):
    return memory[place : place + height * width * channels].reshape(height, width, channels)


@compiled
def _codes_out(step, codes):
    """Room for the codes of a step's result, (0, 0, 0) where it writes none."""
    if step.codes_out < 0:
        return codes[:0].reshape(0, 0, 0)
    depth = (step.channels + SIGNS - 1) // SIGNS
    return _image(codes, step.codes_out, step.height + 2 * step.down, step.width + 2 * step.across, depth)


@compiled
def _convolve(step, first, last, values, codes, constants, bounds, numbers, places, table):
    filters = numbers[step.numbers : step.numbers + step.taps * step.padded_filters].reshape(
        step.taps, step.padded_filters
    )
    starts, offsets = places[step.starts :][: step.starts_size], places[step.offsets :][: step.taps]
    size = (step.height, step.width)
    geometry = Geometry(starts, offsets, step.run, step.rows, step.row_step, size, table)
    written, row = _codes_out(step, codes), step.width * step.channels
    room = rooms(geometry, filters, step.channels, written.shape[2])
    if step.kind == _SIGNS:
        direction, threshold = bounds[step.constants :][:row], bounds[step.constants + row :][:row]
        image_to_signs(
            step.codes_in,
            codes,
            filters,
            geometry,
            direction,
            threshold,
            step.channels,
            written,
            step.down,
            step.across,
            room,
            first,
            last,
        )
        return
    affine = (
        constants[step.constants :][:row],
        constants[step.constants + row :][:row],
        constants[step.constants + 2 * row :][:row],
    )
    out = _image(values, step.out, step.height, step.width, step.channels)
    adds, bound = step.residual >= 0, values.dtype.type(1.0 if step.clips else np.inf)
    added = _image(values, step.residual if adds else step.out, step.height, step.width, step.channels)
    image_to_values(
        step.codes_in,
        codes,
        filters,
        geometry,
        affine,
        added,
        adds,
        bound,
        out,
        written,
        step.down,
        step.across,
        room,
        first,
        last,
    )


@compiled
def _over_rows(step, first, last, values, codes, constants):
    row, image = step.width * step.channels, _image(values, step.out, step.height, step.width, step.channels)
    if step.kind == _NORMALISE:
        factor, shift = constants[step.constants :][:row], constants[step.constants + row :][:row]
        normalise_image(image[first:last], factor, shift, values.dtype.type(1.0 if step.clips else np.inf))
    written = _codes_out(step, codes)
    if len(written):
        signs = np.ones(step.width * written.shape[2] * SIGNS, np.uint8)
        pack_image(image, signs, written, step.down, step.across, first, last)


@compiled
def _average(step, first, last, values):
    source = _image(values, step.source, step.in_height, step.in_width, step.in_channels)
    out = _image(values, step.out, step.height, step.width, step.channels)
    out[first:last] = 0
    for y in range(first, last):
        bottom = min(step.in_height, (y + 1) * step.stride)
        for x in range(step.width):
            right = min(step.in_width, (x + 1) * step.stride)
            pixel = out[y, x, step.padding : step.padding + step.in_channels]
            for down in range(y * step.stride, bottom):
                for across in range(x * step.stride, right):
                    seen = source[down, across]
                    for c in range(len(pixel)):
                        pixel[c] += seen[c]
            seen_pixels = values.dtype.type((bottom - y * step.stride) * (right - x * step.stride))
            for c in range(len(pixel)):
                pixel[c] /= seen_pixels


@compiled
def _largest(step, first, last, values):
    source = _image(values, step.source, step.in_height, step.in_width, step.in_channels)
    out = _image(values, step.out, step.height, step.width, step.channels)
    out[first:last] = -np.inf
    for y in range(first, last):
        top = y * step.stride - step.padding
        for x in range(step.width):
            left, pixel = x * step.stride - step.padding, out[y, x]
            for down in range(max(top, 0), min(top + step.window, step.in_height)):
                for across in range(max(left, 0), min(left + step.window, step.in_width)):
                    seen = source[down, across]
                    for c in range(len(pixel)):
                        # Either what is larger or what is not a number.
                        pixel[c] = pixel[c] if seen[c] <= pixel[c] or pixel[c] != pixel[c] else seen[c]


@compiled
def _convolve_reals(step, begin, end, values, reals):
    source = _image(values, step.source, step.in_height, step.in_width, step.in_channels)
    out = _image(values, step.out, step.height, step.width, step.channels)
    taps, row = step.window * step.window_across * step.in_channels, step.in_width * step.in_channels
    blocks = (step.channels + OUTPUTS - 1) // OUTPUTS
    weights = reals[step.constants :][: blocks * taps * OUTPUTS].reshape(blocks, taps, OUTPUTS)
    bias = reals[step.constants + weights.size :][: step.channels]
    seen, sums = np.empty(step.window * row, np.float64), np.empty((POSITIONS, OUTPUTS), np.float64)
    for y in range(begin, end):
        top = y * step.stride - step.padding
        first, last = max(0, -top), min(step.window, step.in_height - top)
        for down in range(first, last):
            seen[(down - first) * row :][:row] = source[top + down].reshape(-1)
        for block in range(blocks):
            x, outputs = 0, min(OUTPUTS, step.channels - block * OUTPUTS)
            while x < step.width:
                left = x * step.stride_across - step.padding_across
                near, far = max(0, -left), min(step.window_across, step.in_width - left)
                inside = near == 0 and left + (POSITIONS - 1) * step.stride_across + step.window_across <= step.in_width
                positions = POSITIONS if inside and x + POSITIONS <= step.width else 1
                sums[:] = 0.0
                add_products(
                    positions,
                    sums,
                    seen,
                    (left + near) * step.in_channels,
                    step.stride_across * step.in_channels,
                    weights[block],
                    (first * step.window_across + near) * step.in_channels,
                    (far - near) * step.in_channels,
                    last - first,
                    row,
                    step.window_across * step.in_channels,
                )
                for position in range(positions):
                    pixel, total = out[y, x + position, block * OUTPUTS :], sums[position]
                    for o in range(outputs):
                        pixel[o] = total[o] + bias[block * OUTPUTS + o] if step.adds_bias else total[o]
                x += positions


@compiled
def _rearrange(step, first, last, values, constants):
    """What goes over single values: PReLU, sum, mean, flatten."""
    row = step.width * step.channels
    begin, size = first * row, (last - first) * row
    out = values[step.out + begin :][:size]
    if step.kind == _PRELU:
        slope = constants[step.constants :][:row]
        for y in range(last - first):
            line = out[y * row :][:row]
            for i in range(row):
                line[i] = line[i] if line[i] > 0 else line[i] * slope[i]
    elif step.kind == _ADD:
        one, other = values[step.source + begin :][:size], values[step.residual + begin :][:size]
        for i in range(size):
            out[i] = one[i] + other[i]
    else:
        pixels = step.in_height * step.in_width
        source = values[step.source :][: pixels * step.in_channels].reshape(pixels, step.in_channels)
        if step.kind == _MEAN:
            for c in range(step.in_channels):
                total = 0.0
                for i in range(pixels):
                    total += source[i, c]
                out[c] = total / pixels
        else:
            for i in range(pixels):
                for c in range(step.in_channels):
                    out[c * pixels + i] = source[i, c]
