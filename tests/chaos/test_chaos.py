"""The fault suite's table; the suite itself is `make chaos`, and `make chaos-short` in CI."""

import re

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
