"""The export stage: a trained network in a form that other programs read, and what it gives there.

What a form gives beside the network itself is counted image by image before it is written; a form that must give the
very same numbers and does not is not written.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recu.base.errors import OutputError, RecuError, ResultError
from recu.base.files import atomic_write_bytes, atomic_write_text, canonical_json, hash_file
from recu.experiment.binarisers import find_binariser
from recu.results.records import PackedRecord
from recu.stages.predict import Classifier

if TYPE_CHECKING:
    from torch import Tensor

    from recu.export.card import Card
    from recu.export.comparing import Comparison, Form

Target = Literal["packed", "onnx", "qonnx", "safetensors"]
WEIGHTS, CARD = "model.safetensors", "README.md"
"""What an export to safetensors writes into its folder."""

WITHOUT_PYTORCH = "packed, without PyTorch"
"""A packed file as `recu predict` and `recu evaluate` compute it."""
_QUICK_IMAGES = 32
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export wrote, and what it gives."""

    path: Path
    size_bytes: int
    stated_bytes: int
    """Of a packed file, as the cost columns count them (docs/costs.md)."""
    on: str
    """Which images were compared, in words."""
    compared: dict[str, Comparison]
    """By form; the first is the network itself."""
    notes: tuple[str, ...]
    """What else there is to know, in sentences."""


@dataclass(frozen=True, kw_only=True)
class _Form:
    """A network in a form that can be compared, and then written."""

    forms: dict[str, Form]
    write: Callable[[str, dict[str, Comparison]], int]
    """From which images were compared, in words, and what came out, to how many bytes were written."""
    exact: str | None = None
    """The one that must give the very numbers of the network."""
    notes: Callable[[str, dict[str, Comparison]], tuple[str, ...]] = field(default=lambda *_: ())
    """From the same to sentences."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be exported, and where to."""

    classifier: Classifier
    """A trained network, on the CPU."""
    target: Target
    path: Path
    """A file; of safetensors a folder."""
    dataset: str | None = None
    """Name of its dataset, where the checkpoint does not say it."""
    licence: str = "unknown"
    """Of the weights, as the hub names it; for the model card."""

    @property
    def dataset_name(self) -> str:
        """As the checkpoint says, or as it was asked for; a released file's is the title that `load` gave it."""
        identity = self.classifier.subject.identity
        return identity.dataset if identity is not None else self.dataset or self.classifier.dataset.title


def export(wanted: Wanted, *, data_dir: Path | None) -> Exported:
    """Write a network in another form, after comparing.

    Args:
        wanted: what, and where to.
        data_dir: prepared data, whose test images are compared; None for a few random ones.

    Raises:
        RecuError: the network has no such form, it cannot be written, or is not what the network is.
    """
    from recu.export.comparing import compare
    from recu.models.cost import measure_cost
    from recu.nn.inference import inference_form

    classifier = wanted.classifier
    if wanted.path.exists() and wanted.path.samefile(classifier.subject.file.path):
        raise OutputError(f"{wanted.path} is the checkpoint itself, which would be replaced: choose another --output")
    on, batches = _images(wanted, data_dir)
    form = _FORMS[wanted.target](wanted)
    compared = compare(inference_form(classifier.network), form.forms, batches)
    unequal = 0 if form.exact is None else compared[form.exact].unequal
    if unequal:
        raise RecuError(
            f"{wanted.path} is not written: {unequal} logits of {classifier.subject.network} would differ from the"
            " network's; this is a fault of this program: please report it"
        )
    return Exported(
        path=wanted.path,
        size_bytes=form.write(on, compared),
        stated_bytes=measure_cost(classifier.network, classifier.dataset.image_size).checkpoint_bytes,
        on=on,
        compared={name: each for name, each in compared.items() if name != _COUNTED},
        notes=form.notes(on, compared),
    )


