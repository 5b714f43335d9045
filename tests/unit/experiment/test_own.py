"""What a user brings along: found beside params/ or in an installed package, checked, and part of the code hash."""

import json
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from recu.base.errors import ConfigError
from recu.cli.main import main
from recu.data.load.transforms import augment
from recu.experiment.binarisers import available_binarisers, find_binariser
from recu.experiment.dataset_kinds import find_kind
from recu.experiment.fit import choose_loader
from recu.experiment.networks import find_network
from recu.experiment.own import CodeFile, find_own, look_beside, own_hash
from recu.experiment.params import load_config, load_datasets, parse_workflow_config, validate_model
from recu.experiment.paths import PARAMS_DIR
from recu.experiment.plan import load_plan
from recu.experiment.resolving import network_sources, own_sources
from recu.experiment.schedules import learning_rate_at
from recu.export.comparing import LIBRARY, compare
from recu.export.graph import operations_of
from recu.models import build_model
from recu.models.checks import check_binariser, check_network_code
from recu.nn.inference import inference_form
from recu.results.provenance import with_own
from recu.results.records import Provenance
from recu.runtime.network import Network
from recu.stages import evaluate
from recu.training.evaluation import Evaluation
from tests.unit.results import made

RATE = {"epochs": 10, "lr": 0.5, "warm_up": False}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield tmp_path
    look_beside(None)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_file_beside_params_is_found_and_its_imports_are_sources(here):
    (here / "own_rates.py").write_text("from own_helper import half\nimport math\ndef rate(e, E): return half(e / E)\n")
    (here / "own_helper.py").write_text("def half(x): return x / 2\n")
    assert learning_rate_at(4, lr_type="own_rates:rate", **RATE) == pytest.approx(0.1)
    assert learning_rate_at(8, lr_type="own_rates:rate", epochs=10, lr=1.0, warm_up=True) == pytest.approx(4 / 6 / 2)
    assert [file.name for file in find_own("learning-rate schedule", "own_rates:rate", ()).sources] == [
        "own_helper.py",
        "own_rates.py",
    ]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (
            None,
            "absent_module:rate",
            r"no absent_module.py in .*, the working directory, and no module .* is installed",
        ),
        ("def rate(e, E): return 1\n", "own_a:rat", r"unknown name in own_a 'rat'; did you mean 'rate'"),
        (
            "import no_such_thing\n",
            "own_a:rate",
            r"importing own_a failed: ModuleNotFoundError: No module",
        ),
        ("1 / 0\n", "own_a:rate", "importing own_a failed: ZeroDivisionError"),
        ("rate = 3\n", "own_a:rate", r"is a int: expected a function of epoch and epochs"),
        ("def rate(e, E): return -1\n", "own_a:rate", r"gives -1 at epoch 1 of 10: expected a number from 0 on"),
        ("def rate(e, E): return float('nan')\n", "own_a:rate", "gives nan at epoch 1 of 10"),
        (None, "own a:rate", "expected module:name"),
        (None, "cosin", r"unknown learning-rate schedule 'cosin'; did you mean 'cos'"),
    ],
)
def test_what_is_wrong_with_one_is_one_line(here, text, name, message):
    if text is not None:
        (here / "own_a.py").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        learning_rate_at(1, lr_type=name, **RATE)
    assert "\n" not in str(caught.value)


def test_a_file_that_python_does_not_import_is_never_silently_another(here):
    (here / "json.py").write_text("def rate(e, E): return 1\n")
    with pytest.raises(
        ConfigError, match=r"json.py is not what Python imports as json, .*: give the file another name"
    ):
        find_own("learning-rate schedule", "json:rate", ())


@pytest.fixture
def elsewhere(here, monkeypatch):
    """A folder of a project, whose params/ are in use, and another one, in which the program is called."""
    project, folder = here / "project", here / "elsewhere"
    (project / "params").mkdir(parents=True)
    folder.mkdir()
    monkeypatch.chdir(folder)
    look_beside(Path("../project/params"))
    return project, folder


def test_a_file_is_looked_for_beside_the_params_in_use(elsewhere):
    project, folder = elsewhere
    (project / "own_e.py").write_text("from own_here import half\ndef rate(e, E): return half\n")
    (folder / "own_here.py").write_text("half = 0.5\n")
    assert learning_rate_at(4, lr_type="own_e:rate", **RATE) == 0.25
    assert find_own("learning-rate schedule", "own_e:rate", ()).sources == (
        CodeFile("own_e.py", project / "own_e.py"),
        CodeFile("own_here.py", folder / "own_here.py"),
    )
    with pytest.raises(ConfigError, match=r"no own_f.py in .*project, beside params/, or in .*elsewhere, the working"):
        find_own("learning-rate schedule", "own_f:rate", ())


