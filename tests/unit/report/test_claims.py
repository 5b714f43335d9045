"""Claims are judged by means over seeds with Student's t, and by nothing where nothing was run."""

import pytest

from recu.experiment.params import load_claims, load_published
from recu.experiment.paths import PARAMS_DIR
from recu.experiment.schema import Claim, Comparison
from recu.report.claims import weigh
from recu.report.pages import claims_page
from recu.report.summary import summarise

COMPARISON = Comparison(suite="cifar10", better="*/finetune/*", than="*/vanilla/*", what="finetune against vanilla")


def claim(**more) -> Claim:
    return Claim(name="c", claim="Better.", source="Paper", test="Suite cifar10.", **more)


def verdict(rows):
    (weighed,) = weigh([claim(comparisons=(COMPARISON,))], (), (), rows)
    return weighed.evidence


@pytest.mark.parametrize(
    ("differences", "expected", "interval"),
    [
        ((0.5, 0.6, 0.7), "supported", "+0.60 [+0.35, +0.85]"),  # t = 4.303, s = 0.1
        ((-0.5, -0.6, -0.7), "contradicted", "-0.60 [-0.85, -0.35]"),
        ((0.5, -0.6, 0.7), "undecided", "+0.20 [-1.54, +1.94]"),
        ((0.5, 0.5, 0.5), "equal in every seed, undecided", "+0.50 in every seed"),
        ((-0.5, -0.5), "equal in every seed, undecided", "-0.50 in every seed"),
        ((0.9,), "single run, undecided", "+0.90, single run"),
    ],
)
def test_trainings_are_compared_seed_by_seed(row, differences, expected, interval):
    rows = [row(seed=seed, top1=90.0 + seed) for seed in range(len(differences))]
    rows += [row(seed=seed, top1=90.0 + seed + more, method="finetune") for seed, more in enumerate(differences)]
    (found,) = verdict(rows)
    assert (found.verdict, found.interval) == (expected, interval)
    sides = "cifar.resnet18_1w1a (finetune) against cifar.resnet18_1w1a (vanilla) on cifar10"
    assert len(found.runs) == 2 * len(differences)
    assert found.what == f"finetune against vanilla (suite cifar10): {sides}"


def test_a_difference_has_no_noise_of_binary_fractions(row):
    assert 92.21 - 92.0 != 0.21
    (found,) = verdict([row(top1=92.0), row(top1=92.21, method="finetune")])
    assert found.difference == 0.21


def test_what_was_not_run_says_so(row):
    for rows in ([], [row()], [row(seed=1), row(seed=2, method="finetune")]):
        (found,) = verdict(rows)
        assert (found.verdict, found.difference, found.runs) == ("not run", None, ())


def test_each_network_is_compared_for_itself_and_only_within_the_suite(row):
    rows = [row(model=model, method=method) for model in ("resnet18_1w1a", "resnet20_1w1a")
            for method in ("vanilla", "finetune")]  # fmt: skip
    assert [found.verdict for found in verdict(rows)] == ["single run, undecided"] * 2
    elsewhere = Comparison(suite="ablation", better="*", than="*", what="all")
    (weighed,) = weigh([claim(comparisons=(elsewhere,))], (), (), rows)
    assert weighed.verdict == "1 not run"


@pytest.mark.parametrize("mixed", ["better", "than"])
def test_seeds_of_several_methods_are_no_one_mean(row, mixed):
    rows = [row(seed=1, row="a"), row(seed=2, row="a"), row(seed=1), row(seed=2, method="finetune")]
    sides = {"than" if mixed == "better" else "better": "*+a/*", mixed: "*18_1w1a/*"}
    (weighed,) = weigh([claim(comparisons=(Comparison(suite="cifar10", what="mixed", **sides),))], (), (), rows)
    assert [(each.verdict, each.difference) for each in weighed.evidence] == [("undecided", None)]


def test_published_numbers_have_the_verdict_of_their_table(row, published, suite):
    table = summarise([row(seed=1, top1=92.7), row(seed=2, top1=92.9)], published, suite.methods, suite.datasets)
    (weighed,) = weigh([claim(published_numbers=True)], published.results, table, [])
    ours, other = weighed.evidence
    assert (ours.verdict, ours.interval) == ("reproduced", "+0.00 [-1.27, +1.27]") and other.verdict == "not run"
    assert weighed.verdict == "1 reproduced, 1 not run"


def test_the_shipped_claims_have_sources_tests_and_a_page():
    claims, published = load_claims(PARAMS_DIR).claims, load_published(PARAMS_DIR)
    assert {"published-numbers", "tau-schedule", "standardisation", "dali"} <= {each.name for each in claims}
    quoted = [result for result in published.results if result.top1 is not None]
    weighed = weigh(claims, quoted, (), ())
    page = claims_page(weighed)
    assert page.count(">not run<") == len(quoted) + sum(len(each.comparisons) for each in claims)
    assert "cannot be decided here yet" in page and "<svg" not in page


def test_claims_are_escaped(row):
    nasty = claim(comparisons=(COMPARISON,)).model_copy(update={"claim": "<script>x</script>\x1b"})
    page = claims_page(weigh([nasty], (), (), ()))
    assert "<script>x" not in page and "\x1b" not in page and "&lt;script&gt;x" in page
