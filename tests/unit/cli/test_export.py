"""`recu export`, and what takes the file that it writes."""

import hashlib
import json
import resource
import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import yaml

from recu.base.errors import CheckpointError
from recu.data.load.plain_view import as_test_image
from recu.models import build_model
from recu.runtime.network import Network
from recu.runtime.reader import MAGIC, PREFIX, parse, read
from recu.stages.packed import load_packed
from tests.unit.training.ours import experiment, our_checkpoint

NAMES = [f"class{number}" for number in range(6)]


@pytest.fixture
def file(recu):
    """A trained network and prepared data."""
    assert recu.train("--save", "run") == 0, recu.err
    return "results/run/model_best.pth.tar"


def export(recu, file, target, output, *words) -> int:
    return recu("export", file, "--to", target, "--output", output, "--params_dir", recu.project / "params", *words)


def test_a_packed_file_gives_what_the_checkpoint_gives(recu, file):
    assert export(recu, file, "packed", "net.recu") == 0, recu.err
    assert "compared on all 18 test images of tiny" in recu.out
    lines = [line.split("  ") for line in recu.out.splitlines() if line.startswith(("network", "packed"))]
    rows = {line[0]: [each.strip() for each in line[1:] if each.strip()] for line in lines}
    assert rows["packed"][:4] == ["18", "0", "0", "0"] and rows["packed, without PyTorch"][:2] == ["18", "0"]
    assert rows["network"][-1] == rows["packed"][-1]
    header = parse((recu.folder / "net.recu").read_bytes()).header
    assert header["classes"] == NAMES and header["dataset"] == "tiny" and header["network"] == "cifar.resnet20_1w1a"
    places = ["--params_dir", recu.project / "params"]
    assert recu("evaluate", "-e", file, "--output", "a.json", *places) == 0, recu.err
    assert recu("evaluate", "-e", "net.recu", "--output", "b.json", *places) == 0, recu.err
    whole, packed = recu.json("a.json"), recu.json("b.json")
    assert {key: packed[key] for key in ("top1", "top5", "n")} == {key: whole[key] for key in ("top1", "top5", "n")}
    assert packed["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert packed["data_fingerprint"] == whole["data_fingerprint"] and "without PyTorch" in recu.out
    image = recu.project / "images/test/class1/0.png"
    assert recu("predict", file, image) == 0, recu.err
    expected = recu.out
    assert recu("predict", "net.recu", image, "--output", "c.json") == 0, recu.err
    assert recu.out == expected and recu.json("c.json")["network"] == "cifar.resnet20_1w1a"


def test_nothing_of_pytorch_is_imported_and_it_starts_in_a_second(recu, file):
    assert export(recu, file, "packed", "net.recu", "--quick") == 0, recu.err
    image = str(recu.project / "images/test/class1/0.png")
    code = (
        "import sys; from recu.cli.main import main; code = main(sys.argv[1:]);"
        "sys.exit(code or any(name in sys.modules for name in ('torch', 'torchvision', 'mlflow')))"
    )
    took = []
    for words in [["predict", "net.recu", image]] * 3 + [
        ["evaluate", "-e", "net.recu", "--params_dir", str(recu.project / "params")]
    ]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0, done.stderr
    # Of the processor's time, whatever else the machine has to do meanwhile.
    assert min(took[:3]) < 1


def test_equal_networks_give_equal_bytes_and_an_existing_file_is_kept(recu, file):
    for name in ("a.recu", "b.recu"):
        assert export(recu, file, "packed", name, "--quick") == 0, recu.err
    assert "compared on 32 random images" in recu.out
    assert (recu.folder / "a.recu").read_bytes() == (recu.folder / "b.recu").read_bytes()
    assert export(recu, file, "packed", "a.recu", "--quick") == 2
    assert "a.recu exists: choose another --output, or add --overwrite" in recu.error()
    assert export(recu, file, "packed", "a.recu", "--quick", "--overwrite") == 0, recu.err


def test_data_that_is_not_there_is_asked_for(recu):
    torch.manual_seed(0)
    torch.save(our_checkpoint(experiment(name="tiny"), classes=NAMES), "ours.pth.tar")
    assert export(recu, "ours.pth.tar", "packed", "net.recu") == 2
    assert "no prepared data in data/tiny" in recu.error() and not (recu.folder / "net.recu").exists()
    assert export(recu, "ours.pth.tar", "packed", "net.recu", "--quick") == 0, recu.err


@pytest.fixture
def packed(recu):
    torch.manual_seed(0)
    torch.save(our_checkpoint(experiment(name="tiny"), classes=NAMES), "ours.pth.tar")
    assert export(recu, "ours.pth.tar", "packed", "net.recu", "--quick") == 0, recu.err
    return recu.folder / "net.recu"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "is damaged or cut off"),
        (lambda data: data[:20], "is cut off after 20 bytes"),
        (lambda data: data[:900] + bytes([data[900] ^ 4]) + data[901:], "is damaged or cut off"),
        (lambda data: data[:8] + b"\x02" + data[9:], "has version 2 of the packed form, expected 1"),
    ],
)
def test_a_file_that_is_damaged_or_newer(recu, packed, change, message):
    packed.write_bytes(change(packed.read_bytes()))
    for words in (["predict", packed, recu.project / "images/test/class1/0.png"], ["evaluate", "-e", packed]):
        assert recu(*words) == 2
        assert f"{packed} {message}" in recu.error()