@pytest.mark.parametrize("twice", ["own_g", "own_helper"])
def test_a_module_that_two_folders_have_is_refused(elsewhere, twice):
    project, folder = elsewhere
    (project / "own_g.py").write_text("import own_helper\ndef rate(e, E): return 1\n")
    (project / "own_helper.py").write_text("")
    (folder / f"{twice}.py").write_text("def rate(e, E): return 1\n")
    message = rf"{twice} is both .*project/{twice}.py, beside params/, and .*elsewhere/{twice}.py, in the working"
    with pytest.raises(ConfigError, match=message):
        find_own("learning-rate schedule", "own_g:rate", ())


def test_two_names_of_one_file_are_one_file(elsewhere):
    project, folder = elsewhere
    (project / "own_h.py").write_text("def rate(e, E): return 1\n")
    (folder / "own_h.py").symlink_to(project / "own_h.py")
    assert len(find_own("learning-rate schedule", "own_h:rate", ()).sources) == 1


def test_code_beside_other_params_is_not_what_an_earlier_project_had(elsewhere):
    project, folder = elsewhere
    (project / "own_i.py").write_text("def rate(e, E): return 1\n")
    find_own("learning-rate schedule", "own_i:rate", ())
    (folder / "params").mkdir()
    look_beside(folder / "params")
    with pytest.raises(ConfigError, match=r"own_i is .*project/own_i.py in this process, which is not in .*elsewhere"):
        find_own("learning-rate schedule", "own_i:rate", ())
    (folder / "own_i.py").write_text("def rate(e, E): return 0.5\n")
    with pytest.raises(ConfigError, match=r"elsewhere/own_i.py is not what Python imports as own_i"):
        find_own("learning-rate schedule", "own_i:rate", ())


def test_a_helper_that_python_does_not_import_is_refused(here):
    (here / "own_j.py").write_text("import json\ndef rate(e, E): return 1\n")
    (here / "json.py").write_text("")
    with pytest.raises(ConfigError, match=r"json.py is not what Python imports as json, .*: give the file"):
        find_own("learning-rate schedule", "own_j:rate", ())


def test_the_package_is_no_users_code_where_params_lie_in_its_checkout(here):
    (here / "own_k.py").write_text("from recu.binarisers.sign import SignConv2d as Own\n")
    (here / "recu").mkdir()
    (here / "recu/__init__.py").write_text("")
    assert [file.name for file in find_own("binariser", "own_k:Own", ()).sources] == ["own_k.py"]


def test_every_command_looks_beside_its_params(elsewhere, capsys):
    project, _ = elsewhere
    shutil.copytree(PARAMS_DIR, project / "params", dirs_exist_ok=True)
    suite = project / "params/suites/demo.yaml"
    suite.write_text(suite.read_text().replace("hyperparameters:", "hyperparameters:\n  lr_type: own_l:rate", 1))
    assert "own_l" in suite.read_text()
    (project / "own_l.py").write_text("def rate(e, E): return 1\n")
    look_beside(None)
    assert main(["plan", "demo", "--params_dir", "../project/params"]) == 0, capsys.readouterr().err
    assert main(["plan", "demo"]) == 0, "of the package's own params/"


def test_an_installed_package_gives_names(here, monkeypatch):
    (here / "site/own_pack-1.0.dist-info").mkdir(parents=True)
    (here / "site/own_pack-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: own-pack\nVersion: 1.0\n")
    (here / "site/own_pack-1.0.dist-info/entry_points.txt").write_text(
        "[recu.binarisers]\nmine = own_pack.layers:Mine\n[recu.schedules]\nflat = own_pack:flat\n"
    )
    (here / "site/own_pack").mkdir()
    (here / "site/own_pack/__init__.py").write_text("def flat(epoch, epochs): return 1.0\n")
    (here / "site/own_pack/layers.py").write_text("from recu.binarisers.sign import SignConv2d as Mine\n")
    monkeypatch.syspath_prepend(here / "site")
    assert available_binarisers()[-1] == "mine"
    assert find_binariser("mine", family="cifar").stages == (0, 2)
    assert learning_rate_at(3, lr_type="flat", **RATE) == 0.5
    assert {file.name for file in find_own("binariser", "mine", ()).sources} == {
        "own_pack/__init__.py",
        "own_pack/layers.py",
    }
    with pytest.raises(ConfigError, match=r"unknown binariser 'mien'; did you mean 'mine'"):
        find_binariser("mien", family="cifar")


