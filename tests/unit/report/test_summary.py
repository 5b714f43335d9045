"""Seeds are averaged and judged by one rule."""

import math

import pytest

from recu.base.errors import ConfigError, ResultError
from recu.experiment.schema import Published, PublishedResult
from recu.report.summary import Spread, judge, spread, summarise, tolerance
from recu.report.tables import columns_of, lines_of


@pytest.fixture
def table(published, suite):
    return lambda rows: summarise(rows, published, suite.methods, suite.datasets)


@pytest.mark.parametrize(
    "mean, sd, n, published, verdict",
    [
        (92.8, 0.0, 3, 92.8, "reproduced"),
        (61.28, 0.0, 3, 60.98, "reproduced"),  # exactly 0.3, which binary fractions would miss
        (60.68, 0.0, 3, 60.98, "reproduced"),
        (61.2801, 0.0, 3, 60.98, "above"),
        (60.6799, 0.0, 3, 60.98, "below"),
        (93.2, 0.2, 4, 92.8, "reproduced"),  # 2 * 0.2 * sqrt(1.25) = 0.447
        (93.25, 0.2, 4, 92.8, "above"),
        (93.8, 5.0, 2, 92.8, "reproduced"),  # a huge spread allows one point and no more
        (93.81, 5.0, 2, 92.8, "above"),
        (93.0, None, 1, 92.8, "single run, within 0.3"),
        (93.2, None, 1, 92.8, "single run, above"),
        (92.4, None, 1, 92.8, "single run, below"),
    ],
)
def test_the_rule_at_its_edges(mean, sd, n, published, verdict):
    assert judge(Spread(mean, sd), n, published) == verdict


def test_tolerance_is_the_error_of_a_difference_to_one_further_run():
    assert tolerance(0.2, 4) == pytest.approx(2 * 0.2 * math.sqrt(1.25))
    assert tolerance(0.01, 4) == tolerance(None, 1) == 0.3
    assert tolerance(9.0, 4) == 1.0


def test_spread_is_the_sample_deviation_and_blank_for_one():
    assert spread([1.0, 2.0, 3.0]) == Spread(2.0, 1.0)
    assert spread([1.0]) == Spread(1.0, None)


def test_numbers_are_made_without_the_noise_of_binary_fractions(table, row):
    values = (92.0, 92.21)
    assert sum(values) / 2 != 92.105, "halfway between two hundredths but for noise"
    assert spread(values).mean == 92.105 and round(spread(values).sd, 9) == spread(values).sd
    (line,) = table([row(seed=seed, top1=top1) for seed, top1 in enumerate(values)])
    assert (line.top1_best.mean, line.difference) == (92.105, -0.695)


def test_seeds_are_averaged_into_one_line(table, row):
    (line,) = table([row(seed=2, top1=92.9, last=92.0), row(seed=1, top1=92.7, last=91.0)])
    assert line.top1_best.mean == pytest.approx(92.8) and line.top1_best.sd == pytest.approx(0.2 / math.sqrt(2))
    assert line.top1_last.mean == pytest.approx(91.5)
    assert line.seeds == (1, 2) and line.verdict == "reproduced" and line.difference == pytest.approx(0)


def test_rows_of_a_suite_with_a_name_are_lines_of_their_own_and_not_the_method_itself(table, row):
    plain, *named = table([row(), row(row="tau-0.90"), row(row="tau-0.95", seed=2), row(row="tau-0.95", seed=3)])
    assert [(line.result.row, len(line.seeds)) for line in named] == [("tau-0.90", 1), ("tau-0.95", 2)]
    assert plain.verdict.startswith("single run") and {line.verdict for line in named} == {"not comparable"}
    assert named[0].reason == "nothing is published for row tau-0.90"
    assert named[0].result.labelled_method == "vanilla, tau-0.90"
    assert named[0].result.network == "cifar.resnet18_1w1a+tau-0.90"


def test_a_published_number_that_nobody_quotes_is_no_number(published, suite, row):
    there = PublishedResult(method="vanilla", row="tau-0.90", top1=None, source="s")
    (line,) = summarise(
        [row(row="tau-0.90")], Published(results=(*published.results, there)), suite.methods, suite.datasets
    )
    assert (line.difference, line.verdict) == (None, "not comparable") and "not quoted anywhere" in line.reason
    assert "not quoted" in [column.text(lines_of([line])[0]) for column in columns_of([line])]


def test_methods_and_models_are_lines_of_their_own_in_the_order_given(table, row):
    lines = table([row(), row(method="finetune", top1=93.2), row(model="resnet20_1w1a")])
    assert [(line.result.model, line.result.method, line.reconstruction) for line in lines] == [
        ("resnet18_1w1a", "vanilla", False),
        ("resnet18_1w1a", "finetune", True),
        ("resnet20_1w1a", "vanilla", False),
    ]


def test_a_single_seed_never_claims_a_reproduction(table, row):
    (line,) = table([row()])
    assert line.verdict == "single run, within 0.3" and line.top1_best.sd is None


def test_another_dataset_is_not_comparable_and_has_no_difference(table, row):
    (line,) = table([row(dataset="digits")])
    assert (line.verdict, line.reason) == ("not comparable", "nothing is published on this dataset")
    assert line.difference is None and line.published is None


def test_a_short_training_shows_the_published_value_but_is_not_compared(table, row):
    (line,) = table([row(epochs=10)])
    assert (line.verdict, line.reason) == ("not comparable", "epochs 10 instead of 600")
    assert line.published.top1 == 92.8 and line.difference is None


def test_seeds_of_different_settings_are_not_averaged(table, row):
    with pytest.raises(ResultError, match="epochs is 600 in one and 10 in the other"):
        table([row(seed=1, epochs=10), row(seed=2)])


def test_a_seed_is_not_counted_twice(table, row):
    with pytest.raises(ResultError, match="twice"):
        table([row(), row()])


def test_a_method_that_the_suite_does_not_describe(table, row):
    with pytest.raises(ConfigError, match="did you mean 'finetune'"):
        table([row(method="finetun")])
