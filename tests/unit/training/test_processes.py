"""Several processes of one job: which errors say that another one is lost."""

import pytest
import torch.distributed as dist

from recu.base.errors import LostProcess
from recu.training import processes
from recu.training.processes import Processes


class Store:
    """In which nobody has left a word."""

    def check(self, _keys):
        return False


@pytest.fixture
def one_of_two(monkeypatch):
    monkeypatch.setattr(processes, "_LAST_WORDS_S", 0)
    return Processes(rank=0, count=2, store=Store())


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:1"),
        RuntimeError("NCCL communicator was aborted on rank 1"),
        dist.DistNetworkError("Broken pipe"),
        dist.DistStoreError("wait timeout after 300000ms"),
    ],
)
def test_that_another_process_does_not_answer_is_one_line(one_of_two, error):
    with pytest.raises(LostProcess, match="run the same command again"), one_of_two.in_words():
        raise error


@pytest.mark.parametrize("text", ["at 12:4: tl.store(out + x, tmp)", "socket", "the connection of layers 1 and 2"])
def test_an_error_of_another_kind_is_not_hidden(one_of_two, text):
    """A job that ends as if another process were lost is begun again and again."""
    with pytest.raises(RuntimeError, match=r"tl.store|socket|layers") as raised, one_of_two.in_words():
        raise RuntimeError(text)
    assert not isinstance(raised.value, LostProcess)
