"""What a person sees of a training: a bar where a terminal is watched, plain lines otherwise."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

from recu.results.records import EpochRecord
from recu.training.sums import Averages

_log = logging.getLogger(__name__)


class Progress:
    """Progress over a whole training, counted in images: a bar of the run, and below it one of the epoch.

    Args:
        total_images: training images of all epochs.
        done_images: of them, those trained on in earlier sessions.
        epochs: in which as many images each are trained on.
        estimate: whether plain lines name the expected finish (the bar always does).
        bar: True for the bar, None to choose it where stderr is a terminal.
    """

    def __init__(
        self,
        total_images: int,
        done_images: int,
        *,
        epochs: int = 1,
        estimate: bool = True,
        bar: bool | None = None,
    ) -> None:
        self._epoch_images = total_images // epochs
        self._total, self._initial, self._done = total_images, done_images, done_images
        self._estimate = estimate
        self._with_bar = sys.stderr.isatty() if bar is None else bar
        self._started = time.monotonic()
        self._bar: Any = None
        self._epoch_bar: Any = None
        self._redirection: Any = contextlib.nullcontext()

    def __enter__(self) -> Progress:
        if self._with_bar:
            from tqdm import tqdm
            from tqdm.contrib.logging import logging_redirect_tqdm

            self._redirection = logging_redirect_tqdm(loggers=[logging.getLogger("recu")])
            self._redirection.__enter__()
            settings = {"unit": " images", "unit_scale": True, "dynamic_ncols": True}
            self._bar = tqdm(desc="run", total=self._total, initial=self._initial, **settings)
            done = self._initial % self._epoch_images
            self._epoch_bar = tqdm(total=self._epoch_images, initial=done, position=1, leave=False, **settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._epoch_bar.close()
            self._bar.close()
            self._redirection.__exit__(kind, error, trace)

    def advance(self, images: int) -> None:
        """Count one step's images."""
        self._done += images
        if self._bar is not None:
            self._bar.update(images)
            self._epoch_bar.update(images)

    def step(self, epoch: int, step: int, steps: int, averages: Averages, lr: float) -> None:
        """Show the running averages of an epoch, whose number is counted from 0 here and from 1 in what is shown."""
        text = f"loss {averages.loss:.4f}, top-1 {averages.top1:.2f} %"
        if self._bar is not None:
            self._epoch_bar.set_description_str(f"epoch {epoch + 1}")
            self._epoch_bar.set_postfix_str(text)
        # With a bar the line still goes into the log file, whose handler takes this level.
        level = logging.DEBUG if self._bar is not None else logging.INFO
        _log.log(level, "epoch %d, step %d of %d: %s, lr %.6g%s", epoch + 1, step, steps, text, lr, self._finish())

    def epoch(self, row: EpochRecord, epochs: int) -> None:
        """Show a finished epoch."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"test top-1 {row.test_top1:.2f} %")
            self._epoch_bar.reset()
        _log.info(
            "epoch %d of %d: lr %.6g, tau %.4f, train loss %.4f, top-1 %.2f %%, test loss %.4f, top-1 %.2f %%,"
            " top-5 %.2f %%, %.0f images/s%s",
            row.epoch + 1,
            epochs,
            row.lr,
            row.tau,
            row.train_loss,
            row.train_top1,
            row.test_loss,
            row.test_top1,
            row.test_top5,
            row.train_images_per_s,
            self._finish(),
        )
        if row.train_skipped:
            _log.warning("epoch %d left out %d unreadable training image(s)", row.epoch + 1, row.train_skipped)

    def _finish(self) -> str:
        seen = self._done - self._initial
        if not self._estimate or not seen or self._done >= self._total:
            return ""
        seconds = (time.monotonic() - self._started) / seen * (self._total - self._done)
        finish = datetime.now() + timedelta(seconds=seconds)
        return f", finish about {finish:%Y-%m-%d %H:%M} (in {timedelta(seconds=round(seconds))})"
