from pathlib import Path

import pytest
import yaml

from recu.base.errors import ConfigError
from recu.experiment import params
from recu.experiment.paths import PARAMS_DIR
from recu.experiment.schema import Defaults, ReleasedSuite, Suite

SUITE = """
title: T
description: D
dataset: digits
seeds: [1]
methods: {vanilla: {}}
rows: [{model: resnet20_1w1a}]
"""


def parse(tmp_path: Path, text: str, kind=Suite):
    file = tmp_path / "suite.yaml"
    file.write_text(text)
    return params.parse_file(file, kind)


def test_everything_shipped_is_valid():
    params.load_defaults(PARAMS_DIR)
    params.load_datasets(PARAMS_DIR)
    params.load_published(PARAMS_DIR)
    found = params.load_suites(PARAMS_DIR, tuple(params.all_suites(PARAMS_DIR)))
    assert [name for name, suite in found.items() if isinstance(suite, ReleasedSuite)] == ["released"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "seeds: [1]\n->seeds: [-1]\n",
            r"suite.yaml: seeds.0: should be greater than or equal to 0, found -1",
        ),
        ("seeds: [1]->seeds: [1, 2, 1]", r"suite.yaml: seeds: the seed 1 is given twice"),
        ("model: resnet20_1w1a->model: resnet20_1w1a, only: []", r"rows.0.only: Tuple should have at least 1 item"),
        (
            "vanilla: {}->vanilla: {stage: true}",
            r"methods.vanilla.stage: should be a whole number, found true",
        ),
        ("vanilla: {}->vanilla: {stage: 2.0}", r"methods.vanilla.stage: should be a whole number, found 2.0"),
        (
            "vanilla: {}->vanilla: {tau_min: 0.5}",
            r"methods.vanilla.tau_min: should be greater than 0.5, found 0.5",
        ),
        (
            "vanilla: {}->vanilla: {tau_min: 0.50000001}",
            r"methods.vanilla.tau_min: must exceed 0.5 in single precision too",
        ),
        ("vanilla: {}->vanilla: {lr: 1.0e+308}", r"methods.vanilla.lr: must fit into single precision"),
        ("vanilla: {}->vanilla: {weight_decay: 1.0e-60}", r"weight_decay: must not vanish in single precision"),
        ('title: T->title: "a\\e[31mb"', r"title: must hold no control characters, found U\+001B at position 1"),
        ("dataset: digits->dataset: digits.", r"dataset: should be letters, digits.* no '.' last"),
        (
            "vanilla: {}->vanilla: {epochs: -3}",
            r"methods.vanilla.epochs: should be greater than or equal to 1, found -3",
        ),
        ("vanilla: {}->vanilla: {epoch: 3}", r"methods.vanilla.epoch: unknown key; did you mean 'epochs'\?"),
        ("vanilla: {}->vanilla: {lr: high}", r"methods.vanilla.lr: should be a valid number, found 'high'"),
        (
            "vanilla: {}->vanilla: {lr: 1e-3}",
            r"found '1e-3' \(a text to YAML: write 0.001\)",
        ),
        ("vanilla: {}->vanilla: {lr: 1e-5}", r"found '1e-5' \(a text to YAML: write 1.0e-05\)"),
        ("vanilla: {}->vanilla: {epochs: 1.0e1}", r"found '1.0e1' \(a text to YAML: write 10\)"),
        (
            "vanilla: {}->vanilla: {epochs: 3.5}",
            r"methods.vanilla.epochs: should be a valid integer.*found 3.5",
        ),
        (
            "vanilla: {}->vanilla: {lr_type: cosine}",
            r"lr_type: unknown learning-rate schedule 'cosine'; did you mean 'cos'?",
        ),
        (
            "{model: resnet20_1w1a}->{modle: x}",
            r"rows.0.model: missing.*rows.0.modle: unknown key; did you mean 'model'",
        ),
        ("title: T->titel: T", r"title: missing"),
        ("{model: resnet20_1w1a}->{model: '../../etc'}", r"rows.0.model: should be letters, digits"),
        ("seeds: [1]->seeds: [1]\nseeds: [2]", r"not valid YAML: line 6: key 'seeds' appears twice"),
        ("title: T->title: [", r"not valid YAML: line \d+: expected"),
        ("seeds: [1]->seeds: [010]", r"010 is the number 8 to YAML"),
        ("seeds: [1]->seeds: [1:30]", r"1:30 is the number 90 to YAML"),
        ("vanilla: {}->vanilla: {lr: '0:01.5'}", r"lr: should be a valid number"),
        ("vanilla: {}->vanilla: {lr: 0:01.5}", r"0:01.5 is the number 1.5 to YAML"),
    ],
)
def test_each_mistake_is_one_line_naming_file_key_and_expectation(tmp_path, change, message):
    old, new = change.split("->")
    assert old in SUITE
    with pytest.raises(ConfigError, match=message) as caught:
        parse(tmp_path, SUITE.replace(old, new))
    assert "\n" not in str(caught.value)


