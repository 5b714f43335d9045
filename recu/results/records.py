"""What the program writes of a training, an epoch, an evaluation and a table's row: the forms of its result files.

A file that holds what no stage writes is refused where it is read; keys that are not known here are left out, as
another version may have added them. Names in files stay, since others rely on them; which are of the same number:

- Top-1 on the test images after an epoch, as the training measured it: `test_top1` of its line in history.jsonl; of the
  best epoch `best.top1` in the training's metrics.json, `best_prec1` in checkpoints (the authors' name) and
  `top1_best_training` in rows.json; of the last epoch `last.top1` and `top1_last`. Likewise top-5 and the loss.
- Top-1 of the best checkpoint as the evaluation measured it: `top1` in its metrics.json, `top1_best` in rows.json.
- Images of the test split: `n` in an evaluation's metrics.json, `test_images` in rows.json.
- Training images that cannot be read: `train_skipped` in files, `unreadable` among a checkpoint's running sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, Json, SerializerFunctionWrapHandler, model_serializer, model_validator

from recu.base.errors import ConfigError, ResultError
from recu.experiment.binarisers import USUAL
from recu.experiment.params import validate_model
from recu.experiment.released import Released
from recu.experiment.resolving import Experiment, as_hashed
from recu.experiment.running import Kernels
from recu.experiment.schema import Model
from recu.results.seal import read_sealed_json, write_sealed_json

Percent = Annotated[float, Field(ge=0, le=100)]
Amount = Annotated[float, Field(ge=0)]
Number = Annotated[int, Field(ge=0, le=2**63 - 1)]
FORM = "is not of the expected form (altered, or of another version)"
R = TypeVar("R")


class Record(Model):
    """Base of all records: immutable, every number finite and in its range."""

    model_config = ConfigDict(extra="ignore")

    def as_plain(self) -> dict[str, Any]:
        """As it stands in a JSON file."""
        return self.model_dump(mode="json")


class SparseRecord(Record):
    """A record that is written without what has its default."""

    @model_serializer
    def as_plain(self) -> dict[str, Any]:
        """As it stands in a file; the very names of the fields, which equal files share."""
        fields = type(self).model_fields
        return {name: value for name, field in fields.items() if (value := getattr(self, name)) != field.default}


def as_record(content: Any, kind: type[R], where: str = FORM) -> R:
    """What was read from a file as the record, or the records, it should be.

    Args:
        content: plain values.
        kind: the record.
        where: begins the message.

    Raises:
        ResultError: a key is missing or holds what no stage writes.
    """
    try:
        return validate_model(content, kind, where)
    except ConfigError as error:
        raise ResultError(str(error)) from error


def read_record(path: Path, kind: type[R], *, again: str) -> R:
    """A published file as a record.

    Args:
        path: the file.
        kind: the record.
        again: the command that makes it again, said where it is refused.

    Raises:
        ResultError: it is missing, was altered, or holds what no stage writes.
    """
    return _made(read_sealed_json(path, again=again), kind, path, again)


def _made(content: Any, kind: type[R], path: Path, again: str) -> R:
    try:
        return as_record(content, kind, f"{path} {FORM}")
    except ResultError as error:
        raise ResultError(f"{error}: make it again: {again}") from error


def write_record(path: Path, record: Record) -> None:
    """Publish a record with its self-check. Raises OutputError."""
    write_sealed_json(path, record.as_plain())


class Provenance(SparseRecord):
    """Code, environment and device that gave a result."""

    device: str
    """What computed, e.g. "NVIDIA A100-SXM4-40GB" or "cpu (2 threads)"."""
    platform: str
    created: str
    """UTC, ISO 8601, to the second."""
    git_commit: str | None
    git_dirty: bool | None
    """This and the commit are None outside a git checkout."""
    packages: Mapping[str, str | None]
    """Versions of Python, this package and those it rests on; None where not installed."""
    code_hash: str
    environment_hash: str
    slurm_job: str | None = None
    """Id of the Slurm job that this ran in."""


class Source(SparseRecord):
    """The checkpoint that a training started from or learnt from."""

    id: str
    spec_hash: str
    checkpoint_sha256: str | None = None
    """None for weights that are in no checkpoint of this program's form."""
    weights_sha256: str | None = None
    """Of a teacher: over the tensors loaded."""


class Cost(Record):
    """What one image costs a network, as `recu.models.cost.Cost` has it."""

    parameters: Number
    checkpoint_bytes: Number
    binary_operations: Number
    floating_point_operations: Number
    operations: Amount


