"""Only like is compared with like."""

import pytest

from recu import params, paths
from recu.report.published import Setting, match


def setting(**changes):
    base = {"dataset": "CIFAR-10", "model": "resnet18_1w1a", "method": "vanilla", "batch_size": 256, "epochs": 600}
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
    ],
)
def test_every_reason_is_named(published, changes, reason):
    assert match(setting(**changes), published).differences == (reason,)


def test_several_reasons_at_once(published):
    assert len(match(setting(epochs=10, batch_size=64), published).differences) == 2


def test_the_published_file_has_all_twelve_rows_with_their_sources():
    results = params.load_published(paths.PARAMS_DIR).results
    assert len(results) == 12 and all(result.source for result in results)
    assert len({(result.dataset, result.model, result.method) for result in results}) == 12


@pytest.mark.parametrize(
    "dataset, model, method, batch_size, epochs, top1",
    [
        ("CIFAR-10", "resnet20_1w1a", "vanilla", 256, 600, 87.5),
        ("CIFAR-10", "vgg_small_1w1a", "finetune", 256, 600, 93.3),
        ("ImageNet", "resnet34_1w1a", "vanilla", 512, 200, 65.10),
        ("ImageNet", "resnet18_1w1a", "two-stage", 512, 256, 66.4),
        ("ImageNet", "birealnet18", "two-stage", 512, 256, 65.9),
    ],
)
def test_published_results_are_found_for_the_papers_settings(dataset, model, method, batch_size, epochs, top1):
    wanted = Setting(dataset=dataset, model=model, method=method, batch_size=batch_size, epochs=epochs)
    found = match(wanted, params.load_published(paths.PARAMS_DIR))
    assert found.result.top1 == top1 and found.differences == ()
