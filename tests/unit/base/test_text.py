"""Foreign text is shown as text."""

import pytest

from recu.base.text import csv_text, markdown_paragraph, markdown_text, visible


def test_visible_is_one_line_without_control_characters_or_marks_of_direction():
    assert visible("a\x1b[31mred\x00\n\u2028b\u202ec\ufffe") == "a\\x1b[31mred\\x00 b\\u202ec\\ufffe"
    assert visible("\udce9 \ud800") == "\\udce9 \\ud800", "what no encoding takes"
    assert visible("Größe 5 ± 1 日本 👩‍🔬") == "Größe 5 ± 1 日本 👩‍🔬"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[x](https://e.org)", r"\[x\](https://e.org)"),
        ("![x](a.png)", r"!\[x\](a.png)"),
        ("`rm` *b* _c_ ~~d~~ $e$", r"\`rm\` \*b\* \_c\_ \~\~d\~\~ \$e\$"),
        ("a | b\\", r"a \| b\\"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("# x\n\n# y", r"\# x \# y"),
        ("-", "-"),
        ("1.5 % of resnet20_1w1a (a) - b", "1.5 % of resnet20_1w1a (a) - b"),
    ],
)
def test_nothing_becomes_markdown(text, shown):
    assert markdown_text(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [("- x", r"\- x"), ("+ x", r"\+ x"), ("-", r"\-"), ("---", r"\---"), ("1. x", r"1\. x"), ("2)", r"2\)"),
     ("+0.31", "+0.31"), ("1.5 %", "1.5 %"), ("* x", r"\* x"), ("# x", r"\# x")],
)  # fmt: skip
def test_a_paragraph_begins_no_list(text, shown):
    assert markdown_paragraph(text) == shown


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1", "'x"])
def test_formulas_get_an_apostrophe_and_lose_it_again(text):
    assert csv_text(text) == f"'{visible(text)}"


def test_other_text_gets_none():
    assert csv_text("a=1") == "a=1"
