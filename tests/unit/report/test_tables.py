"""The same table three ways, safe against what names may hold."""

import io
import json
import re
from html.parser import HTMLParser
from itertools import groupby
from xml.etree import ElementTree

import pandas
import pytest

from recu.report import figures
from recu.report.notes import notes
from recu.report.pages import Suite, suite_page
from recu.report.summary import RULE, half_width, summarise
from recu.report.tables import (
    COLUMNS,
    as_json,
    columns_of,
    csv,
    latex,
    lines_of,
    markdown,
    plain_column,
    tables_of,
    terminal,
)
from recu.results.records import Claim, PackedRecord, SpeedRecord, as_record
from recu.results.seal import seal_problem
from tests.unit.results.made import packed, provenance, speed, training


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
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not re.match(r"\|[-:]+\|", line)]


def page_of(table, rows, suite):
    return suite_page(Suite(facts=suite, rows=rows, table=table))


def drawn(name, table, rows, suite):
    return figures.svg(Suite(facts=suite, rows=rows, table=table).drawing(name))


def test_markdown_and_html_show_the_same_cells(table, rows, suite):
    below = notes(table, rows, suite)
    text = markdown_lines(markdown(table, below, suite))
    assert text == Cells(page_of(table, rows, suite)).lines
    header, first, second, third = (dict(zip(text[0], line, strict=True)) for line in text[:4])
    costs = dict(zip(text[4], text[5], strict=True))
    assert list(header)[1] == "model" and "Top-1 published" in header
    assert first["Top-1 best epoch"] == "92.80 ± 1.27" and first["seeds"] == "2" and first["verdict"] == "reproduced"
    assert second["training method"] == "finetune (reconstruction)"
    assert second["verdict"] == "single run, within 0.3" and second["Top-1 best epoch"] == "93.20"
    assert third["verdict"].startswith("not comparable: nothing is published for model") and third["difference"] == "-"
    assert costs["shortcuts"] == "one per block" and costs["parameters"] == "1.117e+07" and costs["training (h)"] == "1"


def test_the_interval_is_students(table):
    # Two seeds, 0.2 apart: t(0.975, 1) = 12.706 times 0.1.
    assert lines_of(table)[0]["top1_best_ci95"] == pytest.approx(1.2706, abs=1e-4)
    assert lines_of(table)[1]["top1_best_ci95"] is None
    assert half_width(1.0, 10) == pytest.approx(2.2622 / 10**0.5, abs=1e-4) and half_width(None, 1) is None


def test_json_holds_the_csvs_values_and_whole_counts(table, rows, suite):
    content = json.loads(as_json(table, notes(table, rows, suite), suite))
    assert seal_problem(content) is None and content["suite"] == "cifar10"
    frame = pandas.read_csv(io.StringIO(csv(table)))
    assert list(frame.columns) == list(content["rows"][0])
    for name in ("parameters", "binary_operations", "epochs", "seeds", "batch_size"):
        assert all(isinstance(line[name], int) for line in content["rows"])
    assert ",11172042," in csv(table) and frame["epochs"].dtype.kind == "i"


def test_a_narrow_terminal_keeps_what_matters(table, rows, suite):
    content = json.loads(as_json(table, notes(table, rows, suite), suite))
    narrow, wide = terminal(content, 80), terminal(content, 200)
    assert max(map(len, narrow.splitlines())) <= 80
    for text in (
        "model",
        "method",
        "top-1",
        "published",
        "verdict",
        "reproduced",
        "92.80 ± 1.27",
        "single run, within",
    ):
        assert text in narrow, narrow
    assert "not comparable: nothing is published for model resnet20_1w1a on CIFAR-10" in " ".join(narrow.split())
    assert "last epoch" in wide and "last epoch" not in narrow and "shortcuts" not in wide
    full = terminal(content, None)
    assert all(column.header in full for column in columns_of(table))
    assert max(map(len, terminal(content, 50).splitlines())) <= 80, "the least that keeps its columns readable"


def test_latex_has_both_tables_with_booktabs(table, rows, suite):
    text = latex(table, notes(table, rows, suite), suite)
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2 and "±" not in text.split(r"\begin")[1]
    assert r"92.80 \ensuremath{\pm} 1.27" in text and r"resnet18\_1w1a" in text


def test_seeds_of_one_commit_and_other_code_are_told_apart(row, published, suite):
    def notes_of(*hashes):
        rows = []
        for seed, code in enumerate(hashes):
            found = row(seed=seed)
            pieces = tuple(
                piece.model_copy(update={"provenance": piece.provenance.model_copy(update={"code_hash": code})})
                for piece in found.segments
            )
            rows.append(found.model_copy(update={"segments": pieces, "evaluate_provenance": pieces[0].provenance}))
        table = summarise(rows, published, suite.methods, suite.datasets)
        return next(note for note in notes(table, rows, suite).origin if note.startswith("Code: "))

    one, two = "1" * 64, "2" * 64
    assert "code hash" not in notes_of(one, one)
    assert [f"code hash {each[:16]}" in notes_of(one, two) for each in (one, two)] == [True, True]


