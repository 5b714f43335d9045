"""What trainings take: numbers by hand."""

import pytest

from recu.experiment.estimate import Job, estimate, jobs_of
from recu.experiment.params import load_datasets
from recu.experiment.paths import PARAMS_DIR
from recu.experiment.rates import DeviceRates, Rate, setup_of
from recu.experiment.resolving import load_experiments

DATASETS = load_datasets(PARAMS_DIR)


def job(name, seconds, *after, memory=1, disk=1):
    return Job(id=name, after=after, images=10, seconds=seconds, memory_bytes=memory, disk_bytes=disk)


def of(*jobs):
    return {each.id: each for each in jobs}


CHAIN = of(job("a", 10.0), job("b", 1.0), job("c", 2.0, "a"), job("d", 4.0, "b"))


@pytest.mark.parametrize(("slots", "wall"), [(1, 17.0), (2, 12.0), (9, 12.0)])
def test_jobs_begin_as_soon_as_their_parents_are_done_and_a_slot_is_free(slots, wall):
    assert estimate(CHAIN, slots).wall_seconds == wall


def test_the_order_given_decides_among_jobs_that_may_begin():
    assert estimate(of(job("a", 1.0), job("b", 1.0), job("long", 4.0)), 2).wall_seconds == 5.0
    assert estimate(of(job("long", 4.0), job("a", 1.0), job("b", 1.0)), 2).wall_seconds == 4.0


def test_the_longest_chain_of_parents_is_named():
    found = estimate(CHAIN, 1)
    assert (found.critical_path, found.critical_seconds) == (("a", "c"), 12.0)
    assert (found.images, found.device_seconds) == (40, 17.0)


def test_memory_is_that_of_the_largest_jobs_that_run_at_once():
    jobs = of(*(job(f"train {size}", 1.0, memory=size) for size in (5, 7, 3)))
    assert [estimate(jobs, slots).memory_bytes for slots in (1, 2, 9)] == [7, 12, 15]


def test_evaluations_alone_have_no_memory_and_no_disk():
    found = estimate(of(job("evaluate a", 1.0, memory=None, disk=0)), 1)
    assert (found.device_seconds, found.memory_bytes, found.disk_bytes) == (1.0, None, None)


def test_one_job_without_a_rate_leaves_the_whole_unknown_but_its_images():
    found = estimate(of(job("train a", 1.0), job("train b", None, memory=None, disk=None)), 1)
    assert found.images == 20
    assert {found.device_seconds, found.wall_seconds, found.critical_seconds, found.memory_bytes, found.disk_bytes} == {
        None
    }


def test_nothing_left_takes_nothing():
    found = estimate({}, 2)
    assert (found.wall_seconds, found.critical_path, found.device_seconds) == (0.0, (), 0.0)


def rates(experiments, **changes):
    entries = {
        setup_of(each).model_dump_json(): Rate(
            **setup_of(each).model_dump(), train_images_per_s=100.0, test_images_per_s=400.0, **changes
        )
        for each in experiments
    }
    return DeviceRates(device="d", source="s", train_job_s=5.0, evaluate_job_s=3.0, rates=tuple(entries.values()))


def test_a_training_sees_both_splits_in_each_epoch_and_its_evaluation_one():
    experiments = load_experiments(PARAMS_DIR, ("demo",))
    jobs = jobs_of(experiments.values(), DATASETS, {}, rates(experiments.values(), memory_bytes=7, checkpoint_bytes=8))
    name = "demo/digits/cifar.resnet20_1w1a/vanilla/seed1"
    train, evaluate = jobs[f"train {name}"], jobs[f"evaluate {name}"]
    assert (train.images, evaluate.images) == (5 * (1437 + 360), 360)
    assert train.seconds == pytest.approx(5 * (14.37 + 0.9) + 5)
    assert evaluate.seconds == pytest.approx(0.9 + 3)
    assert jobs["train demo/digits/cifar.resnet20_1w1a/finetune/seed1"].after == (f"train {name}",)
    assert (train.memory_bytes, train.disk_bytes, evaluate.after) == (7, 8, (f"train {name}",))


def test_a_teacher_is_waited_for_and_part_of_the_rate():
    experiments = load_experiments(PARAMS_DIR, ("demo",))
    taught = next(each for each in experiments.values() if each.teacher)
    assert setup_of(taught).teacher == "torchvision.resnet18"
    jobs = jobs_of(
        experiments.values(), DATASETS, {}, rates([each for each in experiments.values() if not each.teacher])
    )
    assert jobs[f"train {taught.id}"].seconds is None
    assert f"train {taught.teacher.id}" in jobs[f"train {taught.id}"].after


def test_the_size_of_prepared_data_comes_before_the_expected_one():
    experiments = load_experiments(PARAMS_DIR, ("demo",))
    jobs = jobs_of(experiments.values(), DATASETS, {"digits": (10, 1)}, None)
    assert jobs["train demo/digits/cifar.resnet20_1w1a/vanilla/seed1"].images == 55
