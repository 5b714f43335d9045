"""A process of its own that is asked for turns: what it answers is one line of JSON each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from recu.base.errors import RecuError
from recu.experiment.paths import PROJECT_DIR


class Worker:
    """A process that has been started.

    Args:
        process: with pipes for its standard input and output.
        name: of what it measures, for messages.
        advice: what to do where it ends early.
    """

    def __init__(self, process: subprocess.Popen[str], name: str, advice: str) -> None:
        self._process, self._name, self._advice = process, name, advice

    def ask(self, line: str) -> dict[str, Any]:
        """Have it do what a line says, and wait for its answer.

        Raises:
            RecuError: it has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # there is no answer either
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line that it says, the first when it is ready.

        Raises:
            RecuError: it has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RecuError(f"the process that measures {self._name} ended before its turn: {self._advice}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def worker(
    module: str,
    settings: Mapping[str, Any],
    *,
    name: str,
    advice: str = "see its message above",
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Worker]:
    """A process of `python -m MODULE SETTINGS`, which ends with the block.

    Args:
        module: a program of this package.
        settings: what it is told, as JSON.
        name: as for `Worker`, like the next.
        advice: see there.
        python: that runs it.
        environment: variables beside this process's own.
    """
    process = subprocess.Popen(
        [python, "-m", module, json.dumps(settings)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(PROJECT_DIR)} | dict(environment or {}),
    )
    try:
        yield Worker(process, name, advice)
    finally:
        process.kill()
        process.wait()
