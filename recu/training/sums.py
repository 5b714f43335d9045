"""Running sums of loss and hits that stay on the device, so that no step waits for the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recu.training.processes import Processes

_FINITE = -1


@dataclass(frozen=True, kw_only=True)
class Averages:
    """Means over `n` images: loss (nats), top-1 and top-5 (percent)."""

    loss: float
    top1: float
    top5: float
    n: int


class RunningSums:
    """Sums over the images seen, the first step whose loss was not finite, and counts of the images not seen.

    Args:
        device: where the sums live.
    """

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)
        self._first_bad_step = torch.full((), _FINITE, dtype=torch.int64, device=device)
        self.n = 0
        """Images seen."""
        self.unreadable = 0
        """Images left out because they cannot be read."""
        self.left_out = 0
        """Readable images left out because every other one of their batch is unreadable: BatchNorm needs two."""

    @torch.no_grad()
    def add(self, loss: Tensor, logits: Tensor, labels: Tensor, step: int) -> None:
        """Add one batch; nothing is read back.

        Args:
            loss: mean over the batch, ().
            logits: (N, classes).
            labels: (N,).
            step: number of the batch, counted from 0.
        """
        hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        batch = torch.stack((loss.double() * len(labels), hits[:, 0].sum().double(), hits.sum().double()))
        self._sums += batch
        bad = ~torch.isfinite(loss) & (self._first_bad_step == _FINITE)
        self._first_bad_step.masked_fill_(bad, step)
        self.n += len(labels)

    def over(self, processes: Processes) -> RunningSums:
        """Those over all processes; itself where there is one. Waits for the device."""
        if processes.count == 1:
            return self
        last = torch.iinfo(torch.int64).max
        step = self.first_bad_step()
        steps = processes.gather(last if step is None else step)
        whole = RunningSums(torch.device("cpu"))
        whole._sums = processes.sum(self._sums)
        whole._first_bad_step.fill_(_FINITE if min(steps) == last else min(steps))
        counts = processes.sum(torch.tensor([self.n, self.unreadable, self.left_out])).tolist()
        whole.n, whole.unreadable, whole.left_out = counts
        return whole

    def include(self, other: RunningSums) -> None:
        """Add those of further images, on the same device."""
        self._sums += other._sums
        self.n += other.n

    def read(self) -> Averages:
        """The averages so far; waits for the device. Fewer than five classes make top-5 100 %: all are named."""
        loss, first, five = (self._sums / max(self.n, 1)).tolist()
        return Averages(loss=loss, top1=100.0 * first, top5=100.0 * five, n=self.n)

    def first_bad_step(self) -> int | None:
        """The first step whose loss was not finite, None if all were; waits for the device."""
        step = int(self._first_bad_step.item())
        return None if step == _FINITE else step

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        counts = {"n": self.n, "unreadable": self.unreadable, "left_out": self.left_out}
        return {"sums": self._sums.cpu().clone()} | counts

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`, which is only ever taken of finite sums."""
        self._sums.copy_(state["sums"])
        self.n, self.unreadable, self.left_out = state["n"], state["unreadable"], state["left_out"]