class Accuracy(Record):
    """One network on the test split."""

    top1: Percent
    top5: Percent
    loss: Amount
    """Nats."""


class EpochAccuracy(Accuracy):
    """The network as an epoch left it."""

    epoch: Number


class EpochResult(SparseRecord):
    """What an epoch gave; equal trainings give equal ones."""

    epoch: Number
    lr: float
    tau: float
    train_loss: float
    train_top1: Percent
    train_top5: Percent
    train_skipped: Number
    """Training images left out because they cannot be read."""
    test_loss: Amount
    test_top1: Percent
    test_top5: Percent
    train_left_out: Number = 0
    """Readable images left out because every other one of their batch is unreadable."""
    scheduled: Mapping[str, float] = {}
    """What binarisers other than ReCU set for the epoch, e.g. t of IR-Net; tau counts only where a layer has it."""

    @property
    def tested(self) -> EpochAccuracy:
        """The network on the test split after the epoch."""
        return EpochAccuracy(epoch=self.epoch, top1=self.test_top1, top5=self.test_top5, loss=self.test_loss)


class EpochRecord(EpochResult):
    """One line of a training's history: the result, and how long it took."""

    train_images_per_s: Amount
    test_images_per_s: Amount
    seconds: Amount
    time: Number
    """When it ended, Unix milliseconds."""

    @property
    def result(self) -> EpochResult:
        """Without clock times and speeds."""
        return EpochResult(**{name: getattr(self, name) for name in EpochResult.model_fields})


PerLayer = tuple[float | None, ...]
SharePerLayer = tuple[Annotated[float, Field(ge=0, le=1)] | None, ...]
Counts = tuple[tuple[Number, ...], ...]
_HISTOGRAMS = ("limit", "before", "after")
_AVERAGED = ("dead_share", "tail_share", "flipped_share", "quantisation_error", "entropy", "threshold", "scale_mean")