def with_header(packed, change) -> None:
    """Change a packed file's header and seal it again, as another program would have written it."""
    data = packed.read_bytes()
    length = PREFIX.unpack_from(data)[2]
    header = json.loads(data[PREFIX.size : PREFIX.size + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-(PREFIX.size + len(text)) % 4)
    body = PREFIX.pack(MAGIC, 1, len(text)) + text + data[PREFIX.size + length : -32]
    packed.write_bytes(body + hashlib.sha256(body).digest())


SEEN = "does not say how images are seen"
NAMED = "does not say network, dataset and the names of its 6 classes"
FIRST = "contradicts itself in its operation 1, 'convolution'"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header["image"].update(view="crop"), SEEN),
        (lambda header: header["image"].update(size="8"), SEEN),
        (lambda header: header["image"].update(stored_size=0), SEEN),
        (lambda header: header["image"].update(mean=[0.5]), SEEN),
        (lambda header: header["image"].update(std=[0.1, 1e-60, 0.1]), SEEN),
        (lambda header: header.pop("image"), SEEN),
        (lambda header: header.update(classes=NAMES[:5]), NAMED),
        (lambda header: header.update(classes=[1] * 6), NAMED),
        (lambda header: header.pop("classes"), NAMED),
        (lambda header: header.update(dataset=None), NAMED),
        (lambda header: header["image"].update(size=10**6), FIRST),
        (lambda header: header["operations"][0].update(stride=[0, 0]), FIRST),
    ],
)
def test_a_header_that_makes_no_sense(packed, change, message):
    with_header(packed, change)
    with pytest.raises(CheckpointError, match=f"net.recu {message}"):
        load_packed(packed)


def test_what_a_header_says_is_no_command_to_a_terminal(recu, packed):
    with_header(packed, lambda header: header.update(network="a\x1b[2J"))
    assert recu("evaluate", "-e", packed, *recu.tiny[2:], "--dataset", "tiny") == 0, recu.err
    assert "a\\x1b[2J, packed" in recu.out and "\x1b" not in recu.out


def test_data_of_another_number_of_classes_is_refused(recu, packed):
    weights = build_model("resnet20_1w1a", family="cifar", num_classes=6).state_dict()
    torch.save({"state_dict": weights}, "theirs.pth")
    words = ["--dataset", "tiny", "--model", "resnet20_1w1a", "--quick"]
    assert export(recu, "theirs.pth", "packed", "theirs.recu", *words) == 0, recu.err
    for label in range(5):
        shutil.copytree(recu.project / f"images/test/class{label}", recu.folder / f"fewer/test/class{label}")
    params = shutil.copytree(recu.project / "params", recu.folder / "params")
    datasets = yaml.safe_load((params / "datasets.yaml").read_text())
    datasets["tiny"] |= {"num_classes": 5} | {key: None for key in datasets["tiny"] if key.endswith("_images")}
    (params / "datasets.yaml").write_text(yaml.safe_dump(datasets))
    assert recu("evaluate", "-e", "theirs.recu", "--data_path", "fewer", "--params_dir", params) == 2
    assert "theirs.recu tells 6 classes apart" in recu.error()


def test_the_checkpoint_itself_is_not_replaced(recu, packed):
    before = (recu.folder / "ours.pth.tar").read_bytes()
    (recu.folder / "link").symlink_to("ours.pth.tar")
    for name in ("ours.pth.tar", "link"):
        assert export(recu, "ours.pth.tar", "packed", name, "--quick", "--overwrite") == 2
        assert f"{name} is the checkpoint itself" in recu.error()
    assert (recu.folder / "ours.pth.tar").read_bytes() == before


