"""How several devices share batches, in records and in words."""

import pytest

from recu.experiment.schema import Hyperparameters
from recu.results.records import Piece, Shared, as_record
from recu.results.sharing import pieces_worded, shared_by, worded
from tests.unit.training.tiny import RECIPE, tiny_provenance


def recipe(**changes):
    return Hyperparameters(**(RECIPE | {"batch_size": 256} | changes))


def test_the_record_of_two_devices():
    assert shared_by(recipe(), 1) is None
    assert shared_by(recipe(), 2) == Shared(processes=2, batch_per_process=128, batch_norm_batch=128)
    assert shared_by(recipe(), 3) == Shared(processes=3, batch_per_process=86, batch_norm_batch=86)
    synchronised = shared_by(recipe(sync_batch_norm=True), 2)
    assert synchronised == Shared(processes=2, batch_per_process=128, batch_norm_batch=256)


@pytest.mark.parametrize(
    ("devices", "changes", "said"),
    [
        (1, {}, None),
        (2, {}, "2 devices with 128 images each, BatchNorm over 128 of a batch of 256, the recipe says 256"),
        (2, {"replicas": 2}, "2 devices with 128 images each, BatchNorm over 128 of a batch of 256"),
        (1, {"replicas": 2}, "1 device, BatchNorm over 256 of a batch of 256, the recipe says 128"),
        (2, {"sync_batch_norm": True}, "2 devices with 128 images each, BatchNorm over 256 of a batch of 256"),
    ],
)
def test_words_where_it_is_not_one_device(devices, changes, said):
    found = recipe(**changes)
    assert worded(shared_by(found, devices), found.batch_size, found.replicas) == said


def test_a_piece_keeps_its_form_on_one_device_and_says_which_epochs_were_shared():
    pieces = [
        Piece(from_epoch=first, to_epoch=first + 4, provenance=tiny_provenance(), shared=shared_by(recipe(), devices))
        for first, devices in ((0, 1), (5, 2))
    ]
    assert ["shared" in piece.as_plain() for piece in pieces] == [False, True]
    assert [as_record(piece.as_plain(), Piece) for piece in pieces] == pieces
    assert pieces_worded(pieces, 256, 1) == [
        "epochs 6 to 10 on 2 devices with 128 images each, BatchNorm over 128 of a batch of 256, the recipe says 256"
    ]


def test_synchronised_parts_contradict_themselves():
    with pytest.raises(ValueError, match="sync_batch_norm normalises the whole batch"):
        recipe(sync_batch_norm=True, replicas=2)