def test_a_network_says_what_tables_show(here):
    (here / "own_nets.py").write_text(
        "def silent(n, c): ...\ndef good(n, c): ...\ngood.shortcut = 'none'\ngood.stages = (2,)\n"
    )
    found = find_network("own_nets:good", family="cifar")
    assert (found.shortcut, found.stages) == ("none", (2,))
    with pytest.raises(ConfigError, match=r"set silent.shortcut to a text"):
        find_network("own_nets:silent", family="cifar")


def test_a_kind_of_dataset_says_how_its_images_lie(here):
    (here / "own_kind.py").write_text(
        "def build(r, out): ...\nbuild.storage = 'files'\ndef bad(r, out): ...\nbad.storage = 'x'\n"
    )
    assert find_kind("own_kind:build").storage == "files"
    with pytest.raises(ConfigError, match=r"storage is 'x', expected arrays or files"):
        find_kind("own_kind:bad")


def test_the_source_of_ones_own_is_in_the_code_hash(here):
    file = here / "own_b.py"
    file.write_text("from recu.binarisers.sign import SignConv2d as Own\n")
    data = load_datasets(PARAMS_DIR)["digits"].identity()
    assert own_sources("resnet20_1w1a", "recu", data) == () and with_own("a" * 64, ()) == "a" * 64
    sources = own_sources("resnet20_1w1a", "own_b:Own", data)
    assert [each.name for each in sources] == ["own_b.py"] and sources == network_sources("resnet20_1w1a", "own_b:Own")
    before = with_own("a" * 64, sources)
    file.write_text("from recu.binarisers.sign import SignConv2d as Own  # changed\n")
    assert len({before, with_own("a" * 64, sources), "a" * 64}) == 3


def test_the_workflow_prepares_again_where_the_code_of_a_kind_is_other_code(here):
    file = here / "own_d.py"
    file.write_text("def build(request, out): ...\n")
    whole = load_plan(PARAMS_DIR, parse_workflow_config(load_config(PARAMS_DIR).model_dump()))
    digits = whole.preparation("digits")
    plan = replace(whole, datasets={"own": whole.datasets["digits"].model_copy(update={"kind": "own_d:build"})})
    before = plan.preparation("own")
    file.write_text("def build(request, out): ...  # changed\n")
    assert plan.preparation("own") != before
    assert set(json.loads(digits)) == {"dataset", "source"}, "what was prepared before needs no other preparation"


def test_an_evaluation_names_the_source_as_it_was_when_it_began(here, monkeypatch):
    file = here / "own_c.py"
    file.write_text("from recu.binarisers.sign import SignConv2d as Own\n")
    began = with_own("a" * 64, [CodeFile("own_c.py", file)])

    def edited(_network):
        file.write_text("# changed meanwhile\n")
        return Evaluation(loss=1.0, top1=0.0, top5=0.0, n=1)

    monkeypatch.setattr(evaluate, "Measurement", lambda **values: SimpleNamespace(**values))
    dataset = load_datasets(PARAMS_DIR)["digits"]
    origin = Provenance(**made.provenance() | {"code_hash": "a" * 64})
    testbed = Mock(how=Mock(dataset=dataset), origin=origin, evaluation=edited, _counted=0)
    testbed.loaders.manifest.content = {"test": "b" * 64}
    subject = Mock(model="resnet20_1w1a", binariser="own_c:Own")
    found = evaluate.Testbed.measure(testbed, subject, None)
    assert found.provenance.code_hash == began != with_own("a" * 64, [CodeFile("own_c.py", file)])


def test_the_code_hash_sees_folders_and_no_order_or_place(here):
    for folder in ("one", "two"):
        (here / folder / "pack").mkdir(parents=True)
        (here / folder / "pack/a.py").write_text("x = 1\n")
    (here / "one/pack/b.py").write_text("x = 2\n")

    def files(top, *names):
        return [CodeFile(name, here / top / name) for name in names]

    assert own_hash(files("one", "pack/a.py")) == own_hash(files("two", "pack/a.py", "pack/a.py"))
    both = files("one", "pack/a.py", "pack/b.py")
    assert own_hash(both) == own_hash(both[::-1])
    moved = [CodeFile("other/a.py", here / "one/pack/a.py")]
    assert own_hash(moved) != own_hash(files("one", "pack/a.py"))
    (here / "own_pack").mkdir()
    (here / "own_pack/__init__.py").touch()
    (here / "own_pack/rates.py").write_text("import math\ndef rate(e, E): return 1\n")
    found = find_own("learning-rate schedule", "own_pack.rates:rate", ()).sources
    assert [each.name for each in found] == ["own_pack/__init__.py", "own_pack/rates.py"]


