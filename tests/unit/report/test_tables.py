"""The same table three ways, safe against what names may hold."""

import io
from html.parser import HTMLParser

import pandas
import pytest

from recu.report.curves import curves_svg
from recu.report.notes import notes
from recu.report.summary import RULE, summarise
from recu.report.tables import COLUMNS, csv, html, markdown


@pytest.fixture
def rows(row):
    return [
        row(seed=1, top1=92.7),
        row(seed=2, top1=92.9),
        row(method="finetune", top1=93.2),
        row(model="resnet20_1w1a", epochs=10),
    ]


@pytest.fixture
def table(rows, published, suite):
    return summarise(rows, published, suite.methods, suite.datasets)


class Cells(HTMLParser):
    """Texts of all table cells, line by line, and every tag seen."""

    def __init__(self, page):
        super().__init__()
        self.lines, self.tags, self.addresses, self._open = [], [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag == "tr":
            self.lines.append([])
        if tag in ("th", "td"):
            self._open = True
            self.lines[-1].append("")

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self._open = False

    def handle_data(self, data):
        if self._open:
            self.lines[-1][-1] += data


def markdown_lines(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("|:")]


def test_markdown_and_html_show_the_same_cells(table, rows, suite):
    below = notes(table, rows, suite)
    text = markdown_lines(markdown(table, below, suite))
    assert text == Cells(html(table, below, suite, b"<svg/>")).lines
    header, first, second, third = (dict(zip(text[0], line, strict=True)) for line in text)
    assert list(header)[1] == "model" and "Top-1 published" in header
    assert first["Top-1 best epoch"] == "92.80 ± 0.14" and first["seeds"] == "2" and first["verdict"] == "reproduced"
    assert second["training method"] == "finetune (reconstruction)"
    assert second["verdict"] == "single run, within 0.3" and second["Top-1 best epoch"] == "93.20"
    assert third["verdict"].startswith("not comparable: nothing is published for model") and third["difference"] == "-"
    assert first["shortcuts"] == "one per block"


def test_csv_reads_back_as_numbers(table):
    frame = pandas.read_csv(io.StringIO(csv(table)))
    assert list(frame["model"]) == ["resnet18_1w1a", "resnet18_1w1a", "resnet20_1w1a"]
    assert list(frame["top1_best_mean"]) == [92.8, 93.2, 92.8] and frame["top1_best_sd"].isna().tolist() == [
        False,
        True,
        True,
    ]
    assert frame["published_top1"][0] == 92.8 and pandas.isna(frame["difference"][2])
    assert frame["seed_list"].astype(str).tolist() == ["1 2", "1", "1"] and frame["reconstruction"].tolist() == [
        False,
        True,
        False,
    ]
    assert len(frame.columns) == sum(len(column.values) for column in COLUMNS)


def test_rule_reconstruction_and_origin_are_printed_under_the_table(table, rows, suite):
    text = markdown(table, notes(table, rows, suite), suite)
    assert RULE in text
    for expected in (
        "no recipe for 'finetune'",
        "From vanilla.",
        "Method vanilla: From scratch.",
        "2026-11-20",
        "NVIDIA A100",
        "torch 2.14.1",
        "git commit aaaaaaaaaaaa",
        "10,000 test images",
        "4 trainings",
        "(cifar10.svg)",
    ):
        assert expected in text
    assert "uncommitted" not in text


def test_uncommitted_changes_other_hardware_and_disagreements_are_said(row, published, suite):
    only = row()
    only["train_provenance"] |= {"git_dirty": True, "device": "cpu"}
    only["top1_best_training"] = 92.0
    below = notes(summarise([only], published, suite.methods, suite.datasets), [only], suite)
    text = " ".join((*below.reading, *below.origin))
    assert "with uncommitted changes" in text and "trained on cpu; evaluated on NVIDIA A100" in text
    assert "gave 92.80, its training saw 92.00" in text


def test_names_cannot_become_markup(row, published, suite):
    nasty = '<script>alert("1")</script> | x'
    datasets = {"cifar10": suite.datasets["cifar10"].model_copy(update={"title": nasty})}
    suite = suite.model_copy(update={"title": nasty, "description": nasty, "datasets": datasets})
    rows = [row()]
    table = summarise(rows, published, suite.methods, suite.datasets)
    below = notes(table, rows, suite)
    page = Cells(html(table, below, suite, curves_svg(rows, table)))
    assert "script" not in page.tags and page.lines[1][0] == nasty
    text = markdown(table, below, suite)
    assert "<script" not in text and "\\| x" in text
    assert len({line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}) == 1
    assert b"<script" not in curves_svg(rows, table)


def test_the_page_needs_no_other_file_and_knows_dark_mode(table, rows, suite):
    page = html(table, notes(table, rows, suite), suite, b"<svg/>")
    assert not [address for address in Cells(page).addresses if "//" in address]
    assert "prefers-color-scheme: dark" in page and "data:image/svg+xml;base64,PHN2Zy8+" in page


def test_curves_are_the_same_bytes_for_the_same_results_and_show_what_is_comparable(table, rows):
    first = curves_svg(rows, table)
    assert first == curves_svg(rows, table) and first.lstrip().startswith(b"<?xml")
    assert b"vanilla, published" in first and b"cifar.resnet20_1w1a on CIFAR-10" in first
    only_short = [line for line in table if line.model == "resnet20_1w1a"]
    assert b"published" not in curves_svg([rows[-1]], only_short)


def test_names_with_dollar_signs_draw(row, published, suite):
    datasets = {"cifar10": suite.datasets["cifar10"].model_copy(update={"title": "$x^{ and $"})}
    rows = [row()]
    assert b"and $" in curves_svg(rows, summarise(rows, published, suite.methods, datasets))
