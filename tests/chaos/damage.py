"""Files that were cut short or had a bit flipped: recognised, and never taken for whole."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from PIL import Image

from recu.data import read_manifest
from recu.experiment import paths
from recu.experiment.resolving import load_experiments
from recu.training.checkpoint import previous_of
from tests.chaos import forking
from tests.chaos.kills import finish
from tests.chaos.laboratory import Laboratory, commands
from tests.chaos.ledger import Ledger

_READABLE_REFUSAL = 2
_ALTERED = 4


def damage(file: Path, rng: random.Random) -> str:
    """Cut `file` short or flip one of its bits; says what was done."""
    content = bytearray(file.read_bytes())
    if rng.random() < 0.5:
        length = rng.randrange(len(content))
        file.write_bytes(content[:length])
        return f"{file.name} cut to {length} of {len(content)} bytes"
    position, bit = rng.randrange(len(content)), rng.randrange(8)
    content[position] ^= 1 << bit
    file.write_bytes(content)
    return f"{file.name} with bit {bit} of byte {position} flipped"


def damaged_checkpoints(lab: Laboratory, ledger: Ledger, times: int, rng: random.Random) -> None:
    """Damage the checkpoint of a training in its middle; the one before it must lead to the same end."""
    stage = lab.stages["train"]
    for _ in range(times):
        place = stage.fresh()
        file = lab.state(place) / paths.CHECKPOINT
        while not previous_of(file).exists():
            forking.run(stage.action(place), kill_after=rng.uniform(0.3, 0.9) * stage.seconds)
        if not file.exists():
            previous_of(file).rename(file)  # killed between the two renames
            shutil.copy(file, previous_of(file))
        what = damage(file, rng)
        problem = finish(lab, stage, place)
        ledger.add("damaged checkpoint of a running training", problem and f"{what}: {problem}")
        lab.drop(place)


def damaged_results(lab: Laboratory, ledger: Ledger, times: int, rng: random.Random) -> None:
    """Damage a published checkpoint or metrics.json: evaluation refuses it, publishing again mends it."""
    train, evaluate = lab.stages["train"], lab.stages["evaluate"]
    for _ in range(times):
        place = evaluate.fresh()
        shutil.copytree(lab.reference.runs, place.runs)
        name = rng.choice((paths.BEST_CHECKPOINT, paths.METRICS))
        what = damage(paths.train_folder(place.results, lab.experiment.id) / name, rng)
        ended = forking.run(evaluate.action(place))
        problem = ended.problem(_READABLE_REFUSAL) or finish(lab, train, place) or finish(lab, evaluate, place)
        ledger.add("damaged published training", problem and f"{what}: {problem}")
        lab.drop(place)


def damaged_archives(lab: Laboratory, ledger: Ledger, times: int, rng: random.Random) -> None:
    """Damage the archive: it is refused, or what was prepared is the same; the whole archive then works."""
    stage = lab.stages["prepare"]
    for _ in range(times):
        place = stage.fresh()
        archive = place.folder / lab.archive.name
        shutil.copy(lab.archive, archive)
        what = damage(archive, rng)
        ended = forking.run(commands(lab.prepare_command(place, archive)))
        problem = ended.problem(0, _READABLE_REFUSAL) or stage.half_done(place)
        if problem is None and ended.code == 0:
            fingerprints = [read_manifest(data / "tiny").fingerprint for data in (place.data, lab.data)]
            problem = None if fingerprints[0] == fingerprints[1] else "other images were taken for these"
        archive.unlink()
        problem = problem or finish(lab, stage, place)
        ledger.add("damaged image archive", problem and f"{what}: {problem}")
        lab.drop(place)


def damaged_images(lab: Laboratory, ledger: Ledger, times: int, rng: random.Random) -> None:
    """Damage one image of a folder: it is refused, or what was prepared is known as other data."""
    stage = lab.stages["prepare"]
    wanted = read_manifest(lab.data / "tiny").fingerprint
    for _ in range(times):
        place = stage.fresh()
        source = Path(shutil.copytree(lab.folder / "images", place.folder / "images"))
        file = rng.choice(sorted(source.rglob("*.png")))
        whole = _pixels(file)
        what = damage(file, rng)
        ended = forking.run(commands(lab.prepare_command(place, source)))
        problem = ended.problem(0, _READABLE_REFUSAL) or stage.half_done(place)
        same = ended.code == 0 and read_manifest(place.data / "tiny").fingerprint == wanted
        # A bit behind the last pixel, of a checksum say, leaves the image what it was.
        if problem is None and same and _pixels(file) != whole:
            problem = "a damaged image was taken for the whole one"
        problem = problem or finish(lab, stage, place)
        ledger.add("damaged image file", problem and f"{what}: {problem}")
        lab.drop(place)


def _pixels(file: Path) -> bytes | None:
    """None where it is no image any more."""
    try:
        with Image.open(file) as image:
            return image.convert("RGB").tobytes()
    except Exception:  # whatever Pillow makes of it
        return None


def damaged_prepared_data(lab: Laboratory, ledger: Ledger, times: int, rng: random.Random) -> None:
    """Cut prepared data short: training refuses it, preparing again mends it."""
    stage = lab.stages["prepare"]
    for _ in range(times):
        place = stage.fresh()
        shutil.copytree(lab.data, place.data)
        file = rng.choice([*sorted((place.data / "tiny").glob("*.npy")), place.data / "tiny" / paths.MANIFEST])
        length = rng.randrange(file.stat().st_size)
        file.write_bytes(file.read_bytes()[:length])
        refused = forking.run(commands(lab.train_command(place))).problem(_READABLE_REFUSAL)
        problem = refused or finish(lab, stage, place)
        ledger.add("prepared data cut short", problem and f"{file.name} cut to {length} bytes: {problem}")
        lab.drop(place)


def altered_prepared_data(lab: Laboratory, ledger: Ledger, times: int, rng: random.Random) -> None:
    """Flip one bit of prepared data: `recu verify` names the file; preparing again mends it."""
    stage = lab.stages["prepare"]
    for _ in range(times):
        place = stage.fresh()
        shutil.copytree(lab.data, place.data)
        file = rng.choice(sorted((place.data / "tiny").glob("*.npy")))
        content = bytearray(file.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
        ended = forking.run(commands(_verify_command(lab, place.data)))
        problem = ended.problem(_ALTERED)
        if problem is None and f"{file} is no longer what was prepared" not in ended.output:
            problem = f"{file.name} was not named: {ended.output}"
        problem = problem or finish(lab, stage, place)
        ledger.add("prepared data with a bit flipped", problem and f"{file.name}: {problem}")
        lab.drop(place)


def damaged_params(lab: Laboratory, ledger: Ledger, times: int, rng: random.Random) -> None:
    """Damage a file under params/: a readable refusal, or other parameters that nothing published is taken for."""
    kept = {file: file.read_bytes() for file in lab.params.rglob("*.yaml")}
    chosen = [lab.params / name for name in ("config.yaml", "defaults.yaml", "datasets.yaml", "suites/chaos.yaml")]
    for _ in range(times):
        file = rng.choice(chosen)
        what = damage(file, rng)
        ended = forking.run(commands(_verify_command(lab, lab.data)))
        problem = ended.problem(0, _READABLE_REFUSAL, _ALTERED)
        file.write_bytes(kept[file])
        (again,) = load_experiments(lab.params, ("chaos",)).values()
        problem = problem or (None if again == lab.experiment else "the mended file gives another experiment")
        ledger.add("damaged params file", problem and f"{what}: {problem}")


def _verify_command(lab: Laboratory, data: Path) -> list[str]:
    places = ["--results_dir", str(lab.reference.results), "--reports_dir", str(lab.reference.reports)]
    return ["verify", "chaos", "--params_dir", str(lab.params), "--data_dir", str(data), *places]
