"""The form of everything under params/: one model per kind of file, the single source of workflow/schemas/.

Free of torch, so that planning takes seconds. A model only says what a file may hold; `recu.experiment.params` reads
files and words the errors, `recu.experiment.resolving` combines them into experiments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    create_model,
    model_validator,
)

from recu.base.addresses import check_store_address
from recu.base.errors import ConfigError
from recu.experiment.augmentations import CROP_SCALES, Augmentation, own_augmentation
from recu.experiment.binarisers import USUAL, find_binariser, package_binarisers
from recu.experiment.dataset_kinds import KINDS, find_kind
from recu.experiment.loaders import LoaderName
from recu.experiment.networks import Family, Stage
from recu.experiment.running import Kernels, Running
from recu.experiment.schedules import LearningRateType, check_warm_up, own_schedule
from recu.experiment.values import (
    LARGEST,
    MODEL_PATTERN,
    MOST_PROCESSES,
    Address,
    Advice,
    Count,
    Fraction,
    Line,
    Name,
    NonNegative,
    Positive,
    Quantile,
    Seed,
    Share,
    Spread,
    UserPath,
    check_apart,
    check_filled,
    check_no_secret,
    check_once,
    check_printable,
    empty_as_text,
    number_as_text,
    text_as_number,
    text_as_switch,
    whole,
)

Optimizer = Literal["sgd", "adam"]
DecayGroups = Literal["all", "imagenet", "birealnet"]
Compile = Literal["kernels", "cuda-graphs"]
TestView = Literal["resize", "resize_centre"]
"""How a test image becomes the network's input: scaled to its size, or the shorter side to 256/224 of that and then the
centre; see `recu.data.load.transforms`."""


def _as_list(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _empty_as_mapping(value: Any) -> Any:
    return {} if value is None else value


def _without_braces(path: str) -> str:
    # Snakemake would take what stands in them for a wildcard.
    if "{" in path or "}" in path:
        raise ValueError(f"must hold no braces, found {path!r}")
    return path


def _check_store_address(address: str) -> str:
    # It becomes a word of every job's command, which Snakemake prints and records.
    try:
        return check_no_secret(address)
    except ValueError as error:
        raise ValueError(
            "must hold no user name, password or key: put them into MLFLOW_TRACKING_USERNAME and"
            " MLFLOW_TRACKING_PASSWORD, or the whole address into MLFLOW_TRACKING_URI"
        ) from error


def _gpus_as_text(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return ",".join(str(number_as_text(each)) for each in value)
    return number_as_text(empty_as_text(value))


def _check_gpus(gpus: str) -> str:
    gpu_numbers(gpus)
    return gpus


def _known(names: Iterable[str], find: Callable[[str], Any]) -> AfterValidator:
    """That a name is one of the package's table, or of one's own (`recu.experiment.own`)."""
    known = tuple(names)

    def check(name: str) -> str:
        name = name.lower() if name.lower() in known else name
        try:
            find(name)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return name

    return AfterValidator(check)


def _shown(names: Iterable[str]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"enum": list(names), "type": "string"}, {"type": "string"}]})


BinariserName = Annotated[
    Line,
    _known(package_binarisers(), lambda name: find_binariser(name, family="")),
    _shown(package_binarisers()),
]
ScheduleName = Annotated[Line, _known(get_args(LearningRateType), own_schedule), _shown(get_args(LearningRateType))]
KindChoice = Annotated[Line, _known(KINDS, find_kind), _shown(KINDS)]
AugmentationName = Annotated[Line, _known(get_args(Augmentation), own_augmentation), _shown(get_args(Augmentation))]
ModelChoice = Annotated[str, Field(pattern=MODEL_PATTERN, max_length=80), BeforeValidator(number_as_text)]


def _switch_as_text(value: Any) -> Any:
    return "off" if value is False else value  # which is how YAML 1.1 reads `off`


def gpu_numbers(gpus: str) -> list[int]:
    """The device numbers that a value of `gpus` names; none for "" and "cpu".

    Raises:
        ValueError: it is neither.
    """
    wanted = gpus.strip().lower()
    if wanted in ("", "cpu"):
        return []
    numbers = [part.strip() for part in wanted.split(",") if part.strip()]
    if not numbers or not all(number.isascii() and number.isdecimal() for number in numbers):
        raise ValueError(f"{gpus!r} is neither 'cpu' nor a device number such as 0")
    check_once([int(number) for number in numbers], "device")
    return [int(number) for number in numbers]


class Model(BaseModel):
    """Base of every model: immutable, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class Block(Model):
    """Base of every block of params/: what stands below a field is its help, its row in docs/reference.md and what an
    editor shows."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Hyperparameters(Block):
    """Everything that decides what one training computes, fully resolved. Values live in params/defaults.yaml."""

    epochs: Count
    """Passes over the training images; the schedules of tau and of the learning rate span all of them."""
    batch_size: Annotated[int, Field(ge=2, le=LARGEST)]
    """Training images a step. BatchNorm needs two at least, in the last step of an epoch too."""
    batch_size_test: Count
    """Test images a step; changes results by rounding at most."""
    optimizer: Optimizer
    """Optimiser; the weight decay of both is added to the gradient."""
    lr: Positive
    """Initial learning rate; with a warm-up, the highest."""
    lr_type: ScheduleName
    """How the learning rate falls: as half a cosine, in steps, or linearly; `linear_start` is the competitor's linear
    schedule, stepped at the start of each epoch."""
    lr_decay_step: Annotated[tuple[Count, ...], Field(max_length=1000)]
    """Epochs at which `step` multiplies the learning rate by 0.1; unused by the other types."""
    warm_up: bool
    """Raise the learning rate linearly over the first five epochs; not with `linear_start`."""
    momentum: Fraction
    """Of SGD; Adam ignores it."""
    weight_decay: NonNegative
    """Weight decay of the parameters that `weight_decay_groups` names."""
    weight_decay_groups: DecayGroups
    """Which parameters decay: all; those with conv or fc in their names; those and all of four dimensions."""
    tau_min: Quantile
    """tau of the first epoch."""
    tau_max: Quantile
    """tau approached at the end of training."""
    stage: Annotated[Stage, BeforeValidator(whole)]
    """What the network binarises: 0 nothing, 1 activations, 2 activations and weights."""
    init_from: Name | None
    """Method of the same row whose best checkpoint gives the initial weights; null starts from random ones."""
    teacher: Line | None
    """Distillation teacher: null for none; `NETWORK/METHOD` of an earlier row with the same dataset and seed; or
    `torchvision:NAME` for torchvision's published ImageNet weights."""
    augmentation: AugmentationName | None
    """Training augmentation in place of the dataset's; null for that."""
    loader: LoaderName
    """Input pipeline: `auto` holds small images in memory and reads large ones with torchvision."""
    skip_unreadable: bool
    """Leave out training images that cannot be read, and count them, instead of stopping at the first; one among the
    test images always stops."""
    precision: Literal["fp32", "tf32", "bf16"]
    """Arithmetic of training, of which tf32 and bf16 change results: `tf32` rounds the operands of convolutions and
    matrix products to ten bits of mantissa, on GPUs that can (a sum of signs stays exact); `bf16` is autocast, and
    meant for GPUs."""
    compile: Compile | None = None
    """torch.compile of the network in training, on GPUs: `kernels` fuses operations, `cuda-graphs` replays a step's
    kernels at once too. Both round differently from the uncompiled network; null for neither."""

    replicas: Annotated[int, Field(ge=1, le=MOST_PROCESSES)] = 1
    """Parts that each batch is normalised in, one a device, as the authors' `--gpus 0,1` has two: BatchNorm sees
    batch_size / replicas images. A training on another number of devices says so in its record and in tables."""
    binariser: BinariserName = USUAL
    """What binarises, at the stage that `stage` names: `recu` (in family `birealnet` that is the competitor's own),
    `ir-net`, `reste`, `biper`, `biper-f30` or `sign`; for ablations ReCU as `recu-centred`, `recu-unstandardised`,
    `recu-b1` or `recu-b4`."""
    sync_batch_norm: bool = False
    """BatchNorm sees the whole batch however many devices share it, as on one."""

    @model_validator(mode="after")
    def _check_together(self) -> Hyperparameters:
        if self.tau_min > self.tau_max:
            raise ValueError(f"tau_min ({self.tau_min}) must not exceed tau_max ({self.tau_max})")
        if self.lr_type == "step" and not self.lr_decay_step:
            raise ValueError("lr_type 'step' needs lr_decay_step: the epochs at which the rate falls")
        if self.sync_batch_norm and self.replicas > 1:
            raise ValueError(f"sync_batch_norm normalises the whole batch, replicas {self.replicas} parts: choose one")
        if self.warm_up:
            try:
                check_warm_up(self.lr_type)
            except ConfigError as error:
                raise ValueError(str(error)) from error  # so that the message begins with file and key
        return self


