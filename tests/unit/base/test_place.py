"""Which process this is, from a launcher's variables."""

import os
from dataclasses import replace

import pytest

from recu.base.errors import ConfigError
from recu.base.place import ONLY, Place, place_of

SRUN = {
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
}


def test_torchrun_says_it_and_is_the_launcher():
    said = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}
    place = place_of(said)
    assert place == Place(rank=3, count=4, local_rank=1, local_count=2, launcher=os.getppid())
    assert not place.first and not place.orphaned and replace(place, launcher=1 + os.getppid()).orphaned


def test_srun_says_it():
    assert place_of(SRUN) == Place(rank=3, count=5, local_rank=1, local_count=2)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"RANK": "0"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"},  # a batch script, without srun
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
    ],
)
def test_anything_else_is_one_process(said):
    assert place_of(said) == ONLY


@pytest.mark.parametrize(
    "wrong",
    [
        {"SLURM_PROCID": "5"},
        {"SLURM_LOCALID": "2"},
        {"SLURM_STEP_NUM_TASKS": "x"},
        {"SLURM_STEP_TASKS_PER_NODE": "two"},
        {"SLURM_STEP_TASKS_PER_NODE": "2(x)y"},
    ],
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError, match="in the environment"):
        place_of(SRUN | wrong)


def test_amounts_of_a_job_are_shared_out_on_a_machine():
    place = Place(rank=0, count=4, local_count=2)
    assert [place.of_this_machine(amount) for amount in (0, 1, 2, 5)] == [0, 1, 1, 2]