def packed_record(experiment_id: str, wanted: Wanted, exported: Exported) -> PackedRecord:
    """What tables list of an experiment's packed file. Raises ResultError: its images had no labels."""
    found = exported.compared[WITHOUT_PYTORCH]
    if found.top1 is None:
        raise ResultError(f"{exported.path} was compared on {exported.on}, expected test images")
    return PackedRecord(
        experiment_id=experiment_id,
        checkpoint_sha256=wanted.classifier.subject.file.sha256,
        packed_sha256=hash_file(exported.path),
        size_bytes=exported.size_bytes,
        test_images=found.images,
        other_class=found.differing,
        top1=found.top1,
    )


def _packed(wanted: Wanted) -> _Form:
    from recu.export.comparing import LIBRARY
    from recu.runtime.network import Network
    from recu.runtime.opening import StartingNetwork
    from recu.runtime.reader import parse

    content = packed_content(wanted)
    operations = parse(content).operations
    return _Form(
        forms={"packed": Network(operations, LIBRARY), WITHOUT_PYTORCH: StartingNetwork(operations)},
        exact="packed",
        write=lambda *_: _written(wanted.path, content),
    )


def packed_content(wanted: Wanted) -> bytes:
    """Of a network's packed file. Raises ConfigError, CheckpointError as `recu.export.packing.pack`."""
    from recu.export.packing import pack

    classifier = wanted.classifier
    return pack(classifier.network, said=_said(wanted), dataset=classifier.dataset, classes=classifier.classes)


_COUNTED = "counted"
"""The form that counts zeros; no table lists it, since it is the network itself but for them."""


def _onnx(wanted: Wanted) -> _Form:
    from recu.export.comparing import Zeros
    from recu.export.onnx_form import onnx_model, onnx_runner, qonnx_runner
    from recu.runtime.reader import parse

    packed = parse(packed_content(wanted))
    said = {key: canonical_json(value) for key, value in packed.header.items()}
    size, plain = wanted.classifier.dataset.image_size, wanted.target == "onnx"
    zeros = Zeros(packed.operations, plus_one=not plain)
    if plain:
        model = onnx_model(packed.operations, size=size, said=said)
        run = onnx_runner(model)
    else:
        # One image at once, as programs that make hardware of it take it; several at once for comparing.
        model = onnx_model(packed.operations, size=size, signs="qonnx", batch=1, said=said)
        run = qonnx_runner(onnx_model(packed.operations, size=size, signs="qonnx", batch=_BATCH), _BATCH)

    def write(on: str, compared: dict[str, Comparison]) -> int:
        found = compared[wanted.target]
        counts = {"on": on, "images": found.images, "other_class": found.differing}
        counts |= {"activations": zeros.activations, "zeros": zeros.zeros}
        if not plain:
            counts["other_class_by_zeros"] = compared[_COUNTED].differing
        # Whoever has the file alone knows what it gives beside the network.
        model.metadata_props.add(key="compared", value=canonical_json(counts))
        return _written(wanted.path, model.SerializeToString())

    def notes(on: str, compared: dict[str, Comparison]) -> tuple[str, ...]:
        count = f"On {on}, {zeros.zeros} of the {zeros.activations} activations whose sign is taken are exactly 0"
        if plain:
            return (f"{count}: ONNX's Sign gives 0 of them, as the network does",)
        found, alone = compared[wanted.target], compared[_COUNTED].differing
        return (
            f"{count}: BipolarQuant gives +1 of them where the network has 0;"
            f" {alone} of {found.images} images get another class by that alone,"
            f" and {found.differing} with other rounding as well",
        )

    return _Form(forms={wanted.target: run, _COUNTED: zeros}, write=write, notes=notes)