_VALUES: dict[str, Any] = {
    name: Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    for name, field in Hyperparameters.model_fields.items()
}
"""What each hyper-parameter may be."""
_once = AfterValidator(partial(check_once, what="value"))

HyperparameterOverrides = create_model(  # type: ignore[call-overload]
    "HyperparameterOverrides",
    __base__=Block,
    __doc__="Any of the hyper-parameters; those left out keep the value of the layer below.",
    **{
        name: (
            _VALUES[name],
            Field(default=None, description=field.description),
        )
        for name, field in Hyperparameters.model_fields.items()
    },
)


Sweep = create_model(  # type: ignore[call-overload]
    "Sweep",
    __base__=Block,
    __doc__="Any of the hyper-parameters, each with a list of values.",
    **{
        name: (
            Annotated[tuple[_VALUES[name], ...], Field(min_length=1, max_length=1000), _once],  # type: ignore[valid-type]
            Field(default=(), description=field.description),
        )
        for name, field in Hyperparameters.model_fields.items()
    },
)


class Method(Block):
    """A named way to train a network, e.g. vanilla or finetune."""

    description: Line
    """One sentence for tables and docs."""
    published_as: Name | None = None
    """Training method of params/published.yaml that this one is compared with; null for none."""
    reconstruction: bool = False
    """True where the authors publish no recipe, so that every table must say so."""
    hyperparameters: HyperparameterOverrides = Field(default_factory=HyperparameterOverrides)
    """What the method changes."""


