"""What the jobs of a workflow with `preload: true` are forks of."""

import subprocess
import sys

import pytest

from recu.experiment.paths import PROJECT_DIR

pytestmark = pytest.mark.processes

CODE = """
import os, sys, torch
from recu.cli import preload
threads = torch.get_num_threads()
preload._load()
assert torch.get_num_threads() == threads
# What loading machine code and opening a database import, each of which took a fork half a second.
for name in ("numba.np.arraymath", "sqlalchemy.dialects.sqlite", "alembic.command", "recu.models.cifar"):
    assert name in sys.modules, name
from recu.tracking.client import import_mlflow
import_mlflow("sqlite:")
from mlflow.store.db.utils import _get_latest_schema_revision
assert _get_latest_schema_revision.cache_info().currsize == 1
# Validators, which take a tenth of a small evaluation to make.
from recu.experiment.schema import Dataset, Hyperparameters
from recu.results.records import Provenance
assert Dataset.__pydantic_complete__ and Hyperparameters.__pydantic_complete__ and Provenance.__pydantic_complete__
loaded = len(sys.modules)
child = os.fork()
if not child:
    from recu.models.checks import check_binariser
    torch.set_num_threads(2)  # threads of its own, which the process that forked must not have begun
    check_binariser("recu")
    os._exit(0 if len(sys.modules) == loaded else 7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_has_all_that_a_training_loads_and_computes_with_threads_of_its_own():
    done = subprocess.run([sys.executable, "-c", CODE], cwd=PROJECT_DIR, timeout=500, check=False)
    assert done.returncode == 0
