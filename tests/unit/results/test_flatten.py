"""Nested parameters as flat text."""

from recu.results.flatten import flatten_params


def test_every_kind_of_value_becomes_text_under_a_dotted_name():
    params = {
        "model": "a",
        "lr": 0.1,
        "steps": [30, 60],
        "warm_up": True,
        "parent": None,
        "h": {"x": {"y": 1}},
        "e": {},
    }
    assert flatten_params(params) == {
        "model": "a",
        "lr": "0.1",
        "steps": "[30,60]",
        "warm_up": "true",
        "parent": "null",
        "h.x.y": "1",
        "e": "{}",
    }