class EpochWeights(SparseRecord):
    """The binary layers of a network as an epoch left them; every column has one value a layer, in one order.

    The quantities are those of `recu.binarisers.diagnostics`, defined in docs/diagnostics.md; None where a layer has no
    such quantity, where what flipped is not known, and for a threshold at infinity.
    """

    epoch: Number
    layers: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names in the network."""
    weights: tuple[Number, ...]
    """How many each has."""
    threshold: PerLayer
    dead_share: SharePerLayer
    tail_share: SharePerLayer
    flipped_share: SharePerLayer
    quantisation_error: PerLayer
    entropy: PerLayer
    scale_min: PerLayer
    scale_mean: PerLayer
    scale_max: PerLayer
    limit: tuple[Amount, ...] = ()
    """Of the histograms: their equal parts are those of [-limit, limit]. This and the next two are empty but for the
    first, the middle and the last epoch of a training."""
    before: Counts = ()
    """Latent weights in each part."""
    after: Counts = ()
    """Likewise, after ReCU."""

    @model_validator(mode="after")
    def _check_columns(self) -> EpochWeights:
        for name in type(self).model_fields.keys() - {"epoch"}:
            found = len(getattr(self, name))
            if found != len(self.layers) and (found or name not in _HISTOGRAMS):
                raise ValueError(f"{name} has {found} values, expected one for each of {len(self.layers)} layers")
        return self

    @property
    def quantities(self) -> dict[str, PerLayer]:
        """The columns that are no histogram."""
        others = ("epoch", "layers", "weights", *_HISTOGRAMS)
        return {name: getattr(self, name) for name in type(self).model_fields if name not in others}

    @property
    def of_network(self) -> dict[str, float]:
        """Of the network as a whole: means over its binary weights, and its smallest and largest scale."""
        found = {name: self._mean(getattr(self, name)) for name in _AVERAGED}
        for name, end in (("scale_min", min), ("scale_max", max)):
            found[name] = end((value for value in getattr(self, name) if value is not None), default=None)
        return {name: value for name, value in found.items() if value is not None}

    def _mean(self, column: PerLayer) -> float | None:
        known = [(value, count) for value, count in zip(column, self.weights, strict=True) if value is not None]
        total = sum(count for _, count in known)
        return sum(value * count for value, count in known) / total if total else None


class Shared(Record):
    """How several devices shared each batch, one process a device."""

    processes: Annotated[int, Field(ge=2)]
    batch_per_process: Number
    """Images; the last ones of a batch that does not divide have fewer."""
    batch_norm_batch: Number
    """Images whose statistics a BatchNorm normalises with."""


class Piece(Record):
    """Epochs of a training that one code, environment and device computed; both ends included."""

    from_epoch: Number
    to_epoch: Number
    provenance: Provenance
    shared: Shared | None = None
    """None where one device had whole batches."""

    @model_serializer(mode="wrap")
    def _without_default(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = whole(self)
        return {name: value for name, value in plain.items() if name != "shared" or value is not None}

    @property
    def epochs(self) -> str:
        """In words, counted from 1 as people do."""
        first, last = self.from_epoch + 1, self.to_epoch + 1
        return f"epoch {first}" if first == last else f"epochs {first} to {last}"


class TrainedPiece(Piece):
    """One uninterrupted piece of a training, and the parameters it was trained with."""

    experiment: str
    """`recu.experiment.resolving.Experiment.canonical`."""
    spec_hash: str
    settings: Mapping[str, Any]


class ResumedFrom(Record):
    """A checkpoint that was given as a file to continue."""

    file: str
    sha256: str
    epoch: Number | None
    spec_hash: str | None


class Origins(Record):
    """What a training started from and learns from."""

    parent: Source | None = None
    teacher: Source | None = None
    resumed_from: ResumedFrom | None = None
    start_epoch: Number = 0


class Reached(Record):
    """What a checkpoint to continue says of the epochs done."""

    history: tuple[EpochRecord, ...]
    segments: tuple[TrainedPiece, ...]
    """In order; an epoch that was interrupted stands in two."""
    origins: Origins
    train_seconds: Amount
    earlier_best: Percent | None
    """Best top-1 that a checkpoint without our history claims."""
    diagnostics: tuple[Json[EpochWeights], ...] = ()
    """Of the epochs that were measured. Each is one text of a checkpoint, which would be slow to read as values."""


class TrainingRecord(Origins):
    """metrics.json of a training."""

    experiment: Mapping[str, Any]
    """Its id and parameters, perhaps of another version of this program; see `resolved`."""
    spec_hash: str
    data_fingerprint: str
    checkpoint_sha256: str
    best: EpochAccuracy
    """The first epoch with the highest top-1."""
    last: EpochAccuracy
    epochs: Number
    train_seconds: Amount
    history: Annotated[tuple[EpochRecord, ...], Field(min_length=1)]
    provenance: Provenance
    """Of the last epochs."""
    settings: Mapping[str, Any]
    segments: tuple[TrainedPiece, ...] = ()
    """In order; an epoch that was interrupted stands in two. Empty in files of earlier versions."""
    mlflow_run_id: str | None
    shortcut: str
    cost: Cost
    diagnostics: tuple[EpochWeights, ...] = ()
    """Of the epochs after which the binary layers were measured."""

    @property
    def id(self) -> str:
        """Of its experiment."""
        return str(self.experiment.get("id", "?"))

    @property
    def parameters(self) -> dict[str, Any]:
        """Of its experiment."""
        return {name: value for name, value in self.experiment.items() if name != "id"}

    def as_source(self) -> Source:
        """How a training that starts from this one names it."""
        return Source(id=self.id, spec_hash=self.spec_hash, checkpoint_sha256=self.checkpoint_sha256)

    @property
    def origins(self) -> Origins:
        """Alone."""
        return Origins(**{name: getattr(self, name) for name in Origins.model_fields})

    @property
    def hashed(self) -> dict[str, Any]:
        """What of them the hash sees. Raises ResultError where no version of this program wrote them."""
        try:
            return as_hashed(self.parameters)
        except (AttributeError, KeyError, TypeError) as error:
            raise ResultError(f"the experiment in the results of {self.id} has not the expected form") from error

    @property
    def resolved(self) -> Experiment:
        """What was trained. Raises ResultError where this version knows no such experiment."""
        try:
            return validate_model(self.parameters, Experiment, f"the experiment in the results of {self.id}")
        except ConfigError as error:
            raise ResultError(str(error)) from error

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What computed which epochs; one piece where the file does not say."""
        first, last = self.history[0].epoch, self.history[-1].epoch
        return self.segments or (Piece(from_epoch=first, to_epoch=last, provenance=self.provenance),)


class ReleasedRecord(Record):
    """metrics.json of a released file: of a training that somebody else ran."""

    released: Released
    spec_hash: str
    checkpoint_sha256: str
    file_state: str
    """How the file looked when this was its content, as `recu.experiment.released.file_state`."""
    load: Mapping[str, Any]
    """What became of its tensors."""
    shortcut: str
    cost: Cost
    provenance: Provenance

    @property
    def id(self) -> str:
        """Of its file."""
        return self.released.id

    @property
    def resolved(self) -> Released:
        """What was released."""
        return self.released

    @property
    def hashed(self) -> dict[str, Any]:
        """What of it the hash sees."""
        return self.released.hashed