def _safetensors(wanted: Wanted) -> _Form:
    from recu.base.needed import require

    require("export", "safetensors")
    from safetensors.torch import load, save

    from recu.nn.inference import inference_form
    from recu.stages.subject import load_network
    from recu.training.device import place

    classifier, subject = wanted.classifier, wanted.classifier.subject
    tensors = {name: tensor.contiguous() for name, tensor in classifier.network.state_dict().items()}
    metadata = {key: each if isinstance(each, str) else canonical_json(each) for key, each in _said(wanted).items()}
    content = save(tensors, {"format": "pt", **metadata})
    again, _ = load_network(subject, classifier.dataset.num_classes)
    again.load_state_dict(load(content))
    form = inference_form(place(again.eval(), classifier.device))

    def run(images: Any) -> Any:
        import torch

        return form(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()

    def write(_: str, compared: dict[str, Comparison]) -> int:
        from recu.export.card import card_text

        text = card_text(_card(wanted, compared["safetensors"]))
        size = _written(wanted.path / WEIGHTS, content)
        atomic_write_text(wanted.path / CARD, text)
        return size

    return _Form(forms={"safetensors": run}, exact="safetensors", write=write)


_FORMS: dict[Target, Callable[[Wanted], _Form]] = {
    "packed": _packed,
    "onnx": _onnx,
    "qonnx": _onnx,
    "safetensors": _safetensors,
}


def _written(path: Path, content: bytes) -> int:
    atomic_write_bytes(path, content)
    return len(content)


def _said(wanted: Wanted) -> dict[str, Any]:
    """Of the network and its origin, as a file has it."""
    subject, identity = wanted.classifier.subject, wanted.classifier.subject.identity
    source: dict[str, Any] = {"file": subject.file.path.name, "sha256": subject.file.sha256}
    if identity is not None:
        source |= {"spec_hash": identity.spec_hash, "data_fingerprint": identity.data_fingerprint}
    return {
        "network": subject.network,
        "stage": subject.stage,
        "binariser": subject.binariser,
        "dataset": wanted.dataset_name,
        "source": source,
    }


def _card(wanted: Wanted, compared: Comparison) -> Card:
    from recu.export.card import Card

    classifier, subject = wanted.classifier, wanted.classifier.subject
    names = ("model", "family", "variant", "stage", "binariser")
    said = {"dataset": wanted.dataset_name, **{name: getattr(subject, name) for name in names}}
    return Card(
        network=subject.network,
        binariser=find_binariser(subject.binariser, family=subject.family).title,
        stage=subject.stage,
        dataset=wanted.dataset_name,
        title=classifier.dataset.title,
        classes=classifier.classes,
        licence=wanted.licence,
        source=_said(wanted)["source"],
        top1=compared.top1,
        images=compared.images,
        parameters=sum(parameter.numel() for parameter in classifier.network.parameters()),
        image_size=classifier.dataset.image_size,
        options=shlex.join(
            word for name, value in said.items() if value is not None for word in (f"--{name}", str(value))
        ),
    )


def _images(wanted: Wanted, data_dir: Path | None) -> tuple[str, Iterable[tuple[Tensor, Tensor | None]]]:
    """What they are, in words, and batches of them, normalised, with labels. Raises DataError, CheckpointError."""
    import torch

    from recu.data.load.augmentation import normalise

    dataset = wanted.classifier.dataset
    if data_dir is None:
        shape = (_QUICK_IMAGES, dataset.image_size, dataset.image_size, 3)
        drawn = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        seen = normalise(drawn, torch.tensor(dataset.mean), torch.tensor(dataset.std))
        return f"{_QUICK_IMAGES} random images", [(seen, None)]
    on, _, batches = test_images(wanted, data_dir)
    return on, batches


def test_images(wanted: Wanted, data_dir: Path) -> tuple[str, int, Iterable[tuple[Tensor, Tensor]]]:
    """The test images of a network's dataset: in words, how many, batches of them, normalised, and their labels.

    Raises:
        DataError: they are not prepared, or are no longer what was prepared.
        CheckpointError: the network has other classes.
    """
    from tqdm import tqdm

    from recu.data import build_loaders, open_prepared
    from recu.training.checkpoint_identity import check_classes

    dataset, subject, name = wanted.classifier.dataset, wanted.classifier.subject, wanted.dataset_name
    prepared = open_prepared(data_dir / name, dataset)
    if subject.identity is not None:
        check_classes(subject.identity, subject.file.path, prepared.manifest.classes)
    test = build_loaders(
        prepared,
        dataset,
        splits=("test",),
        batch_size=_BATCH,
        batch_size_test=_BATCH,
        loader="auto",
        seed=0,
        device="cpu",
        workers=0,
    ).test
    batches = tqdm(test.batches(0), "comparing", total=test.num_batches, unit=" batches", leave=False, disable=None)
    return f"all {test.num_images} test images of {name}", test.num_images, batches
