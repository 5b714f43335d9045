"""The table of released files."""

import io

import pandas
import pytest

from recu.base.errors import ResultError
from recu.experiment import params, paths
from recu.experiment.released import Released
from recu.experiment.schema import Claim
from recu.experiment.suite_facts import DatasetFacts, SuiteFacts
from recu.report.claims import weigh
from recu.report.notes import notes
from recu.report.pages import Suite, suite_page
from recu.report.summary import RELEASED_RULE, judge_claim, summarise
from recu.report.tables import csv, latex, markdown
from recu.results.records import FORM, EvaluationRecord, ReleasedRecord, as_record
from recu.results.rows import MixedDataError, RowError, check_rows, result_row
from tests.unit.results.made import DATASET, evaluation, provenance, training

SUITE = SuiteFacts(
    name="released",
    title="Released",
    description="Files of others.",
    experiments=(),
    methods={},
    datasets={
        "cifar10": DatasetFacts(title="CIFAR-10", published_as="CIFAR-10"),
        "cifar10-jpeg": DatasetFacts(title="CIFAR-10 (JPEG)", published_as=None),
    },
)


RELEASED = Released(
    suite="released",
    name="one",
    path="",
    sha256=None,
    obtain=None,
    model="resnet18_1w1a",
    family="cifar",
    stage=2,
    dataset="cifar10",
    data=DATASET.identity(),
    method="vanilla",
    claimed_top1=92.8,
    claimed_on=None,
    loader="auto",
    recipe_version=1,
)


@pytest.fixture
def result():
    """A function that makes the row of one released file."""

    def make(name="one", top1=92.8, claimed=92.8, claimed_on=None, file=None, **changes):
        train = training(top1=top1)
        own = {name: changes.pop(name) for name in ("dataset", "method") if name in changes} | (file or {})
        released = RELEASED.model_copy(
            update={"name": name, "path": f"released/{name}.pth.tar", "claimed_on": claimed_on}
            | {"claimed_top1": claimed}
            | own
        )
        published = {
            "released": released.model_dump(mode="json"),
            **{key: train[key] for key in ("spec_hash", "checkpoint_sha256", "shortcut", "cost", "provenance")},
            "file_state": "5 bytes",
            "load": {},
        }
        measured = evaluation(train) | {
            "experiment_id": released.id,
            "dataset": released.dataset,
            "variant": "2021-03",
            "provenance": provenance(device="cpu"),
        }
        published |= {key: changes.pop(key) for key in ("cost",) if key in changes}
        where = f"the result of {name} {FORM}"
        return result_row(
            as_record(published, ReleasedRecord, where), as_record(measured | changes, EvaluationRecord, where)
        )

    return make


def rows(published, *results):
    return summarise(results, published, SUITE.methods, SUITE.datasets)


@pytest.mark.parametrize(
    ("measured", "claimed", "verdict"),
    [
        (92.8, 92.8, "confirmed"),
        (92.85, 92.8, "confirmed"),
        (92.75, 92.8, "confirmed"),
        (92.86, 92.8, "differs"),
        (92.74, 92.8, "differs"),
        (61.69, 87.5, "differs"),
    ],
)
def test_a_claim_is_confirmed_within_rounding_only(measured, claimed, verdict):
    assert judge_claim(measured, claimed) == verdict


def test_a_published_claim_on_images_seen_otherwise_is_not_compared(result):
    shipped = params.load_published(paths.PARAMS_DIR)
    good, fewer = result(), result(name="fewer", n=5000)
    altered = result(name="altered", file={"data": DATASET.identity() | {"mean": [0.5, 0.5, 0.5]}})
    verdicts = [(row.verdict, row.reason) for row in rows(shipped, good, altered, fewer)]
    assert verdicts == [
        ("confirmed", None),
        ("not comparable", "mean 0.5/0.5/0.5 instead of 0.485/0.456/0.406"),
        ("not comparable", "test images 5000 instead of 10000"),
    ]


@pytest.mark.parametrize(("key", "value"), [("top1", float("nan")), ("top5", 101.0), ("loss", -1.0), ("n", 0)])
def test_numbers_that_no_stage_writes_are_refused(result, key, value):
    with pytest.raises(ResultError, match=rf"the result of one is not .*: {key}: .*, found "):
        result(**{key: value})