def training_kind(content: Any) -> type[TrainingRecord] | type[ReleasedRecord]:
    """What metrics.json in results/train/ is to be read as."""
    return ReleasedRecord if isinstance(content, Mapping) and "released" in content else TrainingRecord


def read_training(path: Path, *, again: str) -> TrainingRecord | ReleasedRecord:
    """metrics.json of a training or a released file; as `read_record`."""
    content = read_sealed_json(path, again=again)
    return _made(content, training_kind(content), path, again)


class MeasuredWith(Record):
    """How a checkpoint was measured; nothing here changes a number beyond rounding."""

    batch_size_test: Annotated[int, Field(ge=1)]
    loader: str
    precision: str
    kernels: Kernels = "auto"


Confusion = tuple[tuple[Number, ...], ...]
"""A confusion matrix: images of class i that were taken for class j, at [i][j]."""
MOST_CLASSES = 200
"""Classes for which a confusion matrix is kept."""
_ROUNDING = 1e-6


class Measurement(Accuracy):
    """What evaluating a checkpoint file gave, and what that rests on."""

    n: Annotated[int, Field(ge=1)]
    """Images."""
    confusion: Confusion | None = None
    """None in files of earlier versions and for more than MOST_CLASSES classes."""
    classes: tuple[str, ...] | None = None
    """Names of the classes in the order of `confusion`."""
    checkpoint: str
    """The file's name."""
    checkpoint_sha256: str
    weights_key: str | None
    model: str
    family: str
    variant: str | None
    stage: int
    """Which network the file was taken for, with the next."""
    binariser: str = USUAL
    dataset: str
    data: Mapping[str, Any]
    """`recu.experiment.schema.Dataset.identity()`."""
    data_fingerprint: str
    test_content: str
    settings: MeasuredWith
    provenance: Provenance

    @model_validator(mode="after")
    def _check_confusion(self) -> Measurement:
        """The matrix counts each image once, and its diagonal is the top-1: it would else be another evaluation's."""
        counts, names = self.confusion, self.classes
        if counts is None:
            return self
        if names is None or {len(names)} != {len(counts), *map(len, counts)}:
            raise ValueError("confusion: expected a line and a column for each of classes")
        hits = sum(line[place] for place, line in enumerate(counts))
        if sum(map(sum, counts)) != self.n or abs(100 * hits / self.n - self.top1) > _ROUNDING:
            raise ValueError("confusion: does not count the n images of this top1")
        return self


class EvaluationRecord(Measurement):
    """metrics.json of the evaluation of a training or a released file."""

    experiment_id: str
    spec_hash: str
    mlflow_run_id: str | None


class PackedRecord(Record):
    """metrics.json of the packed file of a training or a released file: what it is, and what it gives."""

    experiment_id: str
    checkpoint_sha256: str
    """Of what it was made of."""
    packed_sha256: str
    size_bytes: Annotated[int, Field(gt=0)]
    test_images: Number
    other_class: Number
    """Test images that get another class from the runtime without PyTorch than from the network."""
    top1: Percent
    """Of the same runtime."""


Positive = Annotated[float, Field(gt=0)]


class Speed(Record):
    """How fast a network computes."""

    ms: Positive
    """For one image at a time."""
    images_per_s: Positive
    """In batches."""


class SpeedRecord(Record):
    """metrics.json of the speed of a packed file, which one machine measured."""

    experiment_id: str
    packed_sha256: str
    """Of the file that was measured."""
    packed: Speed
    float32: Speed | None
    """Of the same architecture with real weights and activations; None where it has no such form."""
    threads: Annotated[int, Field(gt=0)]
    batch_size: Annotated[int, Field(gt=0)]
    turns: Annotated[int, Field(gt=0)]
    """That each took; the medians count."""
    processors: Annotated[int, Field(gt=0)]
    """Of the machine."""
    load_average: Amount | None
    """Of the minute that ended with the measurement, which itself is in it; this and `others` are None where the system
    does not say."""
    others: Amount | None
    """Processors that other programs kept busy meanwhile, on average."""
    provenance: Provenance
    """Of the measurement; its device names the processor."""

    @property
    def speed_up_one(self) -> float | None:
        """How many times as fast as `float32` for one image at a time.

        None where the machine was busy, too: threads of PyTorch that wait for one that has no core lose most of their
        time, so that it would be too large.
        """
        return None if self.float32 is None or self.busy else self.float32.ms / self.packed.ms

    @property
    def speed_up_batches(self) -> float | None:
        """Likewise in batches."""
        return None if self.float32 is None or self.busy else self.packed.images_per_s / self.float32.images_per_s

    @property
    def busy(self) -> bool:
        """Whether others took more than a tenth of the machine, as far as is known."""
        return self.others is not None and self.others > BUSY_SHARE * self.processors


