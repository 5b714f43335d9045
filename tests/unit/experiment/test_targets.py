"""Names of targets, and what is answered to a slip."""

import shutil
from pathlib import Path

import pytest
import yaml

from recu.experiment import targets
from recu.experiment.params import all_suites, load_config
from recu.experiment.paths import PARAMS_DIR
from recu.experiment.plan import Plan, load_plan

FIGURES = ("curves", "published", "classes", "weights", "histograms")


def planned(params_dir: Path, *suites: str) -> Plan:
    return load_plan(params_dir, load_config(params_dir), suites)


@pytest.fixture(scope="module")
def demo() -> Plan:
    return planned(PARAMS_DIR, "demo", "released")


def answer(target: str, plan: Plan) -> str:
    return str(targets.unknown_target(target, plan, ["all", "train", *targets.targets(plan)], all_suites(PARAMS_DIR)))


def test_every_experiment_file_and_table_has_a_name(demo):
    named = targets.targets(demo)
    vanilla = "demo/digits/cifar.resnet20_1w1a/vanilla/seed1"
    alias = vanilla.replace("/", "-")
    assert named[f"train-{alias}"] == [f"results/train/{vanilla}/metrics.json"]
    assert named[f"evaluate-{alias}"] == [f"results/evaluate/{vanilla}/metrics.json"]
    assert named["evaluate-released-resnet20-vanilla"] == ["results/evaluate/released/resnet20-vanilla/metrics.json"]
    tables = ("md", "csv", "json", "tex", "html")
    drawn = [f"{figure}.{form}" for figure in FIGURES for form in ("svg", "png")]
    assert named["table-demo"] == [
        *(f"reports/demo.{form}" for form in tables),
        *(f"reports/figures/demo/{name}" for name in drawn),
    ]
    assert named["table-released"] == [f"reports/released.{form}" for form in tables]
    assert named["prepare-digits"] == ["results/prepare/digits/manifest.json"]
    datasets = {"digits", *(each.dataset for each in demo.released.values())}
    assert len(named) == 2 * len(demo.experiments) + len(demo.released) + len(datasets) + 2


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (
            "train-demo-digits-cifar.resnet20_1w1a-vanila-seed1",
            "did you mean train-demo-digits-cifar.resnet20_1w1a-vanilla-seed1?",
        ),
        ("table-dmeo", "did you mean table-demo?"),
        ("prepare-digit", "did you mean prepare-digits?"),
        ("trian", "did you mean train?"),
        ("reports/demo.mdd", "did you mean reports/demo.md?"),
        (
            "results/train/demo/digits/cifar.resnet20_1w1a/vanilla/seed1/metrics.jsn",
            "did you mean results/train/demo/digits/cifar.resnet20_1w1a/vanilla/seed1/metrics.json?",
        ),
        (
            "table-cifar10",
            "suite cifar10 is not chosen (chosen: demo, released): add --config suites=demo,released,cifar10",
        ),
        ("train-cifar10-cifar10-cifar.resnet20_1w1a-vanilla-seed1", "suite cifar10 is not chosen"),
        ("train-cifar10-short-cifar10-jpeg-cifar.resnet20_1w1a-vanilla-seed1", "suite cifar10-short is not chosen"),
        ("reports/cifar100.md", "suite cifar100 is not chosen"),
        ("results/evaluate/cifar10/cifar10/x/metrics.json", "suite cifar10 is not chosen"),
        ("nothing-like-it", "unknown target nothing-like-it; `snakemake --list-rules` names all"),
    ],
)
def test_a_slip_is_answered_with_the_nearest_right_name(demo, target, expected):
    assert expected in answer(target, demo) and "\n" not in answer(target, demo)


def test_two_experiments_of_one_name_keep_their_files(tmp_path):
    shutil.copytree(PARAMS_DIR, tmp_path / "params")
    params = tmp_path / "params"
    digits = yaml.safe_load((params / "datasets.yaml").read_text())["digits"]
    (params / "datasets.yaml").write_text(yaml.safe_dump({"a": digits, "b-a": digits, "digits": digits}))
    suite = {"title": "T", "description": "D", "seeds": [1], "methods": {"vanilla": {}}}
    row = {"model": "resnet20_1w1a"}
    (params / "suites/s.yaml").write_text(yaml.safe_dump(suite | {"dataset": "b-a", "rows": [row]}))
    (params / "suites/s-b.yaml").write_text(yaml.safe_dump(suite | {"dataset": "a", "rows": [row]}))
    plan = planned(params, "s", "s-b")
    assert set(targets.targets(plan)) == {"prepare-a", "prepare-b-a", "table-s", "table-s-b"}
    said = answer("train-s-b-a-cifar.resnet20_1w1a-vanilla-seed1", plan)
    first, second = plan.experiments
    assert f"stands for {first} and {second}: name the file below results/" in said
