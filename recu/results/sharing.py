"""How several devices share a training's batches, in records and in words."""

from __future__ import annotations

from collections.abc import Iterable

from recu.experiment.schema import Hyperparameters
from recu.results.records import Piece, Shared


def shared_by(recipe: Hyperparameters, processes: int) -> Shared | None:
    """The record of a recipe's batches on so many devices; None for one."""
    if processes == 1:
        return None
    part = -(-recipe.batch_size // processes)
    seen = recipe.batch_size if recipe.sync_batch_norm else part
    return Shared(processes=processes, batch_per_process=part, batch_norm_batch=seen)


def worded(shared: Shared | None, batch_size: int, replicas: int) -> str | None:
    """How batches were shared, and where BatchNorm then sees another number of images than the recipe says.

    Args:
        shared: as recorded.
        batch_size: of the recipe.
        replicas: of the recipe.

    Returns:
        None for what needs no word: one device, and a recipe for one.
    """
    if shared is None and replicas == 1:
        return None
    seen, meant = batch_size if shared is None else shared.batch_norm_batch, -(-batch_size // replicas)
    devices = (
        "1 device" if shared is None else f"{shared.processes} devices with {shared.batch_per_process} images each"
    )
    # Synchronised BatchNorm sees the whole batch, which is what a recipe for one device says.
    other = "" if seen == meant else f", the recipe says {meant}"
    return f"{devices}, BatchNorm over {seen} of a batch of {batch_size}{other}"


def pieces_worded(pieces: Iterable[Piece], batch_size: int, replicas: int) -> list[str]:
    """A text for each piece of a training that `worded` has one for, with its epochs."""
    texts = ((piece, worded(piece.shared, batch_size, replicas)) for piece in pieces)
    return [f"{piece.epochs} on {text}" for piece, text in texts if text is not None]
