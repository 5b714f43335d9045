"""`python -m benchmarks.round_trip`."""

import sys

import pytest

from benchmarks.round_trip import main


def test_a_line_for_each_form_of_each_network(monkeypatch, capsys) -> None:
    pytest.importorskip("safetensors", reason="extra `export` is not installed")
    words = ["--models", "resnet20_1w1a", "--to", "packed", "safetensors", "--image_size", "16"]
    monkeypatch.setattr(sys, "argv", ["round_trip", *words])
    main()
    _head, _rule, *lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    forms = ["packed", "packed, without PyTorch", "safetensors"]
    networks = ["cifar.resnet20_1w1a", "cifar-2021-03.resnet20_1w1a"]
    assert [(name, form) for name, _, form, *_ in cells] == [(name, form) for name in networks for form in forms]
    assert all(images == "32" and other == "0" for _, _, _, images, other, *_ in cells)
    exact = [unequal for _, _, form, _, _, unequal, *_ in cells if form != "packed, without PyTorch"]
    assert exact == ["0"] * 4