BUSY_SHARE = 0.1


class Curve(Record):
    """Top-1 and loss by epoch, counted from 0."""

    epoch: tuple[Number, ...]
    test_top1: tuple[Percent, ...]
    train_top1: tuple[Percent, ...]
    test_loss: tuple[Amount, ...] = ()
    """Nats; this and the other loss are empty in rows of earlier versions."""
    train_loss: tuple[float, ...] = ()


class WeightCurves(Record):
    """What figures show of a training's `EpochWeights`."""

    epoch: tuple[Number, ...]
    """Those that were measured, counted from 0; the following have a value for each."""
    dead_share: SharePerLayer
    """This and the following: of the network, as `EpochWeights.of_network`."""
    tail_share: SharePerLayer
    flipped_share: SharePerLayer
    quantisation_error: PerLayer
    entropy: PerLayer
    threshold: PerLayer = ()
    """This and the following are empty in rows of earlier versions."""
    scale_min: PerLayer = ()
    scale_mean: PerLayer = ()
    scale_max: PerLayer = ()
    with_histograms: tuple[EpochWeights, ...]

    @classmethod
    def of(cls, measured: Sequence[EpochWeights]) -> WeightCurves | None:
        """Of a whole training; None where nothing was measured."""
        if not measured:
            return None
        networks = [each.of_network for each in measured]
        names = cls.model_fields.keys() - {"epoch", "with_histograms"}
        return cls(
            epoch=tuple(each.epoch for each in measured),
            with_histograms=tuple(each for each in measured if each.limit),
            **{name: tuple(each.get(name) for each in networks) for name in names},
        )


class Claim(Record):
    """A released file, and what is claimed of it."""

    name: str
    path: str
    top1: Percent
    dataset: str | None
    """As `recu.experiment.released.Released.claimed_on`."""


class Row(Record):
    """One result in rows.json: a training, or a released file, and the evaluation of its best checkpoint.

    Accuracies are in percent. Of a released file nobody says what is None here.
    """

    experiment_id: str
    suite: str
    dataset: str
    family: str
    variant: str | None
    model: str
    network: str
    """Family, variant and model, and the name of the suite's row where that has one."""
    stage: int
    method: str
    shortcut: str
    cost: Cost
    batch_size_test: int
    seen_data: Mapping[str, Any]
    """As `recu.results.published.seen_data`."""
    spec_hash: str
    data_fingerprint: str
    checkpoint_sha256: str
    top1_best: Percent
    """This, `top5_best` and `loss_best`: what the evaluation measured on the published checkpoint."""
    top5_best: Percent
    test_images: Number
    train_seconds: Amount
    segments: tuple[Piece, ...]
    evaluate_provenance: Provenance
    parent: Source | None
    teacher: Source | None
    seed: int | None
    batch_size: int | None
    epochs: int | None
    top1_best_training: Percent | None
    """What the training saw at that epoch."""
    best_epoch: Number | None
    top1_last: Percent | None
    top5_last: Percent | None
    curve: Curve | None
    binariser: str = USUAL
    replicas: int | None = None
    """Parts that a batch of the recipe is meant to be normalised in."""
    loss_best: Amount | None = None
    """Of a released file alone."""
    claim: Claim | None = None
    """Of a released file; None of a training of ours."""
    confusion: Confusion | None = None
    """This and `classes` as the evaluation has them."""
    classes: tuple[str, ...] | None = None
    row: str | None = None
    """Name of the suite's row; None where that has none."""
    weights: WeightCurves | None = None
    """None where the binary layers were not measured."""
    packed: PackedRecord | None = None
    """None where no packed file was asked for."""
    speed: SpeedRecord | None = None
    """None where its speed was not measured."""

    @property
    def labelled_method(self) -> str:
        """The method, and the name of the suite's row where it has one."""
        return f"{self.method}, {self.row}" if self.row else self.method

    @model_serializer(mode="wrap")
    def _without_defaults(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = whole(self)
        return {name: value for name, value in plain.items() if name not in _OPTIONAL or value is not None}


_OPTIONAL = frozenset(name for name, field in Row.model_fields.items() if not field.is_required())


class Rows(Record):
    """rows.json of a suite."""

    rows: Annotated[tuple[Row, ...], Field(min_length=1)]
