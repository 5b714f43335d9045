"""NVIDIA DALI behind the same protocol: decoding on the GPU, or on the CPU where there is none.

Geometry is drawn and computed by `recu.data.load.transforms`, so that both loaders show the network the same parts of
the same images; DALI decodes, cuts, resizes (triangular filter, anti-aliased like Pillow's bilinear) and mirrors. As in
the authors' DALI pipeline there is no lighting noise.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from recu.base.errors import ConfigError, DataError
from recu.data.decoding import as_rgb, open_image, opened_image, unusable
from recu.data.index import FileIndex
from recu.data.load.plain_view import Box, validation_geometry
from recu.data.load.split_loader import Request, Settings, SplitLoader
from recu.data.load.torchvision_loader import image_generator
from recu.data.load.transforms import draw_box, draw_flip
from recu.data.opening import open_index
from recu.experiment.augmentations import CROP_SCALES
from recu.experiment.schema import TestView


def require_dali() -> None:
    """Check that DALI can be imported.

    Raises:
        ConfigError: it is not installed; the message names the package for each CUDA.
    """
    try:
        import nvidia.dali  # noqa: F401
    except ImportError as error:
        message = "the DALI loader needs NVIDIA DALI, which is not installed: `pip install nvidia-dali-cuda130`"
        hosts = "for CUDA 13 or without a GPU, nvidia-dali-cuda110 from NVIDIA's own package index for CUDA 11"
        raise ConfigError(f"{message} ({hosts}), or leave out --use_dali") from error


@dataclass(frozen=True, slots=True)
class _Sample:
    """One image on its way into the pipeline."""

    index: int
    data: bytes
    part: Box
    """What is cut out of the decoded image."""
    resized: tuple[int, int]
    """Height and width the part is resized to."""
    kept: Box
    """What is cut out after resizing."""
    flip: bool


def build(request: Request) -> DaliLoader:
    """The loader of a split that stays files; a `recu.data.load.split_loader.Builder`."""
    dataset = request.dataset
    return DaliLoader(
        open_index(request.prepared, request.split),
        crop_scale=CROP_SCALES[dataset.augmentation] if request.trains else None,
        test_view=dataset.seen_as,
        size=dataset.image_size,
        **request.settings,
    )


class DaliLoader(SplitLoader):
    """Batches of image files decoded by DALI; see `recu.data.load.loader.Loader`."""

    def __init__(
        self,
        index: FileIndex,
        *,
        crop_scale: tuple[float, float] | None,
        test_view: TestView,
        size: int,
        **settings: Unpack[Settings],
    ) -> None:
        """A loader of one split.

        Args:
            index: the split's files.
            crop_scale: share of the image's area that a random part covers in training; None of test images.
            test_view: how test images are seen.
            size: side of the network's input in pixels.
            settings: see `SplitLoader`; on a GPU decoding happens there, `workers` are DALI's threads, at least one.

        Raises:
            ConfigError: DALI is not installed.
        """
        require_dali()
        super().__init__(len(index.paths), **settings)
        self._index = index
        self._crop_scale = crop_scale
        self._test_view = test_view
        self._size = size
        self._labels = torch.from_numpy(index.labels)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """See `recu.data.load.loader.Loader.batches`."""
        self.skipped = 0
        readable = (self._read(numbers, epoch) for numbers in self._numbers(epoch, start))
        pipeline = self._build_pipeline()
        empty, in_work = _feed_next(pipeline, readable)
        while True:
            for _ in range(empty):
                yield self._nothing(self._size)
            if in_work is None:
                return
            try:
                images = self._take(pipeline)
            except RuntimeError as error:
                # DALI does not say which image it was, and its pipeline is of no further use.
                left = self._without_unreadable(in_work, error)
                pipeline = self._build_pipeline()
                empty, in_work = _feed_next(pipeline, itertools.chain([left], readable))
                continue
            labels = self._labels[[sample.index for sample in in_work]]
            empty, in_work = _feed_next(pipeline, readable)  # DALI makes it while the network works on this one
            yield self._normalised(images), labels.to(self._device, non_blocking=True)

    def _read(self, numbers: list[int], epoch: int) -> list[_Sample]:
        """The batch's images with their geometry, without those that are cut off or whose header is unreadable."""
        samples = []
        for number in numbers:
            path = self._index.path(number)
            try:
                data, height, width = _as_dali_takes_it(self._index.read(number), str(path))
                samples.append(self._sample(number, data, height, width, epoch))
            except DataError as error:
                self._note(unusable(str(path), error))
        return samples

    def _sample(self, number: int, data: bytes, height: int, width: int, epoch: int) -> _Sample:
        size = self._size
        if self._seed is None or self._crop_scale is None:
            whole = (size, size), Box(0, 0, size, size)
            resized, kept = whole if self._test_view == "resize" else validation_geometry(height, width, size)
            return _Sample(number, data, Box(0, 0, height, width), resized, kept, False)
        generator = image_generator(self._seed, epoch, number)
        part = draw_box(height, width, self._crop_scale, generator)
        return _Sample(number, data, part, (size, size), Box(0, 0, size, size), draw_flip(generator))

    def _without_unreadable(self, samples: list[_Sample], cause: RuntimeError) -> list[_Sample]:
        """The samples that can be decoded, after a failure inside DALI.

        Raises:
            DataError: an unreadable image is not to be skipped, or none is at fault.
        """
        readable = []
        for sample in samples:
            try:
                open_image(sample.data, str(self._index.path(sample.index)))
                readable.append(sample)
            except DataError as error:
                self._note(error)
        if len(readable) == len(samples):
            reason = " ".join(str(cause).split())[:200]
            raise DataError(f"DALI failed on images that are readable ({reason}); leave out --use_dali") from cause
        return readable

    def _take(self, pipeline: Any) -> Tensor:
        """The oldest batch in flight: uint8 (B, S, S, 3) on the loader's device."""
        (output,) = pipeline.share_outputs()
        images = torch.from_numpy(np.array(output.as_array())) if self._device.type == "cpu" else self._copied(output)
        pipeline.release_outputs()
        return images

    @cached_property
    def _copying(self) -> torch.cuda.Stream:
        """For copies alone: in PyTorch's own stream they would wait for the steps before them."""
        return torch.cuda.Stream(self._device)

    def _copied(self, output: Any) -> Tensor:
        """A batch on the GPU as a copy that is there: once released, DALI writes the next batch over it at any time."""
        with torch.cuda.stream(self._copying):
            images: Tensor = torch.from_dlpack(output.as_tensor()).clone()  # type: ignore[attr-defined]
        images.record_stream(torch.cuda.current_stream(self._device))
        self._copying.synchronize()
        return images

    def _build_pipeline(self) -> Any:
        from nvidia.dali import fn, pipeline_def, types

        gpu = self._device.type == "cuda"

        @pipeline_def(  # type: ignore[untyped-decorator]
            batch_size=self.batch_size,
            num_threads=max(1, self._workers),
            device_id=(self._device.index or 0) if gpu else None,
            prefetch_queue_depth=1,
        )
        def build() -> Any:
            encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
            integers = {
                name: fn.external_source(name=name, dtype=types.INT32, ndim=1)
                for name in ("part_start", "part_shape", "kept_start", "kept_shape")
            }
            resized = fn.external_source(name="resized", dtype=types.FLOAT, ndim=1)
            flip = fn.external_source(name="flip", dtype=types.INT32, ndim=0)
            # Decodes little more than the part, to the same pixels. Orientation tags are ignored, as torchvision and
            # Pillow do.
            images = fn.decoders.image_slice(
                encoded,
                integers["part_start"],
                integers["part_shape"],
                axes=[0, 1],
                device="mixed" if gpu else "cpu",
                output_type=types.RGB,
                adjust_orientation=False,
            )
            images = fn.resize(images, size=resized, interp_type=types.INTERP_TRIANGULAR, antialias=True)
            images = fn.slice(images, integers["kept_start"], integers["kept_shape"], axes=[0, 1])
            return fn.flip(images, horizontal=flip)

        pipeline = build()
        pipeline.build()
        return pipeline