def test_latex_sets_names_of_rows_as_they_are(row, published, suite):
    datasets = {"cifar10": suite.datasets["cifar10"].model_copy(update={"title": "[a] b"})}
    rows = [row(row="tau-0.9--lr-0.1")]
    table = summarise(rows, published, suite.methods, datasets)
    text = latex(table, notes(table, rows, suite), suite)
    assert "tau-0.9-{}-lr-0.1" in text and "--" not in text.split(r"\begin", 1)[1]
    assert re.search(r"^ \{\[\}a\] b", text, re.MULTILINE)


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
    assert len(frame.columns) == sum(len(column.values) for column in columns_of(table))


def test_packed_files_are_listed_where_a_row_has_one(row, published, suite):
    plain, with_file = row(), row(model="resnet20_1w1a")
    listed = with_file.model_copy(update={"packed": as_record(packed(training(model="resnet20_1w1a")), PackedRecord)})
    assert "packed" not in with_file.as_plain() and listed.as_plain()["packed"]["size_bytes"] == 51460
    before, after = (summarise([plain, each], published, suite.methods, suite.datasets) for each in (with_file, listed))
    assert "packed" not in csv(before)
    frame = pandas.read_csv(io.StringIO(csv(after)))
    assert frame["packed_bytes"].tolist()[1] == 51460 and pandas.isna(frame["packed_bytes"][0])
    assert frame["packed_other_class"][1] == 2
    (column,) = (each for each in columns_of(after) if each.header == "packed file (KB)")
    assert [column.text(line) for line in lines_of(after)] == ["-", "51.46"]


SPEEDS = (
    "ms an image (packed)",
    "images/s (packed)",
    "speed-up over float (one image)",
    "speed-up over float (batches)",
)


@pytest.fixture
def timed(row, published, suite):
    """Rows and table of a network that was timed, one that was on another machine that was busy, one that was not."""

    def with_speed(name, **changes):
        speeds = as_record(speed(training(model=name), **changes), SpeedRecord)
        return row(model=name).model_copy(update={"speed": speeds})

    other = {"others": 3.5, "provenance": provenance(device="CPU, 2 threads (another)")}
    rows = [with_speed("resnet20_1w1a"), with_speed("vgg_small_1w1a", **other), row()]
    return rows, summarise(rows, published, suite.methods, suite.datasets)


def test_speeds_stand_in_the_costs_of_every_form_with_the_machine_that_measured_them(timed, suite):
    rows, table = timed
    below = notes(table, rows, suite)
    page = Cells(page_of(table, rows, suite))
    texts = markdown_lines(markdown(table, below, suite).replace("\\*", "*"))
    assert texts == page.lines
    assert [len(each) for each in tables_of(columns_of(table))] == [len(texts[place]) for place in (0, 4, 8)]
    costs = [dict(zip(texts[8], line, strict=True)) for line in texts[9:]]
    expected = [
        ["0.5", "4000", "4.00", "8.00"],
        ["0.5*", "4000*", "not measured", "not measured"],
        ["not measured"] * 4,
    ]
    assert [[line[name] for name in SPEEDS] for line in costs] == expected
    content = json.loads(as_json(table, below, suite))
    full = terminal(content, None)
    assert [" ".join(line) in " ".join(full.split()) for line in expected] == [True] * 3
    for text in (markdown(table, below, suite), page_of(table, rows, suite), latex(table, below, suite), full):
        assert all(each in text for each in ("CPU, 2 threads (a processor)", "CPU, 2 threads (another)"))
        assert "0.2 of 4 processors" in text and "3.5 of 4 processors" in text
    assert "ms an image" not in terminal(content, 200)
    frame = pandas.read_csv(io.StringIO(csv(table)))
    assert frame["packed_ms"].tolist()[:2] == [0.5, 0.5] and pandas.isna(frame["packed_ms"][2])
    assert frame["speedup_one"].tolist()[0] == 4 and frame["speedup_one"].isna().tolist() == [False, True, True]
    assert frame["speed_device"].tolist()[:2] == ["CPU, 2 threads (a processor)", "CPU, 2 threads (another)"]
    assert frame["speed_measured"].tolist()[0] == "2026-11-20T10:00:00+00:00" and frame["float_ms"].tolist()[0] == 2


def _speed_notes(table, rows, suite):
    return [note for note in notes(table, rows, suite).reading if note.startswith("Speed: measured")]


