"""Weights: all of them, in the names and types of numbers that files have, or none."""

import re

import pytest
import torch

from recu.base.errors import CheckpointError
from recu.models import available_models, build_model
from recu.models.build import further_state
from recu.training.checkpoint import read_checkpoint
from recu.training.weights import load_weights
from tests.unit.training.tiny import TinyNet


def _network(name="resnet20_1w1a", **more):
    return build_model(name, **({"family": "cifar", "num_classes": 10} | more))


def _equal(model, state_dict):
    return all(torch.equal(value, state_dict[name]) for name, value in model.state_dict().items())


def test_all_weights_are_taken():
    source, target = _network(), _network()
    report = load_weights(target, source.state_dict())
    assert (report.expected, report.taken, report.missing, report.unexpected) == (157, 157, (), ())
    assert str(report) == "157 of 157 tensors taken, 0 missing, 0 unexpected"
    assert _equal(target, source.state_dict())


def test_module_prefix_and_both_shapes_of_tau_are_accepted():
    source, target = _network(), _network()
    saved = {f"module.{name}": value for name, value in source.state_dict().items()}
    saved["module.layer1.0.conv1.tau"] = torch.tensor([0.93])
    assert load_weights(target, saved).taken == 157
    assert target.state_dict()["layer1.0.conv1.tau"] == pytest.approx(0.93)


def test_missing_tensors_are_listed_and_nothing_is_taken():
    target = _network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    saved = _network().state_dict()
    del saved["linear.bias"], saved["layer2.1.bn1.weight"]
    with pytest.raises(CheckpointError, match=r"157 tensors expected: 2 missing \(layer2.1.bn1.weight, linear.bias\)"):
        load_weights(target, saved)
    assert _equal(target, before)


def test_another_number_of_classes_names_the_shapes():
    with pytest.raises(CheckpointError, match=r"linear.weight \(100, 64\) for \(10, 64\)"):
        load_weights(_network(), _network(num_classes=100).state_dict())


def test_a_deeper_network_of_the_same_names_is_another_network():
    deeper = _network("resnet34_1w1a").state_dict()
    with pytest.raises(CheckpointError, match=r"of no layer of this network \(layer1.2.conv1.weight"):
        load_weights(_network("resnet18_1w1a"), deeper)


def test_counters_of_a_profiler_are_reported_and_harmless():
    saved = _network().state_dict() | {"total_ops": torch.zeros(1)}
    assert load_weights(_network(), saved).unexpected == ("total_ops",)


def test_a_running_average_of_weights_is_taken_without_its_counter():
    source, target = _network(), _network()
    average = torch.optim.swa_utils.AveragedModel(source)
    assert load_weights(target, average.state_dict()).unexpected == ("n_averaged",)
    assert _equal(target, source.state_dict())


def test_a_network_that_is_a_part_of_what_a_file_holds_is_named():
    state = _network().state_dict()
    saved = {f"{start}{name}": value for name, value in state.items() for start in ("model.", "teacher.net.")}
    with pytest.raises(
        CheckpointError, match=r"names that begin with model\., teacher\.net\. are this network's: write"
    ):
        load_weights(_network(), saved)
    below = {name.removeprefix("model."): value for name, value in saved.items() if name.startswith("model.")}
    assert load_weights(_network(), below).taken == 157, "the advice works"


@pytest.mark.parametrize("stage", [0, 1])
def test_an_earlier_stage_may_lack_alpha_and_tau_only_where_that_is_said(stage):
    earlier = _network("resnet18_1w1a", family="reactnet", stage=stage).state_dict()
    target = _network("resnet18_1w1a", family="reactnet")
    with pytest.raises(CheckpointError, match="missing"):
        load_weights(target, earlier)
    report = load_weights(target, earlier, allow_missing=further_state("cifar", "recu", 1, 2))
    assert report.taken == len(earlier) and report.taken + len(report.missing) == report.expected
    assert {name.rpartition(".")[2] for name in report.missing} == {"alpha", "tau"}


PREFIXES = {
    "module.": ("module.",),
    "_orig_mod.": ("_orig_mod.",),
    "_orig_mod.module.": ("_orig_mod.module.",),
    "module._orig_mod.": ("module._orig_mod.",),
    "module.module.": ("module.module.",),
    "model.": ("model.",),
    "net.": ("net.",),
    "model._orig_mod.": ("model._orig_mod.",),
    "_orig_mod.model.module.": ("_orig_mod.model.module.",),
    "model.net.": ("model.net.",),
}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_are_taken_away_and_named(prefix):
    source, target = TinyNet(), TinyNet()
    report = load_weights(target, {f"{prefix}{name}": value for name, value in source.state_dict().items()})
    assert _equal(target, source.state_dict())
    assert (
        report.converted == () and report.prefixes == PREFIXES[prefix] and f"prefix {prefix} taken away" in str(report)
    )


def test_prefixes_of_some_names_and_within_names():
    source, target = TinyNet(), TinyNet()
    names = {"conv1.weight": "module.conv1.weight", "conv2.weight": "conv2._orig_mod.weight"}
    report = load_weights(target, {names.get(name, name): value for name, value in source.state_dict().items()})
    assert _equal(target, source.state_dict()) and report.prefixes == ("_orig_mod.", "module.")