def _as_dali_takes_it(data: bytes, name: str) -> tuple[bytes, int, int]:
    """The encoded image, its height and width.

    Only of ordinary JPEGs DALI gives the pixels of `recu.data.decoding.open_image`; everything else (16 bits,
    palettes, animations, CMYK) is decoded by that and handed on as an uncompressed PNG.

    Raises:
        DataError: it is unreadable.
    """
    with opened_image(data, name) as image:
        width, height = image.size
        if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
            if not data.endswith(b"\xff\xd9"):
                image.load()  # DALI decodes no further than the part, and would not see that the rest is missing
            return data, height, width
        stream = io.BytesIO()
        as_rgb(image, name).save(stream, "PNG", compress_level=0)
        return stream.getvalue(), height, width


def _feed_next(pipeline: Any, batches: Iterator[list[_Sample]]) -> tuple[int, list[_Sample] | None]:
    """Hand the next batch that holds any image to the pipeline and let it start.

    Returns:
        How many empty batches came before it, and its samples; None where there is no further one.
    """
    empty = 0
    for samples in batches:
        if samples:
            _feed(pipeline, samples)
            return empty, samples
        empty += 1
    return empty, None


def _feed(pipeline: Any, samples: list[_Sample]) -> None:
    """Hand a batch to the pipeline and let it start."""
    pipeline.feed_input("encoded", [np.frombuffer(sample.data, dtype=np.uint8) for sample in samples])
    for name, boxes in (("part", [sample.part for sample in samples]), ("kept", [sample.kept for sample in samples])):
        pipeline.feed_input(f"{name}_start", [np.array([box.top, box.left], dtype=np.int32) for box in boxes])
        pipeline.feed_input(f"{name}_shape", [np.array([box.height, box.width], dtype=np.int32) for box in boxes])
    pipeline.feed_input("resized", [np.array(sample.resized, dtype=np.float32) for sample in samples])
    pipeline.feed_input("flip", [np.array(int(sample.flip), dtype=np.int32) for sample in samples])
    pipeline.schedule_run()