def test_a_network_that_was_timed_on_two_datasets_has_both_in_the_note(timed, published, suite):
    (row, other, _), _ = timed
    busy = row.speed.model_copy(update={"others": 3.5, "load_average": 4.0})
    rows = [row.model_copy(update={"dataset": "digits", "speed": busy}), row]
    table = summarise(rows, published, suite.methods, suite.datasets)
    (note,) = _speed_notes(table, rows, suite)
    assert "0.2 to 3.5 of 4 processors; load average: 2.2 to 4.0." in note
    table = summarise([*rows, other], published, suite.methods, suite.datasets)
    first, second = _speed_notes(table, [*rows, other], suite)
    network = "cifar.resnet20_1w1a, vanilla on"
    assert f"measured of {network} digits; {network} cifar10 on CPU" in first
    assert "measured of cifar.vgg_small_1w1a, vanilla on cifar10 on CPU" in second


def test_of_released_files_the_note_of_speeds_names_each(timed, published, suite):
    (row, other, _), _ = timed
    claims = [Claim(name=name, path=f"{name}.pth", top1=92.8, dataset="cifar10") for name in ("one", "two", "three")]
    rows = [each.model_copy(update={"claim": claim}) for each, claim in zip((row, row, other), claims, strict=True)]
    table = summarise(rows, published, suite.methods, suite.datasets)
    first, second = _speed_notes(table, rows, suite)
    assert "measured of one; two on CPU" in first and "measured of three on CPU" in second


def test_without_a_speed_no_table_speaks_of_it(table, rows, suite):
    text = markdown(table, notes(table, rows, suite), suite)
    assert not [name for name in SPEEDS if name in text] and "Speed:" not in text and "speed" not in csv(table)


def test_a_column_is_one_entry_that_names_a_field_of_the_row(table):
    frame = pandas.read_csv(io.StringIO(csv(table, columns=(*COLUMNS, plain_column("suite")))))
    assert list(frame)[-1] == "suite" and list(frame["suite"]) == ["cifar10"] * 3


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
        "(figures/cifar10/curves.svg)",
    ):
        assert expected in text
    assert "uncommitted" not in text


def test_uncommitted_changes_and_other_hardware_are_said(row, published, suite):
    only = with_provenance(row(), git_dirty=True, device="cpu")
    text = shown_below([only], published, suite)
    assert "with uncommitted changes" in text and "trained on cpu; evaluated on NVIDIA A100" in text
    assert "Pieces" not in text


def test_a_checkout_that_git_says_nothing_of_is_not_called_clean(row, published, suite):
    only = with_provenance(row(), git_dirty=None)
    assert "aaaaaaaaaaaa (git did not say what was uncommitted)" in shown_below([only], published, suite)


def test_every_piece_of_an_interrupted_training_is_said(row, published, suite):
    only = row()
    other = {"git_commit": "b" * 40, "device": "old GPU", "created": "2026-11-02T10:00:00+00:00"}
    (first,) = with_provenance(only, **other).segments
    (second,) = only.segments
    pieces = (first.model_copy(update={"to_epoch": 0}), second.model_copy(update={"from_epoch": 1}))
    text = shown_below([only.model_copy(update={"segments": pieces})], published, suite)
    assert "Date: 2026-11-02 to 2026-11-20" in text and "trained on old GPU, NVIDIA A100" in text
    assert "Code: git commit bbbbbbbbbbbb, git commit aaaaaaaaaaaa." in text
    assert "epoch 1 by git commit bbbbbbbbbbbb; epochs 2 to 5 by git commit aaaaaaaaaaaa" in text


def with_provenance(row, **changes):
    (piece,) = row.segments
    changed = piece.model_copy(update={"provenance": piece.provenance.model_copy(update=changes)})
    return row.model_copy(update={"segments": (changed,)})


def shown_below(rows, published, suite):
    below = notes(summarise(rows, published, suite.methods, suite.datasets), rows, suite)
    return " ".join((*below.reading, *below.origin))


NASTY = '=1\x1b[31m<script>alert("1")</script> | x [y](https://example.org) ![z](q) `c` \x00\u202e'
SHOWN = '=1\\x1b[31m<script>alert("1")</script> | x [y](https://example.org) ![z](q) `c` \\x00\\u202e'


@pytest.fixture
def nasty(row, published, suite):
    """Rows, table, notes and suite with NASTY wherever a user or a publication may write."""
    datasets = {"cifar10": suite.datasets["cifar10"].model_copy(update={"title": NASTY})}
    methods = {"vanilla": suite.methods["vanilla"].model_copy(update={"description": NASTY})}
    suite = suite.model_copy(update={"title": NASTY, "description": NASTY, "datasets": datasets, "methods": methods})
    results = tuple(result.model_copy(update={"source": NASTY}) for result in published.results)
    rows = [with_provenance(row(), device=NASTY)]
    table = summarise(rows, published.model_copy(update={"results": results}), suite.methods, suite.datasets)
    return rows, table, notes(table, rows, suite), suite