def test_keys_are_taken_as_they_are_written(tmp_path):
    text = SUITE.replace("vanilla: {}", "1.1: {epochs: 3}, 1.10: {epochs: 4}, yes: {}, finetune: {<<: {lr: 0.5}}")
    assert list(parse(tmp_path, text).methods) == ["1.1", "1.10", "yes", "finetune"]


def test_tags_that_would_run_code_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse(tmp_path, "title: !!python/object/apply:os.system ['true']")


def test_values_that_contradict_each_other_are_refused(tmp_path):
    text = (PARAMS_DIR / "defaults.yaml").read_text().replace("tau_min: 0.85", "tau_min: 0.999")
    with pytest.raises(ConfigError, match=r"hyperparameters: tau_min \(0.999\) must not exceed tau_max"):
        parse(tmp_path, text, Defaults)


def test_an_unknown_suite_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'cifar10'"):
        params.load_suite(PARAMS_DIR, "cifra10")


@pytest.mark.parametrize(
    "address", ["http://alice:pa55word@host", "postgresql://alice@db/x", "http://h/?token=pa55word"]
)
def test_a_password_in_the_configuration_is_refused_and_not_repeated(address):
    content = params.load_config(PARAMS_DIR).model_dump() | {"tracking_uri": address}
    with pytest.raises(ConfigError, match="tracking_uri: must hold no user name, password or key") as raised:
        params.parse_workflow_config(content)
    assert "pa55word" not in str(raised.value) and "alice" not in str(raised.value)


@pytest.mark.parametrize("place", ["url", "obtain"])
@pytest.mark.parametrize("address", ["http://user:pa55word@host/x.tar", "https://h/x.tar?X-Amz-Signature=pa55word"])
def test_a_secret_in_a_datasets_address_is_refused_and_not_repeated(tmp_path, place, address):
    archive = {"url": "http://h/x.tar", "filename": "x.tar", "checksum": "md5:00"}
    datasets = yaml.safe_load((PARAMS_DIR / "datasets.yaml").read_text())
    datasets["cifar10"] |= (
        {"archives": [archive | {"url": address}]} if place == "url" else {"obtain": f"see {address}"}
    )
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump(datasets))
    with pytest.raises(
        ConfigError, match=rf"datasets.yaml: cifar10\..*{place}: must hold no user name, password"
    ) as raised:
        params.load_datasets(tmp_path)
    assert "~/.netrc" in str(raised.value) and "`sources` in params/config.yaml" in str(raised.value)
    assert "pa55word" not in str(raised.value)


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("gpus", 0, "0"),
        ("gpus", [0, 1], "0,1"),
        ("gpus", None, ""),
        ("workers", "4", 4),
        ("keep_resumable", "true", True),
        ("keep_resumable", "False", False),
        ("kernels", False, "off"),
        ("suites", 2024, ("2024",)),
        ("suites", ["demo", 2024], ("demo", "2024")),
        ("suites", "demo,cifar10", ("demo", "cifar10")),
        ("sources", None, {}),
        ("sources", {"a": 7}, {"a": "7"}),
        ("data_dir", 2024, "2024"),
        ("tracking_uri", None, ""),
        ("teacher_weights", None, ""),
    ],
)
def test_what_yaml_reads_as_another_type_is_taken_as_it_was_meant(key, value, meant):
    content = params.load_config(PARAMS_DIR).model_dump() | {key: value}
    assert getattr(params.parse_workflow_config(content), key) == meant


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("gpus", True, "gpus: should be a valid string, found True"),
        ("gpus", "cuda:0", "gpus: 'cuda:0' is neither 'cpu' nor a device number such as 0"),
        ("gpus", -1, "gpus: '-1' is neither 'cpu' nor a device number such as 0"),
        ("kernels", True, "kernels: should be 'auto' or 'off', found True"),
        ("workers", True, "workers: should be a valid integer, found True"),
        ("workers", "four", "workers: should be a valid integer, found 'four'"),
        ("keep_resumable", "perhaps", "keep_resumable: should be a valid boolean, found 'perhaps'"),
        ("suites", [], "suites: .*at least 1 item"),
        ("suites", None, "suites.0: should be a valid string, found None"),
        ("suites", ["Demo", "demo"], "suites: the suites 'Demo' and 'demo' differ in capitals only"),
        ("sources", "x", "sources: should be an object, found 'x'"),
        ("sources", {"a": "http://u:pa55word@h/x"}, "sources.a: must hold no user name, password"),
        ("data_dir", "", "data_dir: string should have at least 1 character"),
        ("results_dir", "a{b}", "results_dir: must hold no braces, found 'a{b}'"),
        ("teacher_weights", "a\0b", r"teacher_weights: must hold no control characters, found U\+0000"),
    ],
)
def test_what_nobody_can_have_meant_is_one_line_with_key_and_expectation(key, value, message):
    content = params.load_config(PARAMS_DIR).model_dump() | {key: value}
    with pytest.raises(ConfigError, match=message) as raised:
        params.parse_workflow_config(content)
    assert "pa55word" not in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["README", "readme", "command-line", "Default", "two words"])