def test_a_network_whose_own_names_begin_like_a_prefix():
    class Holder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = TinyNet()

    source, target = Holder(), Holder()
    load_weights(target, source.state_dict())
    assert _equal(target, source.state_dict())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_two_names_that_become_one_are_refused(prefix):
    state, target = TinyNet().state_dict(), TinyNet()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    doubled = {**state, f"{prefix}conv1.weight": torch.zeros_like(state["conv1.weight"])}
    message = f"'conv1.weight' and '{prefix}conv1.weight', which are both 'conv1.weight' of the network"
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_weights(target, doubled)
    assert _equal(target, before)


def test_files_older_than_num_batches_tracked():
    source, target = TinyNet(), TinyNet()
    old = {name: value for name, value in source.state_dict().items() if "num_batches_tracked" not in name}
    report = load_weights(target, old)
    assert report.missing == ("bn1.num_batches_tracked", "bn2.num_batches_tracked")
    assert all(torch.equal(value, target.state_dict()[name]) for name, value in old.items())
    del old["bn1.running_mean"]
    with pytest.raises(CheckpointError, match=r"1 missing \(bn1.running_mean\)"):
        load_weights(target, old)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_of_numbers_are_converted_and_it_is_said(kind):
    source, target = TinyNet(), TinyNet()
    given = {
        name: value.to(kind) if value.is_floating_point() else value for name, value in source.state_dict().items()
    }
    report = load_weights(target, given)
    assert _equal(target, {name: value.to(target.state_dict()[name].dtype) for name, value in given.items()})
    assert f"converted from {str(kind).removeprefix('torch.')}" in str(report)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("conv1.weight", float("nan"), "conv1.weight is not finite"),
        ("conv2.weight", float("inf"), "conv2.weight is not finite"),
        ("linear.bias", float("-inf"), "linear.bias is not finite"),
        ("bn1.running_mean", float("nan"), "bn1.running_mean is not finite"),
        ("bn2.running_var", float("inf"), "bn2.running_var is not finite"),
        ("bn2.running_var", -0.5, "bn2.running_var is negative"),
        ("conv2.alpha", float("nan"), "conv2.alpha is not finite"),
        ("conv2.tau", float("nan"), "conv2.tau is not finite"),
        ("conv2.tau", 0.5, r"conv2.tau is 0.5, expected a value in \(0.5, 1\]"),
        ("conv2.tau", 1.5, r"conv2.tau is 1.5, expected a value in \(0.5, 1\]"),
    ],
)
def test_values_that_no_trained_network_has_are_refused_by_name(name, value, message):
    state, target = TinyNet().state_dict(), TinyNet()
    before = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    state[name].view(-1)[-1] = value
    with pytest.raises(CheckpointError, match=message):
        load_weights(target, state)
    assert _equal(target, before)


def test_a_number_too_large_for_the_network_is_not_finite_in_it():
    state = TinyNet().state_dict()
    state["conv1.weight"] = state["conv1.weight"].double() * 1e300
    with pytest.raises(CheckpointError, match=r"conv1.weight is not finite"):
        load_weights(TinyNet(), state)


SHAPE = (4, 3, 3, 3)
NO_WEIGHTS = {
    "sparse": lambda: torch.zeros(SHAPE).to_sparse(),
    "meta": lambda: torch.empty(SHAPE, device="meta"),
    "quantised": lambda: torch.quantize_per_tensor(torch.zeros(SHAPE), 0.1, 0, torch.qint8),
    "integers": lambda: torch.zeros(SHAPE, dtype=torch.int8),
    "complex": lambda: torch.zeros(SHAPE, dtype=torch.complex64),
    "8 bits": lambda: torch.zeros(SHAPE).to(torch.float8_e4m3fn),
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_weights_are_refused_by_name(tmp_path, kind):
    torch.save({"state_dict": TinyNet().state_dict() | {"conv1.weight": NO_WEIGHTS[kind]()}}, tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"conv1\.weight"):
        load_weights(TinyNet(), read_checkpoint(tmp_path / "file")["state_dict"])


@pytest.mark.parametrize("entry", available_models(stage=0), ids=lambda entry: "-".join(filter(None, entry)))
def test_another_number_of_classes_is_named_for_every_network(entry):
    with torch.device("meta"):
        ten, six = (
            build_model(entry.name, family=entry.family, variant=entry.variant, num_classes=classes, stage=0)
            for classes in (10, 6)
        )
    with pytest.raises(CheckpointError, match="network has 10 classes, expected 6"):
        load_weights(six, ten.state_dict())


def test_the_authors_checkpoint(shared_data):
    checkpoint = read_checkpoint(shared_data / "authors-format-resnet20-10ep.pth.tar")
    assert (checkpoint["epoch"], checkpoint["best_prec1"]) == (10, 61.69)
    assert load_weights(_network(), checkpoint["state_dict"]).taken == 157