def test_a_packed_file_where_a_checkpoint_is_needed(recu, packed):
    assert export(recu, packed, "packed", "again.recu", "--quick") == 2
    assert "net.recu is no checkpoint: it is a packed network; recu predict, recu evaluate -e" in recu.error()


def test_from_python(recu, packed):
    import recu as package

    network = package.load_packed(str(packed))
    image = recu.project / "images/test/class1/0.png"
    found, expected = network.predict(image), package.load("ours.pth.tar").predict(image)
    assert [guess.name for guess in found] == [guess.name for guess in expected]
    assert [guess.probability for guess in found] == pytest.approx([guess.probability for guess in expected])
    assert network.classes == tuple(NAMES)
    # As docs/packed.md says it.
    views = as_test_image(image, network.seen)[None]
    images = (views.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
    logits = Network(read(packed).operations)(images)
    assert logits.dtype == np.float32 and np.array_equal(logits, network.logits(views))


def test_options_that_a_packed_file_has_no_use_for(recu, packed):
    image = recu.project / "images/test/class1/0.png"
    assert recu("predict", packed, image, "--stage", 2) == 2
    assert "a packed file says what it is: leave --stage out" in recu.error()
    assert recu("predict", packed, image, "--gpus", "0") == 2
    assert "packed files run on the CPU" in recu.error()
    assert recu("predict", packed, image, "--kernels", "off") == 2
    assert "--kernels has no effect with a packed file" in recu.error()
    assert recu("evaluate", "-e", packed, "-bt", 7, "--loader", "memory", "--end_time", "inf") == 2
    assert "--end_time, --batch_size_test, --loader have no effect with a packed file" in recu.error()
    assert export(recu, packed, "onnx", "net.onnx", "--license", "mit") == 2
    assert "--license has no effect with --to onnx, which has no model card; leave it out" in recu.error()


def test_data_of_other_classes_is_refused(recu, packed):
    folder = recu.folder / "renamed"
    for label in range(6):
        target = folder / f"test/other{label}"
        target.mkdir(parents=True)
        for image in (recu.project / f"images/test/class{label}").iterdir():
            (target / image.name).write_bytes(image.read_bytes())
    words = ["--data_path", folder, "--params_dir", recu.project / "params"]
    assert recu("evaluate", "-e", packed, *words) == 2
    assert "was trained on other classes" in recu.error()


def needs(package: str):
    return pytest.mark.skipif(find_spec(package) is None, reason=f"needs {package}, of the extra `export`")


@needs("onnx")
@needs("onnxruntime")
def test_onnx(recu, file):
    import onnx
    from onnx import numpy_helper

    assert export(recu, file, "onnx", "net.onnx") == 0, recu.err
    assert "ONNX's Sign gives 0 of them, as the network does" in recu.out
    model = onnx.load("net.onnx")
    counted = compared(model)
    assert counted["on"] == "all 18 test images of tiny" and counted["images"] == 18
    assert f"{counted['zeros']} of the {counted['activations']} activations" in recu.out
    assert "other_class_by_zeros" not in counted
    arrays = [numpy_helper.to_array(each) for each in model.graph.initializer]
    binary = [each for each in arrays if each.ndim == 4 and set(np.unique(each)) <= {-1.0, 1.0}]
    assert len(binary) == 18
    assert {each.key for each in model.metadata_props} >= {"image", "classes", "source"}
    assert [each.op_type for each in model.graph.node].count("Sign") == 18


@needs("onnx")
@needs("qonnx")
def test_qonnx(recu, file):
    import onnx

    assert export(recu, file, "qonnx", "net.onnx") == 0, recu.err
    model = onnx.load("net.onnx")
    assert told(compared(model)) in recu.out and compared(model)["images"] == 18
    assert "On all 18 test images of tiny, " in recu.out
    kinds = [each.op_type for each in model.graph.node]
    assert kinds.count("BipolarQuant") == 36 and "Sign" not in kinds


@needs("onnx")
@needs("qonnx")
def test_qonnx_says_how_many_predictions_zeros_change_and_on_which_images(recu):
    import onnx

    torch.manual_seed(0)
    network = build_model("resnet20_1w1a", family="cifar", num_classes=6)
    # All activations are 0, so that the class is that of the largest bias; with +1 in their place they decide it.
    torch.nn.init.zeros_(network.conv1.weight)
    torch.save(our_checkpoint(experiment(name="tiny"), network, classes=NAMES), "ours.pth.tar")
    assert export(recu, "ours.pth.tar", "qonnx", "net.onnx", "--quick") == 0, recu.err
    counted = compared(onnx.load("net.onnx"))
    assert counted["on"] == "32 random images" and counted["zeros"] == counted["activations"] > 0
    assert counted["other_class_by_zeros"] == counted["other_class"] == counted["images"] == 32
    assert told(counted) in recu.out


def compared(model) -> dict:
    """What a model says of the comparison with its network."""
    return json.loads({each.key: each.value for each in model.metadata_props}["compared"])


def told(counted: dict) -> str:
    """The same as a QONNX export prints it."""
    return (
        f"On {counted['on']}, {counted['zeros']} of the {counted['activations']} activations whose sign is taken are"
        f" exactly 0: BipolarQuant gives +1 of them where the network has 0; {counted['other_class_by_zeros']} of"
        f" {counted['images']} images get another class by that alone, and {counted['other_class']} with other rounding"
        " as well"
    )


@needs("safetensors")
def test_safetensors_and_a_model_card(recu, file):
    from safetensors.torch import load_file

    assert export(recu, file, "safetensors", "card", "--license", "mit") == 0, recu.err
    tensors = load_file("card/model.safetensors")
    state = torch.load(file, weights_only=True)["state_dict"]
    assert tensors.keys() == state.keys() and all(torch.equal(tensors[name], state[name]) for name in state)
    _, front, prose = (recu.folder / "card/README.md").read_text().split("---\n", 2)
    said = yaml.safe_load(front)
    assert said["license"] == "mit" and said["datasets"] == ["tiny"]
    (result,) = said["model-index"][0]["results"]
    top1 = result["metrics"][0]["value"]
    assert recu("evaluate", "-e", file, "--params_dir", recu.project / "params", "--output", "a.json") == 0
    assert 100 * top1 == pytest.approx(recu.json("a.json")["top1"]) and "Top-1" in prose
    assert recu.json("a.json")["checkpoint_sha256"] in prose
    torch.save(tensors, "weights.pth")
    (command,) = (line for line in prose.splitlines() if line.startswith("recu predict"))
    image = recu.project / "images/test/class1/0.png"
    assert recu("predict", file, image, "--output", "b.json") == 0
    words = command.replace("IMAGE", str(image)).split()[1:]
    assert recu(*words, "--output", "c.json", "--params_dir", recu.project / "params") == 0, recu.err
    shares = [[each["probability"] for each in recu.json(name)["images"][0]["top"]] for name in ("b.json", "c.json")]
    assert shares[0] == shares[1]
    assert export(recu, file, "safetensors", "card", "--quick") == 2
    assert "card exists: choose another --output, or add --overwrite" in recu.error()
    assert export(recu, file, "safetensors", "card", "--quick", "--overwrite") == 0, recu.err
    assert "Nothing was measured" in (recu.folder / "card/README.md").read_text()
    (recu.folder / "other").mkdir()
    (recu.folder / "other/README.md").write_text("mine")
    assert export(recu, file, "safetensors", "other", "--quick", "--overwrite") == 2
    assert "other exists and holds no model.safetensors of an export" in recu.error()
    assert (recu.folder / "other/README.md").read_text() == "mine"


@pytest.mark.parametrize(("target", "package"), [("onnx", "onnx"), ("qonnx", "onnx"), ("safetensors", "safetensors")])
def test_a_package_that_is_missing_is_named(recu, packed, target, package, monkeypatch):
    monkeypatch.setattr("recu.base.needed.find_spec", lambda name: None)
    assert export(recu, "ours.pth.tar", target, "out", "--quick") == 2
    assert f"{package}" in recu.error() and "'.[export]'" in recu.error()


def test_a_file_that_names_no_classes_says_so_when_packed_too(recu):
    weights = build_model("resnet20_1w1a", family="cifar", num_classes=6).state_dict()
    torch.save({"state_dict": weights}, "theirs.pth")
    words = ["--dataset", "tiny", "--model", "resnet20_1w1a", "--quick"]
    assert export(recu, "theirs.pth", "packed", "net.recu", *words) == 0, recu.err
    assert recu("predict", "net.recu", recu.project / "images/test/class1/0.png") == 0, recu.err
    assert "net.recu does not name its classes" in recu.err
    assert all(each.split()[0].isdigit() for each in recu.out.partition(": ")[2].split(", "))
