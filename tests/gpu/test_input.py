"""Large images decoded by DALI on the GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recu.data import build_loaders, open_prepared, prepare
from tests.unit.data.builders import large_dataset, write_imagenet


def test_dali_decodes_on_the_gpu_what_it_decodes_on_the_cpu(device, tmp_path: Path, record) -> None:
    pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed (it exists for Linux only)")
    source, entry = write_imagenet(tmp_path / "archives", validation=7), large_dataset()
    prepare("im", entry, folder=tmp_path / "im", source=source, workers=0)
    seen = []
    for place in (torch.device("cpu"), device):
        loaders = build_loaders(
            open_prepared(tmp_path / "im", entry),
            entry,
            loader="dali",
            batch_size=5,
            batch_size_test=3,
            seed=1,
            device=place,
            workers=1,
        )
        batches = [*loaders.train.batches(0), *loaders.test.batches(0)]
        assert all(images.device == labels.device == place for images, labels in batches)
        seen.append(batches)
    std = torch.tensor(entry.std).view(1, 3, 1, 1)
    differences = [((one.cpu() - other.cpu()).abs() * std * 255) for (one, _), (other, _) in zip(*seen, strict=True)]
    levels = torch.cat([each.flatten() for each in differences])
    record(mean_levels=levels.mean().item(), largest_levels=levels.max().item())
    assert all(torch.equal(one.cpu(), other.cpu()) for (_, one), (_, other) in zip(*seen, strict=True))
    assert levels.mean() < 1  # two decoders of JPEG round their transforms differently
