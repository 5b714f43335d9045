import subprocess
import sys

from recu.engine.gpu_slot import take_slot, visible_gpus


def test_names_come_from_the_environment_where_it_sets_them():
    assert visible_gpus(2, None) == ("0", "1")
    assert visible_gpus(2, "3,5") == ("3", "5")
    assert visible_gpus(1, "GPU-a,GPU-b") == ("GPU-a",)


def test_each_process_gets_its_own_and_gives_it_back_when_it_is_killed(tmp_path):
    code = f"""
from pathlib import Path
from recu.engine.gpu_slot import take_slot
print(take_slot(("0", "1"), Path({str(tmp_path)!r})), flush=True)
input()
"""
    holders = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        assert sorted(int(holder.stdout.readline()) for holder in holders) == [0, 1]
        assert take_slot(("0", "1"), tmp_path) == 0, "all are held: shared"
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()
    assert take_slot(("0", "1"), tmp_path) == 0
    assert take_slot(("0", "1"), tmp_path) == 1
