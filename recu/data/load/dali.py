"""NVIDIA DALI behind the same protocol: decoding on the GPU, or on the CPU where there is none.

Geometry is drawn and computed by `recu.data.load.transforms`, so that both loaders show the network the same parts of
the same images; DALI decodes, cuts, resizes (triangular filter, anti-aliased like Pillow's bilinear) and mirrors. As in
the authors' DALI pipeline there is no lighting noise.
"""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recu.base.errors import AlteredData, ConfigError, DataError
from recu.data.decoding import as_rgb, open_image, opened_image
from recu.data.index import FileIndex
from recu.data.load.augmentation import normalise
from recu.data.load.loader import WHOLE, Share, count_batches
from recu.data.load.torchvision_loader import epoch_order, image_generator, unusable
from recu.data.load.transforms import Box, draw_box, draw_flip, validation_geometry
from recu.experiment.schema import TestView

_LOG = logging.getLogger(__name__)


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


class DaliLoader:
    """Batches of image files decoded by DALI; see `recu.data.load.loader.Loader`."""

    def __init__(
        self,
        index: FileIndex,
        *,
        crop_scale: tuple[float, float],
        test_view: TestView,
        size: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        batch_size: int,
        device: torch.device,
        seed: int | None,
        workers: int,
        skip_unreadable: bool = False,
        share: Share = WHOLE,
    ) -> None:
        """A loader of one split.

        Args:
            index: the split's files.
            crop_scale: share of the image's area that a random part covers in training.
            test_view: how test images are seen.
            size: side of the network's input in pixels.
            mean: per channel, of pixel values in [0, 1].
            std: likewise.
            batch_size: images a batch.
            device: where batches are delivered; on a GPU decoding happens there.
            seed: decides order and augmentation; None gives the test views in stored order.
            workers: DALI's threads, at least one.
            skip_unreadable: leave out images that cannot be read, with a warning, instead of stopping.
            share: of this process; DALI sees its images alone.

        Raises:
            ConfigError: DALI is not installed.
        """
        require_dali()
        self.num_images = len(index.paths)
        self.batch_size = batch_size
        self._share = share
        self.skipped = 0
        self._index = index
        self._crop_scale = crop_scale
        self._test_view = test_view
        self._size = size
        self._seed = seed
        self._device = device
        self._threads = max(1, workers)
        self._skip_unreadable = skip_unreadable
        self._labels = torch.from_numpy(index.labels)
        self._mean = torch.tensor(mean, dtype=torch.float32, device=device)
        self._std = torch.tensor(std, dtype=torch.float32, device=device)

    @property
    def num_batches(self) -> int:
        """Batches of one epoch, the last short one included."""
        return count_batches(self.num_images, self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """See `recu.data.load.loader.Loader.batches`."""
        self.skipped = 0
        order = epoch_order(self.num_images, self._seed, epoch)
        share = self._share.batches if self._seed is None else self._share.parts
        coming = ([order[place] for place in part] for part in share(self.num_images, self.batch_size, start))
        readable = (self._read(numbers, epoch) for numbers in coming)
        pipeline = self._build_pipeline()
        empty, in_work = _feed_next(pipeline, readable)
        while True:
            for _ in range(empty):
                yield self._nothing()
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
            yield normalise(images, self._mean, self._std), labels.to(self._device, non_blocking=True)

    def _nothing(self) -> tuple[Tensor, Tensor]:
        """A batch whose every image is unreadable."""
        images = torch.empty(0, 3, self._size, self._size, device=self._device)
        return images, torch.empty(0, dtype=torch.int64, device=self._device)

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
        if self._seed is None:
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

    def _note(self, error: DataError) -> None:
        if not self._skip_unreadable or isinstance(error, AlteredData):
            raise error
        _LOG.warning("skipped: %s", error)
        self.skipped += 1

    def _take(self, pipeline: Any) -> Tensor:
        """The oldest batch in flight: uint8 (B, S, S, 3) on the loader's device."""
        (output,) = pipeline.share_outputs()
        if self._device.type == "cuda":
            images = torch.from_dlpack(output.as_tensor()).clone()  # type: ignore[attr-defined]
        else:
            images = torch.from_numpy(np.array(output.as_array()))
        pipeline.release_outputs()
        return images

    def _build_pipeline(self) -> Any:
        from nvidia.dali import fn, pipeline_def, types

        gpu = self._device.type == "cuda"

        @pipeline_def(  # type: ignore[untyped-decorator]
            batch_size=self.batch_size,
            num_threads=self._threads,
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
