"""The short form of `python -m tests.chaos`: every kind of fault, a few times each."""

import re
import subprocess
import sys

import pytest

from recu.paths import PROJECT_DIR
from tests.chaos.ledger import Ledger


def test_the_table_counts_every_try_and_names_what_was_lost(capsys):
    ledger = Ledger()
    ledger.add("SIGKILL: train", None, times=3)
    ledger.add("SIGKILL: train", "other weights", times=2)
    ledger.add("full disk", None)
    *_, last = ledger.table().splitlines()
    assert last == "chaos: 6 tried, 4 recovered, 2 lost"
    assert re.search(r"SIGKILL: train +5 +3 +2 ", ledger.table())
    assert "LOST: SIGKILL: train: other weights" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "faults", [("kills", "kills-at-writes"), ("full-disk", "damage"), ("surroundings", "tracking")], ids="+".join
)
def test_nothing_is_lost(faults):
    command = [sys.executable, "-m", "tests.chaos", "--kills", "8", "--scale", "1", "--seed", "7", "--only", *faults]
    answer = subprocess.run(command, cwd=PROJECT_DIR, capture_output=True, text=True, timeout=540, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    last = answer.stdout.splitlines()[-1]
    found = re.fullmatch(r"chaos: (\d+) tried, (\d+) recovered, 0 lost", last)
    assert found and found[1] == found[2] and int(found[1]) >= 8