@pytest.mark.parametrize(("kind", "check"), [("binariser", check_binariser), ("network", check_network_code)])
def test_what_new_writes_does_all_that_is_asked(here, capsys, kind, check):
    assert main(["new", kind, f"my_{kind}"]) == 0
    assert f"pytest test_my_{kind}.py" in capsys.readouterr().out
    check(f"my_{kind}:My{kind.capitalize()}")
    assert f'{check.__name__}("my_{kind}:My{kind.capitalize()}")' in (here / f"test_my_{kind}.py").read_text()
    assert main(["new", kind, f"my_{kind}"]) == 2
    assert "exist: choose another name" in capsys.readouterr().err
    assert main(["new", kind, "My-Name"]) == 2


def test_what_new_writes_can_be_exported(here):
    assert main(["new", "network", "small"]) == main(["new", "binariser", "other"]) == 0
    network = build_model("small:Small", family="cifar", num_classes=10, binariser="other:Other").eval()
    operations = operations_of(network)
    assert [each["op"] for each in operations] == ["convolution", "norm", "binary", "mean", "flatten", "linear"]
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = compare(inference_form(network), {"packed": Network(operations, LIBRARY)}, [(images, None)])
    assert found["packed"].unequal == 0


def test_what_new_writes_of_a_suite_is_valid(here, capsys):
    from recu.experiment.params import parse_file
    from recu.experiment.schema import Suite

    assert main(["new", "suite", "mine"]) == 2 and "no params/suites here" in capsys.readouterr().err
    (here / "params/suites").mkdir(parents=True)
    assert main(["new", "suite", "mine"]) == 0
    assert parse_file(here / "params/suites/mine.yaml", Suite).title == "Mine"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("binary=True, ", "", "states operations and not whether they are binary"),
        ("    def layer_cost", "    def other", "does not say what it costs"),
        ("sign_identity(self.weight)", "self.weight.detach().sign()", r"layer1.0.conv1.weight no gradient"),
        (
            "return whole *",
            "self.calls = getattr(self, 'calls', 0) + self.training\n        return whole * self.calls *",
            "goes on differently from its saved state: what it keeps must be parameters or buffers",
        ),
    ],
)
def test_a_binariser_that_forgets_something_is_named(here, old, new, message):
    main(["new", "binariser", "forgets"])
    text = (here / "forgets.py").read_text()
    assert old in text
    (here / "forgets.py").write_text(text.replace(old, new).replace("self.weight.abs()", "self.weight.detach().abs()"))
    with pytest.raises(ConfigError, match=message):
        check_binariser("forgets:Forgets")


def test_an_augmentation_sees_one_image_and_what_it_gives_is_checked(here):
    (here / "own_views.py").write_text("def same(image, size, generator): return image\ndef no(*_): return 3\n")
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    assert augment(image, "own_views:same", 8, random.Random(0)) is image
    with pytest.raises(ConfigError, match=r"gives torch.uint8 \(3, 8, 8\), expected uint8 \(3, 9, 9\)"):
        augment(image, "own_views:same", 9, random.Random(0))
    with pytest.raises(ConfigError, match="gives a int, expected"):
        augment(image, "own_views:no", 8, random.Random(0))
    digits = load_datasets(PARAMS_DIR)["digits"]
    assert choose_loader("auto", digits, "arrays", "own_views:same") == "torchvision"
    seen = digits.identity() | {"augmentation": "own_views:same"}
    assert [file.name for file in own_sources("resnet20_1w1a", "recu", seen)] == ["own_views.py"]


def test_every_place_of_params_takes_one(here):
    from recu.experiment.schema import HyperparameterOverrides, Row

    (here / "own_c.py").write_text("def rate(e, E): return 1\n")
    assert validate_model({"lr_type": "own_c:rate"}, HyperparameterOverrides, "x").lr_type == "own_c:rate"
    assert validate_model({"model": "own_c:Net"}, Row, "x").model == "own_c:Net"
    with pytest.raises(ConfigError, match="lr_type: learning-rate schedule 'own_c:no'"):
        validate_model({"lr_type": "own_c:no"}, HyperparameterOverrides, "x")
