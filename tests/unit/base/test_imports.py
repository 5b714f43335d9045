"""Imports without collecting garbage, and what follows."""

import gc

import pytest

from recu.base.imports import without_collection


def test_collection_is_off_within_the_block_and_as_before_after_it():
    with without_collection():
        assert not gc.isenabled()
        with without_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_collection_is_on_again_after_an_error():
    with pytest.raises(ImportError), without_collection():
        raise ImportError
    assert gc.isenabled()
