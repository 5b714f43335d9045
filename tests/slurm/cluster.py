"""A real Slurm of this machine alone, in a folder: controller, one node and munge, from Debian's packages."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
_CLIENTS = ("sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
_CONFIGURATION = """
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdTimeout=10
{gres_types}
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory={memory} {gres} State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=cancelling Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=CANCEL
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
"""


class Cluster:
    """Slurm, running until `stop`.

    Args:
        folder: for all of its files.
        gpus: fake ones, named by device files that are no GPUs.
    """

    def __init__(self, folder: Path, gpus: int = 0) -> None:
        self.folder, self.host = folder, socket.gethostname().partition(".")[0]
        for name in ("state", "spool", "bin"):
            (folder / name).mkdir(parents=True)
        (folder / "munge.key").write_bytes(os.urandom(64))
        (folder / "munge.key").chmod(0o600)
        files = ",".join(("/dev/null", "/dev/zero")[:gpus])
        (folder / "gres.conf").write_text(f"NodeName={self.host} Name=gpu File={files}\n" if gpus else "")
        (folder / "slurm.conf").write_text(
            _CONFIGURATION.format(
                folder=folder,
                host=self.host,
                ports=_free_ports(2),
                memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 // 2,
                gres_types="GresTypes=gpu" if gpus else "",
                gres=f"Gres=gpu:{gpus}" if gpus else "",
            )
        )
        # The executor's own srun is started without any variable of Slurm's, so that a variable cannot name the file.
        for name in _CLIENTS:
            client = folder / "bin" / name
            client.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which(name)} "$@"\n')
            client.chmod(0o755)
        self._daemon("munged", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket", "--force",
                     f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log",
                     f"--seed-file={folder}/munged.seed")  # fmt: skip
        self._daemon("slurmctld")
        self.start_node()

    def _daemon(self, name: str, *arguments: str) -> None:
        environment = os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf")}
        subprocess.run([_daemon_path(name), *arguments], env=environment, check=True, capture_output=True, timeout=60)

    def start_node(self) -> None:
        """Start the node's daemon and wait until Slurm sees it."""
        self._daemon("slurmd")
        self("scontrol", "update", f"NodeName={self.host}", "State=RESUME")
        until(lambda: "idle" in self("sinfo", "-h", "-o", "%t"), 60)

    def stop_node(self) -> None:
        """As a node that loses its power: all that it runs ends at once, and it is marked as down."""
        _kill(self.folder / "slurmd.pid", 9)
        for process in _processes_of_jobs(self.folder):
            os.kill(process, 9)
        self("scontrol", "update", f"NodeName={self.host}", "State=DOWN", "Reason=lost")

    def __call__(self, *command: str) -> str:
        """The output of one of Slurm's commands."""
        return subprocess.run(
            [self.folder / "bin" / command[0], *command[1:]], capture_output=True, text=True, timeout=60, check=False
        ).stdout

    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}

    def jobs(self, rule: str, *states: str) -> list[str]:
        """Ids of a rule's jobs in these states."""
        lines = self("squeue", "-h", "-t", "all", "-o", "%i %T %k").splitlines()
        return [line.split()[0] for line in lines if line.split()[1] in states and f"rule_{rule}_" in line]

    def shown(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says."""
        words = self("scontrol", "-o", "show", "job", job).split()
        return dict(word.partition("=")[::2] for word in words if "=" in word)

    def preempt(self) -> None:
        """A job of the higher partition that takes the node for a moment."""
        self("sbatch", "-p", "high", "--exclusive", "-t", "1", "-o", "/dev/null", "--wrap", "sleep 1")

    def job_list(self) -> str:
        """What became of every job, once for each time that it ended, in Slurm's words."""
        rows = [
            "| job | workflow of | rule | partition | limit (min) | state | began | ended | exit code |",
            "|---" * 9 + "|",
        ]
        for line in (self.folder / "jobs.txt").read_text().splitlines():
            said = dict(word.partition("=")[::2] for word in line.split() if "=" in word)
            place = Path(said["WorkDir"])
            # A rule's wildcards are a folder of theirs, and not every rule has some.
            logs = list((place / ".snakemake/slurm_logs").glob(f"rule_*/**/{said['JobId']}.log"))
            rule = logs[0].relative_to(place).parts[2].removeprefix("rule_") if logs else "(higher partition)"
            times = (said[name].partition("T")[2] for name in ("StartTime", "EndTime"))
            words = (said["JobId"], place.name, rule, said["Partition"], said["TimeLimit"], said["JobState"], *times)
            rows.append(f"| {' | '.join(words)} | {said['ExitCode']} |")
        return "\n".join(rows)

    def stop(self) -> None:
        self("scancel", "--user", "root")
        for name in ("slurmd", "slurmctld", "munged"):
            _kill(self.folder / f"{name}.pid", 15)


def missing() -> str | None:
    """Why there can be no cluster here; None where there can."""
    absent = [name for name in (*DAEMONS, *_CLIENTS) if _daemon_path(name) is None]
    if absent:
        return f"needs Slurm ({', '.join(absent)}): apt-get install slurmctld slurmd slurm-client munge"
    if os.geteuid():
        return "needs root: Slurm's node daemon starts jobs as other users"
    try:
        here = socket.gethostbyname(socket.gethostname()).startswith("127.")
    except OSError:
        here = False
    return None if here else f"needs the host's name to stand for 127.0.0.1: add {socket.gethostname()} to /etc/hosts"


def until(true, within_s: float):
    """What `true` gives once it is something."""
    deadline = time.monotonic() + within_s
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.3)
    return found


def _daemon_path(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


def _kill(pid_file: Path, number: int) -> None:
    if pid_file.exists():
        pid = int(pid_file.read_text())
        os.kill(pid, number)
        until(lambda: not Path(f"/proc/{pid}").exists(), 30)


def _processes_of_jobs(folder: Path) -> list[int]:
    """Processes of the jobs of the cluster in `folder`, and those that watch over them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name, environment = (process / "comm").read_text(), (process / "environ").read_bytes()
        except OSError:
            continue
        of_a_job = name.startswith("slurmstepd") or b"SLURM_JOB_ID=" in environment
        if of_a_job and f"{folder}/".encode() in environment:
            found.append(int(process.name))
    return found


def _free_ports(count: int) -> list[int]:
    ports = []
    with closing(socket.socket()) as first, closing(socket.socket()) as second:
        for probe in (first, second)[:count]:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    return ports
