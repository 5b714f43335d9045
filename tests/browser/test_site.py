"""The documentation as a site, as `make site` builds it."""

import os
import subprocess
import sys

import pytest

from recu.experiment.paths import PROJECT_DIR
from tests.browser.visitor import LOOKS, dead_links, unreadable, wider_than_the_window

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("site")]

READ = ("index.html", "tutorial.html", "method.html", "extending.html", "results/cifar10-jpeg-40.html")
"""Pages that axe-core reads, one of each kind: it takes a second each."""


@pytest.fixture(scope="module")
def site(tmp_path_factory, browser):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=PROJECT_DIR, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=True)
    return folder


def test_every_page_is_whole_and_fits_every_screen_and_paper(visitor, site):
    pages = sorted(site.rglob("*.html"))
    wrong = {}
    for file in pages:
        for look in LOOKS:
            page = visitor.open(file, look)
            if wide := wider_than_the_window(page):
                wrong[f"{file.name}, {look.name}"] = wide[:4]
        if file.name != "404.html" and (dead := dead_links(page, site)):  # whose links are from the root of a server
            wrong[file.name] = dead
    assert wrong == {} and len(pages) > 20
    assert visitor.asked_elsewhere == [] and visitor.errors == []


@pytest.mark.parametrize("look", LOOKS[:2], ids=lambda look: look.name)  # it depends on colours alone
@pytest.mark.parametrize("name", READ)
def test_a_page_can_be_read(visitor, site, look, name):
    assert unreadable(visitor.open(site / name, look)) == []