def test_names_cannot_become_html(nasty):
    rows, table, _, suite = nasty
    text = page_of(table, rows, suite)
    page = Cells(text)
    assert page.tags.count("script") == 1, "the page's own"
    assert page.lines[1][0] == SHOWN
    assert not {"\x1b", "\x00", "\u202e"} & set(text)
    assert not [address for address in page.addresses if "example.org" in address]


def test_names_cannot_become_markdown(nasty):
    _, table, below, suite = nasty
    text = markdown(table, below, suite)
    assert "<script" not in text and "\\| x" in text and not {"\x1b", "\x00", "\u202e"} & set(text)
    lines = [line.replace("\\|", "") for line in text.splitlines()]
    blocks = [list(block) for of_table, block in groupby(lines, lambda line: line.startswith("|")) if of_table]
    assert [len({line.count("|") for line in block}) for block in blocks] == [1, 1], "two tables, no cell too many"
    # Every address, image and code mark that is left is the table's own.
    bare = re.sub(r"\\.", "", text)
    assert re.findall(r"\[[^]]*\]\([^)]*\)", bare) == [
        "[CSV](cifar10.csv)", "[JSON](cifar10.json)", "[LaTeX](cifar10.tex)", "[HTML](cifar10.html)",
        "[Accuracy and loss by epoch](figures/cifar10/curves.svg)",
    ]  # fmt: skip
    assert "`" not in bare and text.count("\n# ") + text.startswith("# ") == 1


def test_names_cannot_become_formulas_and_read_back(nasty):
    _, table, _, _ = nasty
    (line,) = pandas.read_csv(io.StringIO(csv(table))).to_dict("records")
    assert line["dataset_title"] == line["published_source"] == f"'{SHOWN}"
    assert line["dataset_title"].removeprefix("'") == SHOWN
    assert line["top1_best_mean"] == 92.8 and line["model"] == "resnet18_1w1a"


def test_names_cannot_become_latex_or_json(nasty):
    _, table, below, suite = nasty
    text = latex(table, below, suite)
    assert not {"\x1b", "\x00", "\u202e"} & set(text) and r"\textbackslash{}x1b" in text
    assert not re.search(r"(?<!\\)[$#&_](?![^\n]*\\\\)", "\n".join(re.findall("^=1.*", text, re.MULTILINE)))
    content = as_json(table, below, suite)
    assert not {"\x1b", "\x00", "\u202e"} & set(content) and json.loads(content)["title"] == NASTY
    assert not {"\x1b", "\x00", "\u202e"} & set(terminal(json.loads(content), 80))


def test_negative_numbers_stay_numbers(row, published, suite):
    table = summarise([row(top1=90.0)], published, suite.methods, suite.datasets)
    assert pandas.read_csv(io.StringIO(csv(table)))["difference"].tolist() == [-2.8]


def test_names_cannot_become_svg(nasty):
    rows, table, _, suite = nasty
    for name in ("curves", "published"):
        tree = ElementTree.fromstring(drawn(name, table, rows, suite))  # refuses control characters
        assert not [each for each in tree.iter() if each.tag.endswith(("script", "}a", "foreignObject", "image"))]
        assert any(SHOWN in (each.text or "") for each in tree.iter())


def test_the_page_needs_no_other_file_and_knows_dark_mode(table, rows, suite):
    page = page_of(table, rows, suite)
    assert Cells(page).addresses == [] and "url(http" not in page
    assert "prefers-color-scheme: dark" in page
    assert page.count("<svg") == 4 + 1 + 8, "panels of curves, published and weights; of the others there is nothing"
    assert "#1b1f24" not in page.split("</style>", 1)[1], "figures have the page's ink"


def test_curves_are_the_same_bytes_for_the_same_results_and_show_what_is_comparable(table, rows, suite):
    first = drawn("curves", table, rows, suite)
    assert first == drawn("curves", table, rows, suite) and first.lstrip().startswith(b"<?xml")
    assert b"vanilla, published (92.8 %)" in first and b"cifar.resnet20_1w1a on CIFAR-10" in first
    only_short = [line for line in table if line.result.model == "resnet20_1w1a"]
    assert b"published" not in drawn("curves", only_short, [rows[-1]], suite)


def test_names_with_dollar_signs_draw(row, published, suite):
    datasets = {"cifar10": suite.datasets["cifar10"].model_copy(update={"title": "$x^{ and $"})}
    rows = [row()]
    table = summarise(rows, published, suite.methods, datasets)
    assert b"and $" in drawn("curves", table, rows, suite)
