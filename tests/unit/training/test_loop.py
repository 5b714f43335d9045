"""Losses and steps."""

import pytest
import torch
import torch.nn.functional as F

from recu.training.loop import soft_cross_entropy, train_steps
from recu.training.sums import RunningSums
from tests.unit.training.tiny import CPU, TinyLoader, TinyNet


def test_soft_cross_entropy_is_the_mean_over_the_batch():
    logits, teacher = torch.randn(4, 7, dtype=torch.float64), torch.randn(4, 7, dtype=torch.float64)
    expected = sum(-(F.softmax(t, 0) * torch.log(F.softmax(s, 0))).sum() for s, t in zip(logits, teacher, strict=True))
    assert soft_cross_entropy(logits, teacher) == pytest.approx((expected / 4).item(), rel=1e-12)


def test_a_certain_teacher_is_cross_entropy():
    logits, labels = torch.randn(4, 7), torch.tensor([0, 6, 2, 2])
    certain = F.one_hot(labels, 7) * 1e4
    assert soft_cross_entropy(logits, certain).item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)


def test_one_step_is_the_textbook_step():
    torch.manual_seed(0)
    model, twin = TinyNet(), TinyNet()
    twin.load_state_dict(model.state_dict())
    loader = TinyLoader(num_images=8)
    ((images, labels),) = loader.batches(0)
    sums = RunningSums(CPU)
    steps = list(train_steps(model, loader, torch.optim.SGD(model.parameters(), lr=0.1), sums, epoch=0))
    optimizer = torch.optim.SGD(twin.train().parameters(), lr=0.1)
    loss = F.cross_entropy(twin(images), labels)
    loss.backward()
    optimizer.step()
    assert steps == [1]
    assert sums.read().loss == pytest.approx(loss.item(), rel=1e-6)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_the_first_bad_step_is_found_afterwards():
    sums, logits, labels = RunningSums(CPU), torch.randn(3, 10), torch.zeros(3, dtype=torch.int64)
    for step, loss in enumerate((1.0, float("inf"), float("nan"), 1.0)):
        sums.add(torch.tensor(loss), logits, labels, step)
    assert sums.first_bad_step() == 1
