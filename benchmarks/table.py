"""What `recu bench` prints."""

from __future__ import annotations

from typing import Any

from tabulate import tabulate

_MIB = 1 << 20


def render(result: dict[str, Any]) -> str:
    """The numbers as a table for people."""
    per_second = "images/s" if result["machine"]["clock"] == "wall" else "images per CPU second"
    rows = []
    for name, values in result["input"].items():
        rows.append(_row(f"input, {name}", per_second, values))
        if "dali" in values:
            dali = {"reference": values["reference"], "shipped": values["dali"], "ratio": values["dali_ratio"]}
            rows.append(_row(f"input, {name} (DALI)", per_second, dali))
    for model, measured in result["models"].items():
        rows.append(_row(f"{model}, training", per_second, measured["train"]))
        rows.append(_row(f"{model}, evaluation", per_second, measured["evaluate"]))
        rows.append(_row(f"{model}, peak memory", "MiB", measured["memory"], unit=_MIB))
        rows.append(_row(f"{model}, start-up", "s", measured["start_up"]))
    machine, settings = result["machine"], result["settings"]
    fractions = ", ".join(
        f"{model} {measured['train']['fraction_of_peak']:.0%}" for model, measured in result["models"].items()
    )
    lines = [
        tabulate(rows, headers=("", "unit", "reference", "shipped", "ratio"), floatfmt="", disable_numparse=True),
        "",
        f"machine: {machine['device']}, PyTorch {machine['torch']}, {machine['clock']} clock;"
        f" fp32 matrix products {machine['gflops_fp32']:.0f} GFLOP/s",
        f"training, arithmetic of direct convolutions as a part of that: {fractions}" if fractions else None,
        f"recu --help: {result['start_up']['help']:.2f} s; batches of {settings['batch_size']} (training) and"
        f" {settings['batch_size_test']} (evaluation); {settings['workers']} workers for image files;"
        f" medians of {settings['repeats']} turns",
    ]
    return "\n".join(line for line in lines if line is not None)


def _row(name: str, unit_name: str, values: dict[str, float], *, unit: float = 1) -> tuple[str, ...]:
    numbers = (number(values["reference"] / unit), number(values["shipped"] / unit), f"{values['ratio']:.2f}")
    return (name, unit_name, *numbers)


def number(value: float) -> str:
    """With three figures or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