class Defaults(Block):
    """params/defaults.yaml."""

    recipe_version: Annotated[int, Field(ge=1)]
    """Raised when a change of code changes results, so that everything is trained again."""
    hyperparameters: Hyperparameters
    """The recipe of family cifar, which the others change."""
    families: dict[Family, HyperparameterOverrides] = {}
    """What the paper's recipe for a network family changes."""
    methods: Annotated[dict[Name, Method], AfterValidator(partial(check_apart, what="method"))]
    """By name."""

    def recipe(self, family: Family) -> dict[str, Any]:
        """The hyper-parameters of a network family before any method, suite or option, JSON-compatible."""
        changes = self.families.get(family, HyperparameterOverrides())
        recipe: dict[str, Any] = self.hyperparameters.model_dump(mode="json")
        return recipe | changes.model_dump(mode="json", exclude_unset=True)


class Archive(Block):
    """A published file a dataset is made from."""

    url: Address
    """Where to download it."""
    filename: Name
    """As it is stored."""
    checksum: Annotated[str, Field(pattern=r"^(md5|sha256):[0-9a-f]+$")]
    """`md5:` or `sha256:` and the digits."""
    size_bytes: Annotated[int, Field(ge=1)] | None = None
    """Bytes; null where not known."""


class Dataset(Block):
    """One entry of params/datasets.yaml."""

    title: Line
    """How tables call it."""
    kind: KindChoice
    """Which preparation reads it; see `recu.experiment.dataset_kinds`."""
    family: Family
    """Network family a model name stands for on this dataset unless a row says otherwise."""
    num_classes: Annotated[int, Field(ge=2, le=1_000_000)]
    """Classes."""
    image_size: Annotated[int, Field(ge=8, le=4096)]
    """Side of the square network input, in pixels."""
    train_images: Annotated[int, Field(ge=1)] | None = None
    """Expected number; null where any number is right."""
    test_images: Annotated[int, Field(ge=1)] | None = None
    """As `train_images`."""
    mean: tuple[Share, Share, Share]
    """Per channel (red, green, blue), of pixel values scaled to [0, 1]: of values up to 255, divide by 255."""
    std: tuple[Spread, Spread, Spread]
    """Per channel, likewise."""
    augmentation: AugmentationName
    """Training augmentation; see `recu.data.load.augmentation`."""
    test_view: TestView | None = None
    """How test images are seen; null for `resize_centre` where the augmentation cuts out parts, else `resize`."""
    published_as: Line | None = None
    """Dataset name in params/published.yaml; null where nothing published is comparable."""
    archives: tuple[Archive, ...] = ()
    """Files to download, in the order in which preparation reads them."""
    obtain: Advice = ""
    """What to do where the files cannot be downloaded by this program."""

    def identity(self) -> dict[str, Any]:
        """The fields that change what a network learns, or how it is measured; JSON-compatible."""
        fields = {"kind", "num_classes", "image_size", "mean", "std", "augmentation"}
        return self.model_dump(mode="json", include=fields) | {"test_view": self.seen_as}

    @property
    def seen_as(self) -> TestView:
        """How test images are seen, whatever a training's augmentation."""
        return self.test_view or ("resize_centre" if self.augmentation in CROP_SCALES else "resize")


