"""The append-only log of a training, beside its checkpoint."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recu.base.errors import OutputError
from recu.base.redaction import RedactingFormatter


@contextmanager
def log_to(file: Path) -> Iterator[None]:
    """Within the block, append every message of this package to `file`, with its time.

    Raises:
        OutputError: the file cannot be opened.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(file, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error.strerror or error}; check permissions") from error
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(message)s"))
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
        with suppress(OSError):  # what a full disk did not take
            handler.close()


class _LogFile(logging.FileHandler):
    """A log that cannot be written any more, e.g. on a full disk, is reported once and stops nothing."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say so in place of the standard handler's traceback."""
        del record
        self.setLevel(logging.CRITICAL + 1)
        print(f"warning: cannot write the log {self.baseFilename}: {sys.exc_info()[1]}", file=sys.stderr)
