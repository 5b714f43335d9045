"""Only like is compared with like."""

import pytest

from recu.experiment import params, paths
from recu.experiment.schema import PublishedResult
from recu.results.published import Setting, match, seen_data

SEEN = {
    "num_classes": 10, "image_size": 32, "test_images": 10000, "augmentation": "crop_flip", "test_view": "resize",
    "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
}  # fmt: skip


def setting(**changes):
    base = {"dataset": "CIFAR-10", "model": "resnet18_1w1a", "method": "vanilla", "batch_size": 256, "epochs": 600}
    base |= {"family": "cifar", "stage": 2, "binariser": "recu", "data": {}}
    return Setting(**(base | changes))


def test_the_same_setting_is_comparable(published):
    found = match(setting(), published)
    assert found.result.top1 == 92.8 and found.differences == ()


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"dataset": None}, "nothing is published on this dataset"),
        ({"dataset": "SVHN"}, "nothing is published for dataset SVHN"),
        ({"model": "resnet20_1w1a"}, "nothing is published for model resnet20_1w1a on CIFAR-10"),
        ({"method": "two-stage"}, "nothing is published for method two-stage on CIFAR-10 with resnet18_1w1a"),
        ({"epochs": 10}, "epochs 10 instead of 600"),
        ({"batch_size": 128}, "batch size 128 instead of 256"),
        ({"binariser": "sign"}, "nothing is published for binariser sign on CIFAR-10 with resnet18_1w1a"),
    ],
)
def test_every_reason_is_named(published, changes, reason):
    assert match(setting(**changes), published).differences == (reason,)


def test_a_variation_is_compared_with_that_variation_alone(published):
    assert match(setting(row="tau-0.90"), published).differences == ("nothing is published for row tau-0.90",)
    there = PublishedResult(method="vanilla", row="tau-0.90", top1=91.0, source="s")
    varied = published.model_copy(update={"results": (there, *published.results)})
    assert match(setting(row="tau-0.90"), varied).result == there
    assert match(setting(), varied).result.top1 == 92.8


def test_a_method_that_names_no_published_one_is_compared_with_none(published):
    assert match(setting(method=None), published).differences == ("nothing is published for this method",)


def test_several_reasons_at_once(published):
    assert len(match(setting(epochs=10, batch_size=64), published).differences) == 2


def test_the_published_file_has_every_row_with_its_source():
    results = params.load_published(paths.PARAMS_DIR).results
    unquoted = [result for result in results if result.top1 is None]
    assert len(unquoted) == 7 and all(result.row for result in unquoted), "cells of ablations, and no others"
    results = [result for result in results if result.row is None]
    ours = [result for result in results if result.binariser == "recu"]
    assert len(ours) == 12 and len(results) == 26 and all(result.source for result in results)
    assert len({(result.dataset, result.model, result.method) for result in results}) == 26


@pytest.mark.parametrize(
    ("model", "binariser", "top1", "elsewhere"),
    [
        ("vgg_small_1w1a", "ir-net", 90.4, [87.8]),
        ("resnet20_1w1a", "reste", 87.92, [86.75]),
        ("resnet20_1w1a", "biper", 86.98, [87.5]),
        ("vgg_small_1w1a", "biper", 92.46, [92.11]),
        ("resnet18_1w1a", "biper", 93.75, []),
    ],
)
def test_numbers_that_differ_between_sources_are_both_there(model, binariser, top1, elsewhere):
    setting_of = {"model": model, "binariser": binariser, "method": binariser, "epochs": None, "batch_size": None}
    found = match(setting(**setting_of), params.load_published(paths.PARAMS_DIR)).result
    assert found.top1 == top1 and [other.top1 for other in found.elsewhere] == elsewhere
    assert all(other.source for other in found.elsewhere)


@pytest.mark.parametrize(
    "dataset, family, model, method, batch_size, epochs, top1",
    [
        ("CIFAR-10", "cifar", "resnet20_1w1a", "vanilla", 256, 600, 87.5),
        ("CIFAR-10", "cifar", "vgg_small_1w1a", "finetune", 256, 600, 93.3),
        ("ImageNet", "imagenet", "resnet34_1w1a", "vanilla", 512, 200, 65.10),
        ("ImageNet", "reactnet", "resnet18_1w1a", "two-stage", 512, 256, 66.4),
        ("ImageNet", "birealnet", "birealnet18", "two-stage", 512, 256, 65.9),
    ],
)
def test_published_results_are_found_for_the_papers_settings(dataset, family, model, method, batch_size, epochs, top1):
    wanted = setting(dataset=dataset, family=family, model=model, method=method, batch_size=batch_size, epochs=epochs)
    found = match(wanted, params.load_published(paths.PARAMS_DIR))
    assert found.result.top1 == top1 and found.differences == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"family": "imagenet"}, "nothing is published for family imagenet on CIFAR-10 with resnet18_1w1a"),
        ({"stage": 1}, "nothing is published for stage 1 on CIFAR-10 with resnet18_1w1a"),
    ],
)
def test_another_network_of_the_same_model_name_is_not_compared(changes, reason):
    found = match(setting(**changes), params.load_published(paths.PARAMS_DIR))
    assert found.result is None and found.differences == (reason,)


def test_of_two_results_that_fit_none_is_taken(published):
    other = published.results[0].model_copy(update={"top1": 91.0, "epochs": None})
    both = published.model_copy(update={"results": (*published.results, other)})
    assert match(setting(), both).differences == ("2 published results fit: 92.8 and 91.0",)
    assert match(setting(epochs=10), both).result.top1 == 91.0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"augmentation": "crop"}, "augmentation crop instead of crop_flip"),
        ({"mean": [0.5, 0.5, 0.5]}, "mean 0.5/0.5/0.5 instead of 0.485/0.456/0.406"),
        ({"std": [1.0, 1.0, 1.0]}, "std 1.0/1.0/1.0 instead of 0.229/0.224/0.225"),
        ({"test_view": "resize_centre"}, "test view resize_centre instead of resize"),
        ({"image_size": 40}, "image size 40 instead of 32"),
        ({"test_images": 5000}, "test images 5000 instead of 10000"),
    ],
)
def test_images_that_were_seen_otherwise_are_not_compared(changes, reason):
    shipped = params.load_published(paths.PARAMS_DIR)
    assert match(setting(data=SEEN), shipped).differences == ()
    assert match(setting(data=SEEN | changes), shipped).differences == (reason,)


def test_shipped_datasets_are_those_of_the_published_runs():
    shipped, datasets = params.load_published(paths.PARAMS_DIR), params.load_datasets(paths.PARAMS_DIR)
    compared = {entry.published_as: entry for entry in datasets.values() if entry.published_as}
    assert set(shipped.data) == set(compared)
    for name, entry in compared.items():
        seen = seen_data(entry.identity(), augmentation=entry.augmentation, test_images=entry.test_images)
        assert seen == shipped.data[name].model_dump(mode="json")


def test_the_competitors_row_keeps_its_own_augmentation():
    shipped = params.load_published(paths.PARAMS_DIR)
    (result,) = [each for each in shipped.results if each.model == "birealnet18"]
    defaults = params.load_defaults(paths.PARAMS_DIR)
    assert result.augmentation == defaults.recipe("birealnet")["augmentation"]
