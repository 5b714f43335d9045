"""Fixtures of every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Log lines about names that are no UTF-8 reach the process that collects reports, which takes UTF-8 only."""
    from recu.base.text import encodable

    report = yield
    report.sections = [(title, encodable(content)) for title, content in report.sections]
    return report


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run side by side, and their tensors are small."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def code_begins_anew() -> Iterator[None]:
    """A test is what a process is elsewhere: files of the package may be edited while others run.

    Cleared after it too: fixtures of the next module are made before this one, and may put another hash in its place.
    """
    from recu.results.provenance import code_at_start

    code_at_start.cache_clear()
    yield
    code_at_start.cache_clear()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images and an authors' checkpoint, beside the checkout; they are not part of the repository."""
    folder = CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real images in {folder}, which are not part of the repository")
    return folder


TINY_DATASET = """
tiny:
  title: "Tiny"
  kind: imagefolder
  family: cifar
  num_classes: 6
  image_size: 8
  mean: [0.5, 0.5, 0.5]
  std: [0.25, 0.25, 0.25]
  augmentation: crop_flip
"""


@pytest.fixture(scope="session")
def tiny_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `params/`, this project's plus a dataset `tiny`, and `images/` to prepare that dataset from.

    48 training and 18 test images of 8x8 pixels in six classes of different colours.
    """
    import shutil

    import numpy as np
    from PIL import Image

    project = tmp_path_factory.mktemp("project")
    shutil.copytree(CHECKOUT / "params", project / "params")
    datasets = project / "params" / "datasets.yaml"
    datasets.write_text(datasets.read_text(encoding="utf-8") + TINY_DATASET, encoding="utf-8")
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 3)):
        for label in range(6):
            folder = project / "images" / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 80, (8, 8, 3)) + np.array([25 * label, 150 - 25 * label, 60])
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return project
