"""The append-only log of a training, beside its checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recu.errors import OutputError


@contextmanager
def log_to(file: Path) -> Iterator[None]:
    """Within the block, append every message of this package to `file`, with its time.

    Raises:
        OutputError: the file cannot be opened.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(file, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error.strerror or error}; check permissions") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("recu")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        yield
    except BaseException as error:
        # At this level the file takes it and the terminal does not: there the error is printed anyway.
        logger.debug("ended early: %s: %s", type(error).__name__, error)
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
