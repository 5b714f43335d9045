"""What the package offers under names that stay."""

import pytest

import recu


def test_every_name_is_found_where_it_is_said_to_be() -> None:
    offered = set(recu._OFFERED)
    assert offered <= set(dir(recu)) and all(getattr(recu, name).__name__ == name for name in offered)
    assert recu.build_model("resnet20_1w1a", family="cifar", num_classes=4).linear.out_features == 4


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        recu.nothing_of_the_kind  # noqa: B018
