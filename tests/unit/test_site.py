"""The documentation builds as pages, with every broken link an error, and they fetch nothing from elsewhere."""

import os
import re
import subprocess
import sys

import pytest

from recu.experiment.paths import PROJECT_DIR

LOADED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"(https?:[^\"]*)\"")


@pytest.mark.docs
def test_pages_are_whole_and_of_this_machine(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=PROJECT_DIR, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(list((PROJECT_DIR / "docs").rglob("*.md")))
    assert [address for page in pages for address in LOADED.findall(page.read_text())] == []