Datasets = Annotated[dict[Name, Dataset], AfterValidator(partial(check_apart, what="dataset"))]
"""params/datasets.yaml."""


class Row(Block):
    """One network of a suite, with what it changes for itself."""

    model: ModelChoice
    """Network."""
    family: Family | None = None
    """Defaults to the dataset's."""
    variant: Name | None = None
    """Form of the network where there are several: 2021-03 for the one first published; null for the later."""
    dataset: Name | None = None
    """Defaults to the suite's."""
    name: Name | None = None
    """Tells the row from others of the same network and dataset, in ids, tables and targets. A row with a name is
    compared with what is published for a row of this name alone."""
    sweep: Sweep = Field(default_factory=Sweep)
    """Lists of values by hyper-parameter: one row for each combination, named by them."""
    only: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    """Methods of the suite this row takes part in; null for all."""
    hyperparameters: HyperparameterOverrides = Field(default_factory=HyperparameterOverrides)
    """What this row changes."""
    methods: dict[Name, HyperparameterOverrides] = {}
    """What this row changes of a method."""

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.model}+{self.name}" if self.name else self.model


class Suite(Block):
    """One file of params/suites/: a grid of rows, methods and seeds that ends in one table."""

    title: Line
    """Over its table."""
    description: Line
    """Below the title."""
    dataset: Name
    """Of every row that names none."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(partial(check_once, what="seed"))]
    """One training of each row and method a seed."""
    hyperparameters: HyperparameterOverrides = Field(default_factory=HyperparameterOverrides)
    """What the suite changes."""
    methods: Annotated[dict[Name, HyperparameterOverrides], Field(min_length=1)]
    """Which methods, by name, and what the suite changes of each."""
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]
    """Networks, in table order."""
    diagnostics: bool = True
    """Measure the binary layers after each epoch (docs/diagnostics.md), which changes no result and makes nothing run
    again."""


class ReleasedFile(Block):
    """A checkpoint file that somebody released, and what is claimed of it."""

    name: Name
    """Its place in every folder and table."""
    path: Annotated[UserPath, AfterValidator(check_filled)]
    """The file, relative to the project directory; made by this program or the authors'."""
    model: Name
    """Network."""
    family: Family | None = None
    """Defaults to the dataset's. The variant is recognised from the file's keys."""
    stage: Annotated[Stage, BeforeValidator(whole)] | None = None
    """What the network binarises: 0 nothing, 1 activations only, 2 activations and weights; null where the file itself
    or its tensors say."""
    binariser: BinariserName | None = None
    """What binarises, as in a recipe; null for what the file itself says, and for `recu` where it says nothing."""
    dataset: Name | None = None
    """Measured on its test split; defaults to the suite's."""
    method: Name
    """Training method as params/published.yaml names it, e.g. vanilla."""
    claimed_top1: Annotated[float, Field(ge=0, le=100)]
    """Percent, as stated by whoever released the file."""
    claimed_on: Name | None = None
    """Dataset of the claim; null where it is the published one of `dataset`."""
    batch_size_test: Annotated[int, Field(ge=1)] | None = None
    """Images per evaluation step; null for that of params/defaults.yaml. Does not change results beyond rounding."""
    obtain: Annotated[Advice, AfterValidator(check_filled)]
    """Where to get the file, said wherever it is missing."""


