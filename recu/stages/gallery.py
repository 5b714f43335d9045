"""What MLflow shows of evaluated trainings only when asked: their figures, and their networks as registered models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from recu.base.files import read_object
from recu.experiment import paths
from recu.results.provenance import package_versions
from recu.results.records import EvaluationRecord, TrainingRecord, read_record
from recu.results.rows import result_row
from recu.stages.trained import read_finished
from recu.tracking.client import connect
from recu.tracking.description import CHECKPOINT_TAG
from recu.tracking.mirror import Mirrored
from recu.tracking.wanted import Folders

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES_TAG, MODEL_TAG = "recu.figures", "recu.model"
"""Of a run whose figures, or whose model, the store has: the SHA-256 of the checkpoint they are of."""
_AGAIN = "evaluate it again"


class Gallery:
    """Adds them to the runs of a store, each once.

    Args:
        tracking_uri: the store, which is there.
        runs: of which some are the evaluations of others.
        figures: whether figures are wanted.
        models: whether models are; each is one more copy of the weights.
    """

    def __init__(self, tracking_uri: str, runs: Iterable[Folders], *, figures: bool, models: bool) -> None:
        self._address, self._client = tracking_uri, connect(tracking_uri)
        self._wanted = [
            (tag, add)
            for tag, add, wanted in ((FIGURES_TAG, self._add_figures, figures), (MODEL_TAG, self._add_model, models))
            if wanted
        ]
        found = {each.results / paths.METRICS: read_object(each.results / paths.METRICS) for each in runs}
        self._evaluations = {said.get(CHECKPOINT_TAG): file for file, said in found.items() if "experiment_id" in said}
        self.not_evaluated = 0
        """Trainings that were passed over."""

    def add(self, folders: Folders, done: Mirrored) -> None:
        """Give a mirrored run what it lacks, where it is an evaluated training.

        Raises:
            RecuError: its results are damaged. mlflow.exceptions.MlflowException, OSError: the store fails.
        """
        content = read_object(folders.results / paths.METRICS)
        run = self._client.get_run(done.run_id)
        sha256 = content.get(CHECKPOINT_TAG)
        missing = [(tag, add) for tag, add in self._wanted if run.data.tags.get(tag) != sha256]
        if "history" not in content or run.info.status != "FINISHED" or not missing:
            return
        if sha256 not in self._evaluations:
            self.not_evaluated += 1
            return
        record = read_finished(folders.results)
        assert record is not None, "its metrics.json was read above"
        evaluation = read_record(self._evaluations[sha256], EvaluationRecord, again=_AGAIN)
        for tag, add in missing:
            add(folders.results, record, evaluation, run)
            self._client.set_tag(done.run_id, tag, sha256)
            done.sent += 1

    def _add_figures(self, _: Path, record: TrainingRecord, evaluation: EvaluationRecord, run: Any) -> None:
        """PNG files below figures/ of the run's artifacts."""
        from recu.report import figures

        with TemporaryDirectory() as place:
            for name, draw in _drawings(record, evaluation).items():
                Path(place, f"{name}.png").write_bytes(figures.png(draw))
            self._client.log_artifacts(run.info.run_id, place, "figures")

    def _add_model(self, folder: Path, record: TrainingRecord, evaluation: EvaluationRecord, run: Any) -> None:
        """The network of the best epoch, logged, measured and registered."""
        run_id = run.info.run_id
        tags = {name: run.data.tags[name] for name in ("network", "method", "seed", "dataset") if name in run.data.tags}
        tags |= {CHECKPOINT_TAG: record.checkpoint_sha256, "experiment": record.id}
        name = record.id.rpartition("/")[0].replace("/", "-")
        shown, place = (
            name.replace(".", "-"),
            run.info.experiment_id,
        )  # a model's name holds no dot, a registered one's may
        model = self._client.create_logged_model(place, shown, run_id, tags, model_type="classifier")
        try:
            with TemporaryDirectory() as place:
                _save(folder, model, run_id, Path(place) / "model")
                self._client.log_model_artifacts(model.model_id, str(Path(place) / "model"))
            self._measured(model.model_id, run_id, evaluation)
            self._client.finalize_logged_model(model.model_id, "READY")
            self._register(name, model.model_id, run_id, tags)
        except BaseException:
            # The next call makes another one.
            self._client.finalize_logged_model(model.model_id, "FAILED")
            raise

    def _measured(self, model_id: str, run_id: str, evaluation: EvaluationRecord) -> None:
        """Tie the model to its run, with what the evaluation measured."""
        from mlflow.entities import LoggedModelOutput, Metric

        self._client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
        time = self._client.get_run(run_id).info.end_time
        values = {"top1": evaluation.top1, "top5": evaluation.top5, "loss": evaluation.loss, "images": evaluation.n}
        metrics = [Metric(f"evaluation/{name}", value, time, 0, model_id=model_id) for name, value in values.items()]
        self._client.log_batch(run_id, metrics=metrics)

    def _register(self, name: str, model_id: str, run_id: str, tags: dict[str, str]) -> None:
        """One name for a network and method, one version for each training of it."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        with _as_own_store(self._address):
            self._client.create_model_version(name, f"models:/{model_id}", run_id=run_id, tags=tags, model_id=model_id)


@contextmanager
def _as_own_store(address: str) -> Iterator[None]:
    """MLflow looks for a model that is registered in the store of its process, whichever store the client is of."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(address)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def _drawings(record: TrainingRecord, evaluation: EvaluationRecord) -> dict[str, Callable[[], Figure]]:
    """Of what was measured."""
    from recu.report import diagnostic_figures, figures

    row = result_row(record, evaluation)
    draw: dict[str, Callable[[], Figure]] = {"curves": lambda: figures.curves([row], [])}
    if row.confusion is not None:
        draw["classes"] = lambda: figures.classes([row])
    if record.diagnostics:
        draw["weights"] = lambda: diagnostic_figures.layers(record.diagnostics)
        draw["histograms"] = lambda: diagnostic_figures.layer_histograms(record.diagnostics)
    return draw


def _save(folder: Path, model: Any, run_id: str, place: Path) -> None:
    """The network as MLflow's PyTorch flavour has it: the module itself, which takes this package to be loaded."""
    import mlflow.pytorch
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    from recu.stages.predict import load

    classifier = load(folder)
    size, classes = classifier.dataset.image_size, classifier.dataset.num_classes
    images, logits = (TensorSpec(np.dtype("float32"), shape) for shape in ((-1, 3, size, size), (-1, classes)))
    versions = package_versions()
    mlflow.pytorch.save_model(
        classifier.network,
        str(place),
        mlflow_model=Model(
            artifact_path=model.artifact_location, model_uuid=model.model_id, run_id=run_id, model_id=model.model_id
        ),
        signature=ModelSignature(inputs=Schema([images]), outputs=Schema([logits])),
        pip_requirements=[f"recu-repro=={versions['recu']}", f"torch=={versions['torch']}"],
        serialization_format="pickle",
    )
