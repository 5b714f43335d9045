"""Rates of devices, measured and written by a person."""

import json
import math

import pytest
import yaml

from recu.base.errors import RecuError
from recu.experiment.paths import PARAMS_DIR, params_file
from recu.experiment.rates import find_rates, measured_file

RATE = {
    "network": "cifar.resnet20_1w1a",
    "image_size": 32,
    "stage": 2,
    "train_images_per_s": 1.5,
    "test_images_per_s": 2.0,
}


def device(name, **changes):
    return {"device": name, "source": "me", "rates": [RATE], **changes}


@pytest.fixture
def places(tmp_path):
    (tmp_path / "results").mkdir()
    params_file(tmp_path, "rates").write_text(yaml.safe_dump({"devices": [device("A"), device("B", slots=2)]}))
    return tmp_path, tmp_path / "results"


def test_those_measured_here_are_taken_unless_a_device_is_named(places):
    params, results = places
    assert find_rates(params, results, None) is None
    measured_file(results).write_text(json.dumps(device("here", slots=3)))
    assert find_rates(params, results, None).slots == 3
    assert (find_rates(params, results, "B").slots, find_rates(params, results, "here").slots) == (2, 3)


def test_a_device_nobody_measured_is_answered_with_the_nearest(places):
    with pytest.raises(RecuError, match=r"device.*'C'.*rates.yaml.*recu bench --suite"):
        find_rates(*places, "C")


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {"device": "x"},
        device("x", slots=0),
        device("x", train_job_s=-1),
        device("x", rates=[RATE | {"image_size": "32"}]),
        *(device("x", rates=[RATE | {"train_images_per_s": rate}]) for rate in (0, -1.5, math.inf, math.nan, "1")),
        device("x", rates=[RATE, RATE | {"train_images_per_s": 3.0}]),
    ],
)
def test_a_file_of_another_form_is_refused(places, wrong):
    params, results = places
    measured_file(results).write_text(json.dumps(wrong))
    with pytest.raises(RecuError, match=r"rates.json"):
        find_rates(params, results, None)


def test_a_device_that_stands_there_twice_is_refused(places):
    params, results = places
    params_file(params, "rates").write_text(yaml.safe_dump({"devices": [device("A"), device("A", slots=2)]}))
    with pytest.raises(RecuError, match=r"rates.yaml.*'A' is given twice"):
        find_rates(params, results, "A")


def test_every_entry_of_the_projects_own_says_where_it_is_from():
    for each in yaml.safe_load(params_file(PARAMS_DIR, "rates").read_text())["devices"]:
        assert find_rates(PARAMS_DIR, PARAMS_DIR, each["device"]).source
