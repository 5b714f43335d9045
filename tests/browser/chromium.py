"""Which Chromium the tests start. `python -m tests.browser.chromium` installs one where there is none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_WAYS = (
    [sys.executable, "-m", "playwright", "install", "chromium"],
    ["sh", "-c", "apt-get update --quiet && apt-get install --yes --no-install-recommends chromium"],
)


def program(playwright: Any) -> str | None:
    """The system's, else Playwright's own; None where there is neither."""
    installed = next(filter(None, map(shutil.which, _NAMES)), None)
    own = playwright.chromium.executable_path
    return installed or (own if Path(own).exists() else None)


def _install() -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        missing = program(playwright) is None
    if missing and not any(subprocess.run(way, check=False).returncode == 0 for way in _WAYS):
        print("note: no Chromium could be installed; tests that need one are skipped", file=sys.stderr)


if __name__ == "__main__":
    _install()
