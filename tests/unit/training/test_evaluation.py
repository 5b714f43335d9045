"""Evaluation counts each image once, whatever the batches."""

import pytest
import torch
import torch.nn.functional as F

from recu.base.errors import DataError, DivergenceError
from recu.training.evaluation import evaluate
from tests.unit.training.tiny import TinyLoader, TinyNet


class _Fixed(torch.nn.Module):
    """Gives the logits that the first pixels of each image spell."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, images):
        return images.flatten(1)[:, : self.classes]


@pytest.mark.parametrize("batch_size", [1, 4, 17, 100])
def test_counts_and_averages_do_not_depend_on_the_batch_size(batch_size):
    loader = TinyLoader(num_images=17, batch_size=17, training=False)
    ((images, labels),) = loader.batches(0)

    class Rebatched(TinyLoader):
        def batches(self, epoch, start=0):
            yield from zip(images.split(batch_size), labels.split(batch_size), strict=True)

    found = evaluate(_Fixed(10), Rebatched(num_images=17))
    logits = images.contiguous(memory_format=torch.channels_last).flatten(1)[:, :10]
    ranked = logits.argsort(dim=1, descending=True)
    assert found.n == 17
    assert found.top1 == pytest.approx(100 * (ranked[:, 0] == labels).float().mean().item())
    assert found.top5 == pytest.approx(100 * (ranked[:, :5] == labels[:, None]).any(1).float().mean().item())
    assert found.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 17])
def test_the_confusion_matrix_counts_every_image_once(batch_size):
    loader = TinyLoader(num_images=17, batch_size=batch_size, training=False)
    found = evaluate(_Fixed(10), loader, classes=10)
    expected = [[0] * 10 for _ in range(10)]
    for images, labels in loader.batches(0):
        guesses = _Fixed(10)(images.contiguous(memory_format=torch.channels_last)).argmax(1)
        for label, guess in zip(labels, guesses, strict=True):
            expected[label][guess] += 1
    assert found.confusion == tuple(map(tuple, expected))
    hits = sum(line[place] for place, line in enumerate(found.confusion))
    assert sum(map(sum, found.confusion)) == 17 and found.top1 == pytest.approx(100 * hits / 17)
    plain = evaluate(_Fixed(10), loader)
    assert plain.confusion is None and (plain.loss, plain.top1, plain.top5) == (found.loss, found.top1, found.top5)


def test_fewer_than_five_classes_are_all_among_the_first_five():
    found = evaluate(_Fixed(3), TinyLoader(num_images=17, training=False, classes=3))
    assert found.top5 == 100.0 and found.top1 < 100.0


def test_evaluation_mode_and_no_change_to_the_network():
    model = TinyNet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, TinyLoader(training=False))
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_loader_that_loses_images_is_an_error():
    class Losing(TinyLoader):
        def batches(self, epoch, start=0):
            yield from list(super().batches(epoch, start))[:-1]

    with pytest.raises(DataError, match="gave 24 images of a split of 26"):
        evaluate(TinyNet(), Losing(training=False))
    with pytest.raises(DataError, match="2 of 26 test images cannot be read"):
        evaluate(TinyNet(), Losing(training=False, skipped=2))


def test_a_loss_that_is_not_finite_is_an_error():
    with pytest.raises(DivergenceError, match="not finite"):
        evaluate(TinyNet(), TinyLoader(training=False, poison=(0, 1)))


def test_stopping_gives_nothing():
    assert evaluate(TinyNet(), TinyLoader(training=False), stop=lambda: True) is None
