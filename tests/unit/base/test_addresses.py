"""What an address of a store says before anything opens it."""

import pytest

from recu.base.addresses import check_store_address, is_usable, sqlite_file


@pytest.mark.parametrize(
    ("address", "usable"),
    [
        ("sqlite:///mlflow.db", True),
        ("http://host:5000", True),
        ("https://host", True),
        ("postgresql+psycopg2://host/db", True),
        ("./mlruns", False),
        ("/abs/mlruns", False),
        ("file:///abs/mlruns", False),
        ("databricks", False),
        ("databricks://profile", False),
    ],
)
def test_kinds_that_are_known(address, usable):
    assert check_store_address(address) == address and is_usable(address) is usable


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("sqlit:///x.db", "did you mean 'sqlite'"),
        ("htp://user:pa55word@host", "did you mean 'http'"),
        ("foo:bar", "unknown kind of MLflow address 'foo'"),
        ("sqlite://x.db", "lacks slashes"),
        ("http:/pa55word@host", "lacks slashes"),
    ],
)
def test_misspelt_ones(address, said):
    with pytest.raises(ValueError, match=said) as raised:
        check_store_address(address)
    assert "pa55word" not in str(raised.value) and "sqlite:///FILE" in str(raised.value)


def test_sqlite_file(tmp_path):
    assert sqlite_file("sqlite:////a/b.db").as_posix() == "/a/b.db"
    assert sqlite_file("sqlite:////a/b.db?mode=ro").as_posix() == "/a/b.db"
    assert sqlite_file("sqlite:///b.db").is_absolute()
    assert sqlite_file("http://host") is None
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    assert sqlite_file(f"sqlite:///{tmp_path}/link.db") == (tmp_path / "real.db").resolve()
    (tmp_path / "loop.db").symlink_to("loop.db")
    assert sqlite_file(f"sqlite:///{tmp_path}/loop.db").name == "loop.db"
