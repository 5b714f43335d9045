"""A training as a process of its own, to be killed: `python -m tests.unit.training.training_process FOLDER`."""

import sys
from pathlib import Path

import torch

from recu.base.errors import Interrupted
from recu.base.signals import stop_on_signals
from recu.experiment import paths
from recu.training.checkpoint import load_latest
from tests.unit.training.tiny import tiny_loaders, tiny_trainer


def run(folder: Path, pause: float) -> int:
    torch.set_num_threads(1)
    trainer = tiny_trainer(folder, tiny_loaders(pause=pause), save_every_seconds=0, epochs=6)
    checkpoint = load_latest(folder / paths.CHECKPOINT)
    if checkpoint is not None:
        trainer.continue_from(checkpoint)
    with stop_on_signals() as stop:
        print("running", flush=True)
        try:
            trainer.run(stop)
        except Interrupted as error:
            print(error)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), float(sys.argv[2])))
