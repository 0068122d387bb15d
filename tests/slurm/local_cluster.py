"""A real Slurm on this machine: controller, two nodes, accounting; all on loopback, all below one folder.

    taskset -c 1 python tests/slurm/local_cluster.py up FOLDER      and look around: sinfo, squeue, sacct
    python tests/slurm/local_cluster.py down FOLDER

Needs root and Debian's packages (`PACKAGES`; `make test-slurm` installs them). There are no cgroups in a
container, so processes are tracked by /proc and memory is enforced by looking every two seconds. GPUs are
device files that do nothing: Slurm counts them and hands out their numbers.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = (
    "slurmctld", "slurmd", "slurm-client", "munge", "slurmdbd", "mariadb-server-core", "mariadb-client-core",
)  # fmt: skip
PROGRAMS = (
    "slurmctld",
    "slurmd",
    "sbatch",
    "munged",
    "slurmdbd",
    "mariadbd",
    "mariadb-install-db",
    "mariadb",
)
PATHS = "/usr/sbin:/usr/bin:/sbin:/bin"
MARK = "# written by the tests of the Slurm profile\n"
GPUS = ("/dev/null", "/dev/zero")
"""Slurm accepts a GPU only with a device file."""
PORT = 16817
NODES = {"cpu1": PORT + 4, "gpu1": PORT + 5}

SLURM_CONF = """\
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=slurm
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd-%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
PropagateResourceLimits=NONE
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,bf_interval=5
DefMemPerCPU=500
KillWait=5
MessageTimeout=5
MinJobAge=300
SlurmdTimeout=60
ReturnToService=2
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd_port}
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
GresTypes=gpu
NodeName=cpu1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={cpu1} CPUs=4 RealMemory=8000
NodeName=gpu1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={gpu1} CPUs=4 RealMemory=8000 Gres=gpu:{gpus}
PartitionName=cpu Nodes=cpu1 Default=YES DefaultTime=60 MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=gpu1 Default=NO  DefaultTime=60 MaxTime=INFINITE State=UP
"""
SLURMDBD_CONF = """\
AuthType=auth/munge
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd_port}
CommunicationParameters=NoInAddrAny
SlurmUser=slurm
PidFile={root}/run/slurmdbd.pid
LogFile={root}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={db_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
"""
MARIADB_CONF = """\
[mariadbd]
datadir={root}/mysql/data
socket={root}/mysql/sock
pid-file={root}/run/mariadbd.pid
log-error={root}/log/mariadbd.log
bind-address=127.0.0.1
port={db_port}
skip-name-resolve
skip-log-bin
performance_schema=OFF
key_buffer_size=1M
innodb_buffer_pool_size=32M
innodb_log_file_size=16M
innodb_flush_log_at_trx_commit=0
innodb_lock_wait_timeout=900
"""
DATABASE = """\
CREATE DATABASE IF NOT EXISTS slurm_acct;
CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY 'slurm';
GRANT ALL ON slurm_acct.* TO slurm@'127.0.0.1';
"""


def obstacle() -> str | None:
    """Why no cluster can be started here, in one line; None if it can."""
    if os.geteuid() != 0:
        return "starting a Slurm needs root"
    missing = [program for program in PROGRAMS if shutil.which(program, path=PATHS) is None]
    if missing:
        return f"Slurm is not installed ({', '.join(missing)}); `make test-slurm` installs it on Debian"
    conf = Path("/etc/slurm/slurm.conf")
    if conf.exists() and MARK not in conf.read_text():
        return f"{conf} belongs to another Slurm"
    return None


class LocalCluster:
    """Starts and stops the daemons; each can be stopped alone.

    Args:
        root: folder of state and logs.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.values = {
            "root": self.root,
            "port": PORT,
            "dbd_port": PORT + 2,
            "db_port": PORT + 19,
            "gpus": len(GPUS),
            **NODES,
        }

    # --- all together ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything and wait until both nodes take jobs."""
        self._make_folders()
        self._write_configuration()
        self._start_munge()
        self._start_database()
        self._start_accounting()
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        wait_for(self.is_ready, 60, "nodes that take jobs")

    def stop(self) -> None:
        """End all jobs and daemons that `start` started."""
        if self._pid("slurmctld") is not None:
            self.cancel_all()
        for name in (*(f"slurmd-{node}" for node in NODES), "slurmctld", "slurmdbd", "mariadbd", "munged"):
            self._stop(name)
        for name in ("slurm.conf", "gres.conf", "slurmdbd.conf"):
            path = Path("/etc/slurm", name)
            if path.exists() and MARK in path.read_text():
                path.unlink()

    def cancel_all(self) -> None:
        """End all jobs. Nodes leave their steps running when they stop, so jobs come first."""
        with contextlib.suppress(subprocess.SubprocessError, TimeoutError):
            call("scancel", "--user=root", timeout=20)
            wait_for(lambda: not call("squeue", "--noheader", timeout=20), 60, "the end of all jobs")

    def is_ready(self) -> bool:
        """Whether both nodes take jobs."""
        try:
            states = call("sinfo", "--noheader", "--Node", "--format=%t", timeout=20).split()
        except subprocess.SubprocessError:
            return False
        return len(states) == len(NODES) and set(states) <= {"idle", "mix", "alloc", "comp"}

    # --- parts ------------------------------------------------------------------------------------------

    def start_controller(self) -> None:
        """Start slurmctld."""
        self._daemon("slurmctld")
        wait_for(lambda: succeeds("scontrol", "ping"), 30, "the controller")

    def stop_controller(self) -> None:
        """Stop slurmctld: no command answers, jobs go on."""
        self._stop("slurmctld")

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node."""
        self._daemon("slurmd", "-N", node)

    def stop_node(self, node: str) -> None:
        """Stop the slurmd of a node; what runs on it goes on."""
        self._stop(f"slurmd-{node}")

    def _make_folders(self) -> None:
        for folder in (self.root, *(self.root / "spool" / node for node in NODES), Path("/etc/slurm")):
            folder.mkdir(parents=True, exist_ok=True)
        for parent in (self.root, *self.root.parents):
            parent.chmod(parent.stat().st_mode | 0o055)  # the daemons are other users
        for name in ("run", "log", "state", "mysql"):
            folder = self.root / name
            folder.mkdir(exist_ok=True)
            shutil.chown(folder, "slurm", "slurm")

    def _write_configuration(self) -> None:
        folder = Path("/etc/slurm")
        (folder / "slurm.conf").write_text(MARK + SLURM_CONF.format(**self.values))
        gpus = "".join(f"NodeName=gpu1 Name=gpu File={device}\n" for device in GPUS)
        (folder / "gres.conf").write_text(MARK + gpus)
        accounting = folder / "slurmdbd.conf"
        accounting.write_text(MARK + SLURMDBD_CONF.format(**self.values))
        shutil.chown(accounting, "slurm", "slurm")
        accounting.chmod(0o600)  # slurmdbd insists
        (self.root / "my.cnf").write_text(MARIADB_CONF.format(**self.values))

    def _start_munge(self) -> None:
        if succeeds("munge", "-n", "-o", "/dev/null"):
            return
        Path("/run/munge").mkdir(exist_ok=True)  # nothing makes it at boot in a container
        shutil.chown("/run/munge", "munge", "munge")
        Path("/run/munge").chmod(0o755)
        for left in Path("/run/munge").glob("munge.socket*"):
            left.unlink()
        call("runuser", "-u", "munge", "--", "munged", "--num-threads=2")
        wait_for(lambda: succeeds("munge", "-n", "-o", "/dev/null"), 10, "munge")
        shutil.copy("/run/munge/munged.pid", self.root / "run/munged.pid")

    def _start_database(self) -> None:
        defaults = f"--defaults-file={self.root / 'my.cnf'}"
        if not (self.root / "mysql/data/mysql").is_dir():
            call("runuser", "-u", "slurm", "--", "mariadb-install-db", defaults,
                 "--auth-root-authentication-method=normal", "--skip-test-db")  # fmt: skip
        with open(self.root / "log/mariadbd.out", "a") as log:
            subprocess.Popen(
                ["setpriv", "--reuid=slurm", "--regid=slurm", "--init-groups", "mariadbd", defaults],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment(),
            )  # fmt: skip
        client = ("mariadb", "--no-defaults", "-S", str(self.root / "mysql/sock"), "-u", "root", "-e")
        wait_for(lambda: succeeds(*client, "SELECT 1"), 60, "the database")
        call(*client, DATABASE)

    def _start_accounting(self) -> None:
        self._daemon("slurmdbd")
        wait_for(lambda: succeeds("sacctmgr", "-nP", "show", "cluster"), 30, "slurmdbd")
        for thing in (("cluster", "loopback"), ("account", "default"), ("user", "root", "account=default")):
            call("sacctmgr", "--immediate", "--quiet", "add", *thing, check=False)  # may be there already

    def _daemon(self, *command: str) -> None:
        """Daemons put themselves into the background."""
        with open(self.root / "log" / f"{command[0]}.out", "a") as log:
            subprocess.run(
                command, check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
            )

    def _pid(self, name: str) -> int | None:
        """Process of a daemon by its pid file; None if it is not alive."""
        try:
            pid = int((self.root / "run" / f"{name}.pid").read_text())
            command, _, rest = Path(f"/proc/{pid}/stat").read_text().partition(") ")
        except (OSError, ValueError):
            return None
        is_it = command.endswith("(" + name.partition("-")[0]) and rest[0] not in "ZX"
        return pid if is_it else None

    def _stop(self, name: str) -> None:
        pid = self._pid(name)
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            wait_for(lambda: self._pid(name) is None, 30, f"the end of {name}")


def environment() -> dict[str, str]:
    """Daemons need no more than a path; a terminal's variables would reach the jobs."""
    return {"PATH": PATHS, "LANG": "C.UTF-8"}


def call(*command: str, check: bool = True, timeout: float = 120) -> str:
    """Output of a command.

    Raises:
        CalledProcessError, TimeoutExpired: of subprocess, where `check` is set.
    """
    done = subprocess.run(
        command,
        check=check,
        timeout=timeout,
        text=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(),
    )
    return done.stdout


def succeeds(*command: str) -> bool:
    """Whether a command ends with status 0."""
    try:
        call(*command)
    except subprocess.SubprocessError:
        return False
    return True


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until `condition()` is true.

    Raises:
        TimeoutError: it did not become true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no sign of {what} within {seconds:g} s")
        time.sleep(0.2)


if __name__ == "__main__":
    if reason := obstacle():
        sys.exit(reason)
    action, folder = sys.argv[1:]
    {"up": LocalCluster.start, "down": LocalCluster.stop}[action](LocalCluster(folder))