class ReleasedSuite(Block):
    """A file of params/suites/ that trains nothing: released checkpoint files to be measured, ending in one table.

    Told apart from a `Suite` by its key `files`.
    """

    title: Line
    """Over its table."""
    description: Line
    """Below the title."""
    dataset: Name
    """Of every file that names none."""
    files: Annotated[tuple[ReleasedFile, ...], Field(min_length=1)]
    """In table order."""

    @model_validator(mode="after")
    def _check_names(self) -> ReleasedSuite:
        check_apart(check_once([file.name for file in self.files], "file name"), "file name")
        return self


class PublishedElsewhere(Block):
    """Another number for a published result."""

    top1: Annotated[float, Field(ge=0, le=100)]
    """Percent."""
    source: Line
    """Where it stands, and how it differs."""


class PublishedResult(Block):
    """One published number."""

    dataset: Line | None = None
    """As `published_as` of a dataset names it; null where the source does not say."""
    model: Line | None = None
    """Network; null where the source does not say."""
    family: Family | None = None
    """Of the network; null for any."""
    stage: Annotated[Stage, BeforeValidator(whole)] | None = None
    """What the network binarises, as in a recipe."""
    binariser: Line = USUAL
    """Likewise."""
    method: Line
    """As `published_as` of a method names it."""
    row: Name | None = None
    """Name of a suite's row, for a variation of the method as in an ablation; null for the method itself."""
    batch_size: int | None = None
    """Training images a step; null where not stated."""
    batch_size_test: int | None = None
    """Test images a step; null where not stated."""
    epochs: int | None = None
    """Passes over the training images; null where not stated."""
    top1: Annotated[float, Field(ge=0, le=100)] | None
    """Percent; null where the number is published and could not be read anywhere: tables say that it is not quoted."""
    top5: Annotated[float, Field(ge=0, le=100)] | None = None
    """Percent; null where not stated."""
    augmentation: Augmentation | None = None
    """Training augmentation where it is not the dataset's."""
    source: Line
    """Where it stands."""
    elsewhere: tuple[PublishedElsewhere, ...] = ()
    """Other numbers for the same; tables show them, and no verdict rests on them."""


class PublishedData(Block):
    """How the runs behind the published numbers saw a dataset; what is left out is not compared."""

    num_classes: int | None = None
    """Classes."""
    image_size: int | None = None
    """Side of the network input, in pixels."""
    test_images: int | None = None
    """Number."""
    mean: tuple[float, float, float] | None = None
    """Per channel, of pixel values scaled to [0, 1]."""
    std: tuple[float, float, float] | None = None
    """Per channel, likewise."""
    augmentation: Augmentation | None = None
    """Of training images."""
    test_view: TestView | None = None
    """Of test images."""


class Published(Block):
    """params/published.yaml."""

    data: dict[Line, PublishedData] = {}
    """By published name of the dataset."""
    results: tuple[PublishedResult, ...]
    """In table order."""


class Comparison(Block):
    """Trainings of one suite that a claim says are better than others of it."""

    suite: Name
    """Whose results are compared."""
    better: Line
    """Ids of the better ones below the suite, `DATASET/NETWORK/METHOD/seedN` with `*` for anything."""
    than: Line
    """Ids of the others, likewise; compared seed by seed."""
    what: Advice
    """Both in words, as in "finetune against vanilla"."""