def test_a_suite_may_not_take_a_name_that_is_taken_or_cannot_be_one(tmp_path, name):
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / f"{name}.yaml").write_text(SUITE)
    with pytest.raises(ConfigError, match=rf"suites/{name}.yaml: .*name") as raised:
        params.load_suites(tmp_path, (name,))
    assert "\n" not in str(raised.value)


def test_texts_for_people_become_one_line(tmp_path):
    suite = parse(tmp_path, SUITE.replace("description: D", "description: >\n  D  of\n  many"))
    assert suite.description == "D of many"


def test_a_warm_up_before_the_competitors_schedule_is_refused(tmp_path):
    text = (PARAMS_DIR / "defaults.yaml").read_text().replace("lr_type: cos ", "lr_type: linear_start ")
    with pytest.raises(ConfigError, match="hyperparameters: warm_up is not defined for lr_type 'linear_start': set"):
        parse(tmp_path, text, Defaults)


def test_datasets_that_a_disk_may_take_for_one_are_refused(tmp_path):
    datasets = yaml.safe_load((PARAMS_DIR / "datasets.yaml").read_text())
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump(datasets | {"Digits": datasets["digits"]}))
    with pytest.raises(ConfigError, match=r"the datasets '[Dd]igits' and '[Dd]igits' differ in capitals only"):
        params.load_datasets(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"), [("mean", [125.3, 123.0, 113.9]), ("mean", [-0.5, 0.5, 0.5]), ("std", [63.0, 62.1, 66.7])]
)
def test_a_mean_or_spread_that_no_pixel_value_between_0_and_1_has_is_refused(tmp_path, key, value):
    datasets = yaml.safe_load((PARAMS_DIR / "datasets.yaml").read_text())
    datasets["digits"][key] = value
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump(datasets))
    with pytest.raises(ConfigError, match=rf"digits\.{key}\.0: should be (less|greater) than or equal to [01], found"):
        params.load_datasets(tmp_path)


def test_suites_may_be_one_name_or_a_list():
    config = {key: "x" for key in ("data_dir", "results_dir", "runs_dir", "reports_dir", "tracking_uri")}
    assert params.suite_names(params.parse_workflow_config(config | {"suites": "demo"})) == ("demo",)
    assert params.suite_names(params.parse_workflow_config(config | {"suites": ["a", "b", "a"]})) == (
        "a",
        "b",
    )
    with pytest.raises(ConfigError, match="suite: unknown key; did you mean 'suites'"):
        params.parse_workflow_config(config | {"suites": "demo", "suite": "demo"})


RELEASED = """
title: T
description: D
dataset: digits
files:
  - {name: one, path: one.pth.tar, model: resnet20_1w1a, method: vanilla, claimed_top1: 90.0, obtain: ask}
"""


def released_error(tmp_path: Path, text: str) -> str:
    file = tmp_path / "suites" / "mine.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        params.load_suites(tmp_path, ("mine",))
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("claimed_top1: 90.0", "claimed_top1: 900.0", "files.0.claimed_top1: should be less than or equal to 100"),
        ("claimed_top1: 90.0", "claimed_top: 90.0", "files.0.claimed_top: unknown key; did you mean 'claimed_top1'?"),
        ("obtain: ask", "obtain: ''", "files.0.obtain: String should have at least 1 character"),
        (", obtain: ask", "", "files.0.obtain: missing"),
        ("files:", "flies:", "flies: unknown key; did you mean 'files'?"),
        ("dataset: digits", "dataset: digits\nseeds: [1]", "seeds: unknown key"),
        (
            "name: one",
            "name: ../one",
            "files.0.name: should be letters, digits, '_', '.' and '-', a letter or digit first",
        ),
        ("stage: 2", "stage: 3", "files.0.stage"),
        ("files:\n", "files: []\nrest:\n", "files: Tuple should have at least 1 item"),
    ],
)
def test_mistakes_in_a_suite_of_released_files_are_answered_as_in_other_suites(tmp_path, old, new, message):
    text = RELEASED.replace("method: vanilla", "method: vanilla, stage: 2")
    assert old in text
    error = released_error(tmp_path, text.replace(old, new))
    assert message.lower() in error.lower() and "mine.yaml: " in error and "\n" not in error
    assert "at least 1 item" not in error or "files: []" in new, "what is wrong inside is not told twice"


def test_a_released_file_given_twice_is_named(tmp_path):
    line = RELEASED.strip().splitlines()[-1]
    assert "the file name 'one' is given twice" in released_error(tmp_path, RELEASED + line + "\n")


def test_a_suite_that_trains_is_told_from_one_of_released_files(tmp_path):
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "trains.yaml").write_text(SUITE)
    (tmp_path / "suites" / "measures.yaml").write_text(RELEASED)
    (tmp_path / "suites" / "broken.yaml").write_text("title: [")
    assert params.all_suites(tmp_path) == ["broken", "measures", "trains"]
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        params.load_suites(tmp_path, ("broken",))
    found = params.load_suites(tmp_path, ("trains", "measures"))
    assert isinstance(found["trains"], Suite) and isinstance(found["measures"], ReleasedSuite)
    with pytest.raises(ConfigError, match="did you mean 'measures'"):
        params.load_suite(tmp_path, "measure")