def test_published_claimed_and_measured_stand_side_by_side(published, result):
    [row] = rows(published, result(top1=92.0, claimed=92.5))
    assert (row.published.top1, row.result.claim.top1, row.result.top1_best) == (92.8, 92.5, 92.0)
    assert (row.verdict, row.reason, row.result.variant) == ("differs", None, "2021-03")
    assert row.difference == pytest.approx(-0.5), "to the claim, not to the publication"


@pytest.mark.parametrize(("claimed", "expected"), [(92.8, -0.8), (92.5, None)])
def test_a_difference_to_a_claim_is_none_to_another_published_number(published, result, claimed, expected):
    table = rows(published, result(top1=92.0, claimed=claimed))
    numbers = Claim(name="c", claim="Numbers.", source="README", test="Suites.", published_numbers=True)
    (weighed,) = weigh([numbers], [table[0].published], table, [])
    assert [each.difference for each in weighed.evidence] == [expected and pytest.approx(expected)]


def test_a_claim_on_other_data_is_not_judged(published, result):
    jpeg, named, own = rows(
        published,
        result(dataset="cifar10-jpeg"),
        result(name="named", dataset="cifar10-jpeg", claimed_on="cifar10"),
        result(name="own", dataset="cifar10-jpeg", claimed_on="cifar10-jpeg"),
    )
    assert jpeg.verdict == named.verdict == "not comparable"
    assert jpeg.published is None and jpeg.difference is None
    assert jpeg.reason == "nothing is published on CIFAR-10 (JPEG)"
    assert named.reason == "claimed on cifar10, measured on cifar10-jpeg"
    assert own.verdict == "confirmed" and own.published is None


def test_a_method_that_nobody_published_is_still_judged_by_its_claim(published, result):
    [row] = rows(published, result(method="somebody's"))
    assert row.published is None and row.verdict == "confirmed"


def test_all_forms_say_the_same_and_say_the_rule(published, result):
    results = [result(), result(name="two", top1=90.0), result(name="three", dataset="cifar10-jpeg")]
    table = rows(published, *results)
    below = notes(table, results, SUITE)
    text = markdown(table, below, SUITE, with_curves=False)
    header, costs = (line for line in text.splitlines() if line.startswith("| file"))
    for name in ("file", "dataset", "model", "Top-1 published", "Top-1 claimed", "Top-1 measured"):
        assert f" {name} " in header
    assert " shortcuts " in costs and " OPs " in costs and " file " in costs
    assert RELEASED_RULE in text and "released/two.pth.tar (SHA-256 sha1)" in text and "evaluated on cpu." in text
    assert "trained on" not in text and "batch_size" not in header and "seeds" not in header
    assert "svg" not in text and "cifar (2021-03)" in text
    page = suite_page(Suite(facts=SUITE, rows=results, table=table))
    assert "<svg" not in page and '<tr class="good">' in page and '<tr class="bad">' in page
    assert "seeds" not in page and latex(table, below, SUITE).count("confirmed") > 1
    frame = pandas.read_csv(io.StringIO(csv(table)))
    assert list(frame["file"]) == ["one", "two", "three"] and list(frame["top1"]) == [92.8, 90.0, 92.8]
    assert list(frame["verdict"]) == ["confirmed", "differs", "not comparable"]
    assert frame["difference"][1] == -2.8 and frame["images"][0] == 10000


def test_a_result_of_another_form_is_one_line(result):
    with pytest.raises(ResultError, match=r"the result of one is not of the expected form .*: cost: "):
        result(cost=None)


def test_files_measured_on_different_data_are_measured_again_and_not_published(result):
    with pytest.raises(MixedDataError, match=r"rest on different data.*\(released/two\)") as caught:
        check_rows([result(), result(name="two", data_fingerprint="e" * 64)])
    assert caught.value.train == () and caught.value.evaluate == ("released/one", "released/two")


def test_an_evaluation_of_another_file_is_no_row(result):
    with pytest.raises(
        RowError, match=r"rests on other checkpoint than the training \(checkpoint_sha256 other"
    ) as caught:
        result(checkpoint_sha256="other")
    assert caught.value.evaluate == ("released/one",)