class Claim(Block):
    """What a publication claims, and how it is tested."""

    name: Name
    """Short, for links."""
    claim: Advice
    """In our own words."""
    source: Advice
    """Where it is made."""
    test: Advice
    """How it is tested here."""
    published_numbers: bool = False
    """Whether it is that of params/published.yaml, whose every number is one comparison."""
    comparisons: tuple[Comparison, ...] = ()
    """Each gives a verdict."""
    undecided: Advice = ""
    """What of it cannot be decided yet, and why."""


class Claims(Block):
    """params/claims.yaml."""

    claims: tuple[Claim, ...]
    """In order."""


class WorkflowConfig(Block):
    """params/config.yaml: what to run and where. Only `teacher_weights` changes results, and its content is part of the
    experiments that it teaches."""

    suites: Annotated[
        tuple[Name, ...],
        Field(min_length=1),
        BeforeValidator(_as_list, json_schema_input_type=Name | tuple[Name, ...]),
        AfterValidator(partial(check_apart, what="suite")),
    ]
    """Names of files under params/suites/ (one, or a list)."""
    data_dir: Annotated[UserPath, AfterValidator(check_filled)]
    """Prepared datasets."""
    results_dir: Annotated[UserPath, AfterValidator(check_filled), AfterValidator(_without_braces)]
    """What rules produce."""
    runs_dir: Annotated[UserPath, AfterValidator(check_filled)]
    """Resumable state of trainings; never a declared output."""
    reports_dir: Annotated[UserPath, AfterValidator(check_filled), AfterValidator(_without_braces)]
    """Tables and figures."""
    tracking_uri: Annotated[
        str,
        BeforeValidator(empty_as_text),
        AfterValidator(check_printable),
        AfterValidator(_check_store_address),
        AfterValidator(check_store_address),
    ]
    """MLflow store, without password; empty for none. MLFLOW_TRACKING_URI in the environment wins."""
    sources: Annotated[dict[Name, UserPath], BeforeValidator(_empty_as_mapping)] = {}
    """Local archive or folder by dataset, in place of a download."""
    gpus: Annotated[str, BeforeValidator(_gpus_as_text), AfterValidator(_check_gpus)] = Running.gpus
    """Device ids as for --gpus; empty chooses by itself."""
    gpus_per_training: Annotated[int, Field(ge=0, le=MOST_PROCESSES), BeforeValidator(text_as_number)] = (
        Running.processes
    )
    """Devices that share each training, as for --processes; 0 for those that gpus names, or one."""
    teacher_weights: Annotated[UserPath, BeforeValidator(empty_as_text)] = ""
    """Local file with the published weights of the torchvision teacher, in place of a download; its SHA-256 is part of
    the experiments that it teaches."""
    workers: Annotated[int, Field(ge=0, le=MOST_PROCESSES), BeforeValidator(text_as_number)] = Running.workers
    """Loader processes of one job, for datasets that are not held in memory."""
    kernels: Annotated[Kernels, BeforeValidator(_switch_as_text, json_schema_input_type=Kernels | Literal[False])] = (
        Running.kernels
    )
    """Fast forms of the layers: `auto` takes each that fits, `off` none; the results are equal but for rounding."""
    preload: Annotated[bool, BeforeValidator(text_as_switch)] = False
    """Whether jobs on this machine are forks of one process that has imported everything: for many small ones."""
    packed: Annotated[bool, BeforeValidator(text_as_switch)] = False
    """Whether every best checkpoint is exported as a packed file too (results/export/), and tables list its size."""
    benchmark: Annotated[bool, BeforeValidator(text_as_switch)] = False
    """Whether the speed of those files is measured, too (results/speed/), and tables list it; includes `packed`."""
    keep_resumable: Annotated[bool, BeforeValidator(text_as_switch)] = Running.keep_resumable
    """Whether finished trainings keep the state needed to train for more epochs, six to fifteen times their weights."""
