"""What a person sees."""

import logging

from recu.training.progress import Progress
from recu.training.sums import Averages

AVERAGES = Averages(loss=1.5, top1=40.0, top5=90.0, n=64)


def test_plain_lines_name_the_finish_unless_told_not_to(caplog):
    caplog.set_level(logging.INFO, logger="recu")
    for estimate in (True, False):
        with Progress(1000, 0, bar=False, estimate=estimate) as progress:
            progress.advance(64)
            progress.step(0, 1, 16, AVERAGES, 0.1)
    with_estimate, without = caplog.messages
    assert "epoch 1, step 1 of 16: loss 1.5000, top-1 40.00 %, lr 0.1, finish about" in with_estimate
    assert "finish" not in without


def test_a_bar_shows_images_and_epoch(capsys, caplog):
    caplog.set_level(logging.INFO, logger="recu")
    with Progress(1000, 550, epochs=2, bar=True) as progress:
        progress.advance(250)
        progress.step(1, 1, 16, AVERAGES, 0.1)
    shown = capsys.readouterr().err
    assert "800/1.00k" in shown and "300/500" in shown and "epoch 2:" in shown and "loss 1.5000" in shown
    assert not caplog.messages, "with a bar, running averages go to the log file only"
