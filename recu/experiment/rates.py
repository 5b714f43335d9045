"""How fast networks train and are evaluated on a device: as measured here, or as a table in params/ says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from recu.base.errors import ConfigError, unknown_name
from recu.base.files import read_json
from recu.experiment import paths
from recu.experiment.binarisers import USUAL
from recu.experiment.params import parse_file, validate_model
from recu.experiment.resolving import Experiment
from recu.experiment.schema import Block
from recu.experiment.values import Advice, Line, Positive, check_once

_Count = Annotated[int, Field(ge=1)]


class Setup(Block):
    """What a rate is of."""

    network: Line
    """`family.model`, as results name it."""
    image_size: _Count
    """Side of the network's input, in pixels."""
    stage: Annotated[int, Field(ge=0, le=2)]
    """As the hyper-parameter."""
    teacher: Line | None = None
    """Network that teaches it, whose forward pass is part of a training step; null for none."""
    precision: Line = "fp32"
    """As the hyper-parameter."""
    binariser: Line = USUAL
    """As the hyper-parameter."""
    compile: Line | None = None
    """As the hyper-parameter."""


class Rate(Setup):
    """One network on one device."""

    train_images_per_s: Positive
    """Training, from input to metrics."""
    test_images_per_s: Positive
    """Evaluation, likewise."""
    memory_bytes: _Count | None = None
    """Peak of one training: of the process, or on a GPU of its tensors; null where not measured."""
    checkpoint_bytes: _Count | None = None
    """Of the best weights, which a finished training keeps; null where not measured."""


def _check_setups(rates: tuple[Rate, ...]) -> tuple[Rate, ...]:
    check_once([setup.model_dump_json(include=set(Setup.model_fields)) for setup in rates], "rate of")
    return rates


class DeviceRates(Block):
    """What one device gives."""

    device: Line
    """As results name it."""
    slots: _Count = 1
    """Jobs that ran side by side while it was measured."""
    train_job_s: Annotated[float, Field(ge=0)] = 0.0
    """Seconds of a training job beyond its epochs: imports, opening data, publishing."""
    evaluate_job_s: Annotated[float, Field(ge=0)] = 0.0
    """The same of an evaluation job beyond its images."""
    source: Advice
    """Who measured it, when and how."""
    rates: Annotated[tuple[Rate, ...], AfterValidator(_check_setups)]
    """Network by network."""

    def rate_of(self, setup: Setup) -> Rate | None:
        """The rate of a setup; None where it was not measured."""
        wanted = setup.model_dump()
        return next((rate for rate in self.rates if rate.model_dump(include=set(wanted)) == wanted), None)


def _check_devices(devices: tuple[DeviceRates, ...]) -> tuple[DeviceRates, ...]:
    check_once([each.device for each in devices], "device")
    return devices


class Rates(Block):
    """params/rates.yaml."""

    devices: Annotated[tuple[DeviceRates, ...], AfterValidator(_check_devices)] = ()
    """Device by device."""


def setup_of(experiment: Experiment) -> Setup:
    """What a training's rate is of."""
    teacher = experiment.teacher
    return Setup(
        network=experiment.network,
        image_size=experiment.data["image_size"],
        stage=experiment.hyperparameters.stage,
        teacher=None
        if teacher is None
        else experiment.pretrained_teacher or teacher.id.split("/")[2].partition("+")[0],
        precision=experiment.hyperparameters.precision,
        binariser=experiment.hyperparameters.binariser,
        compile=experiment.hyperparameters.compile,
    )


def measured_file(results_dir: Path) -> Path:
    """Where `recu bench --suite SUITE` writes what it measured on this machine."""
    return results_dir / "rates.json"


def find_rates(params_dir: Path, results_dir: Path, device: str | None) -> DeviceRates | None:
    """The rates of a device by name; without a name those measured here, or None where nothing was.

    Raises:
        ConfigError: no rates of that device, or a file is not of the expected form.
    """
    measured = measured_file(results_dir)
    here = validate_model(read_json(measured), DeviceRates, str(measured)) if measured.exists() else None
    if device is None:
        return here
    file = paths.params_file(params_dir, "rates")
    known = {each.device: each for each in (parse_file(file, Rates).devices if file.exists() else ())}
    if here is not None:
        known[here.device] = here
    if device not in known:
        problem = unknown_name("device with rates", device, known)
        raise ConfigError(f"{problem} (in {file}, or measured here by `recu bench --suite SUITE`)")
    return known[device]
