"""The work folder of a long job: where it resumes, and how it refuses progress of another job.

<work>/lock               held while a process is at work in the folder
<work>/fingerprint.json   what the result depends on: settings, hashes of code, data and models
<work>/attempts.json      how often the job was begun from the present state of progress
<work>/checkpoint.pt      the last checkpoint of a training; other jobs keep files of their own

Snakemake deletes what a rule declares before every attempt; so this folder is declared nowhere.
"""

import contextlib
import json
import os
import shutil
import time
from pathlib import Path

from filelock import FileLock, Timeout

from gen4det.core.errors import BusyError, InputError
from gen4det.core.provenance import atomic_write, write_json
from gen4det.training import processes

FRUITLESS_ATTEMPTS = 2
"""Attempts with equally much memory that may begin at the same iteration; the next one is refused."""
SAVE_SECONDS = 20.0
"""Least time between two checkpoints."""
SAVE_SHARE = 0.02
"""Largest share of the time that checkpoints may take."""


class WorkFolder:
    """Folder of one job in progress.

    As a context manager it holds a lock, so that two jobs never work in the same folder:

        with WorkFolder(output.parent / "work", fingerprint) as work:
            state = work.take()           # None at first, then what the last attempt saved
            if work.is_due:
                work.save({"iteration": 10, ...})
            work.remove()                 # once the result is written

    Of several processes that train together all enter it; the first does the work, the others get its state.

    Args:
        path: the folder; created if need be.
        fingerprint: everything the result depends on, JSON-serialisable. Its keys are named in errors, so
            they are words: "settings", "code", "dataset".
        doing: what the job does, for errors.
        keeps: pattern of the files that hold progress. Where there are none, nothing is refused: what else
            lies in the folder (caches) is removed if it was begun with another fingerprint.
        limit_attempts: refuse attempts that keep dying before the next checkpoint. One that has more memory
            than all before it (a scheduler's retry) is none of them.

    Raises:
        InputError: (on entering) the folder holds progress made with another fingerprint, another process is
            at work in it, its checkpoint is damaged, or attempts to go on from it keep failing.
    """

    def __init__(
        self,
        path: str | Path,
        fingerprint: dict,
        *,
        doing: str = "training",
        keeps: str = "checkpoint.pt",
        limit_attempts: bool = True,
    ):
        self.path = Path(path)
        self.fingerprint = json.loads(json.dumps(fingerprint))  # as it will be read: no tuples, no Paths
        self.doing, self.keeps, self.limit_attempts = doing, keeps, limit_attempts
        self.state: dict | None = None
        """What the last attempt saved; None if nothing was."""
        self._checkpoint = self.path / "checkpoint.pt"
        self._attempts = self.path / "attempts.json"
        self._stack = contextlib.ExitStack()
        self._last_save, self._save_took = 0.0, 0.0

    def __enter__(self) -> "WorkFolder":
        refusal = None
        if processes.is_first():
            try:
                self._begin()
            except InputError as error:
                refusal = str(error)
        refusal, self.state = processes.from_first((refusal, self.state))
        if refusal:
            raise InputError(refusal)
        self._last_save = time.monotonic()
        return self

    def _begin(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(FileLock(self.path / "lock", timeout=0))
            except Timeout:
                raise BusyError(f"{self.path}: another process is {self.doing} in this folder") from None
            self._check_fingerprint()
            self.state = self._load()
            if self.limit_attempts:
                self._begin_attempt()
            self._stack = stack.pop_all()

    def __exit__(self, kind, value, traceback) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt) and processes.is_first():
            self._attempts.unlink(missing_ok=True)  # it did not fail, someone changed their mind
        self._stack.close()

    def _check_fingerprint(self) -> None:
        path = self.path / "fingerprint.json"
        found = json.loads(path.read_bytes()) if path.exists() else {}
        different = sorted(
            key for key in found | self.fingerprint if found.get(key) != self.fingerprint.get(key)
        )
        if different and any(self.path.glob(self.keeps)):
            raise InputError(
                f"{self.path}: begun with other {', '.join(different)}; delete this folder to begin anew, or "
                "go back to what it was begun with"
            )
        if different or not path.exists():
            self._clear()  # attempts at something else, and what they had computed of it
            write_json(path, self.fingerprint, indent=1)

    def _clear(self) -> None:
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()

    def _load(self) -> dict | None:
        if not self._checkpoint.exists():
            return None
        import torch

        try:
            return torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling fails in many ways; all mean the same to the user
            raise InputError(
                f"{self._checkpoint}: damaged checkpoint; delete {self.path} to begin anew"
            ) from error

    def _begin_attempt(self) -> None:
        before = json.loads(self._attempts.read_bytes()) if self._attempts.exists() else {}
        memory = memory_limit()
        same = before.get("iteration") == self.iteration
        more = memory is not None and memory > (before.get("memory_mib") or memory)
        attempts = before.get("attempts", 0) if same and not more else 0
        if attempts >= FRUITLESS_ATTEMPTS:
            raise InputError(
                f"{self.path}: {attempts} attempts began at iteration {self.iteration} and reached no new "
                f"checkpoint; see their logs (memory? time limit?), then delete {self._attempts} to try again"
            )
        write_json(
            self._attempts, {"iteration": self.iteration, "attempts": attempts + 1, "memory_mib": memory}
        )

    # --- checkpoints ----------------------------------------------------------------------------------

    @property
    def iteration(self) -> int:
        """Finished iterations of the last checkpoint."""
        return 0 if self.state is None else self.state["iteration"]

    def take(self) -> dict | None:
        """What the last attempt saved, handed out once: it is as large as the model and its optimiser."""
        state, self.state = self.state, self.state and {"iteration": self.iteration}
        return state

    @property
    def is_due(self) -> bool:
        """Whether the last checkpoint is so old that it is time for another."""
        return time.monotonic() - self._last_save > max(SAVE_SECONDS, self._save_took / SAVE_SHARE)

    def save(self, state: dict) -> None:
        """Replace the checkpoint atomically (first process only; nothing happens in the others).

        Args:
            state: tensors and plain values; "iteration" says how many are finished.
        """
        import torch

        if processes.is_first():
            started = time.monotonic()
            with atomic_write(self._checkpoint) as temporary:
                torch.save(state, temporary)
            self._last_save = time.monotonic()
            self._save_took = self._last_save - started
        self.state = {"iteration": state["iteration"]}

    def remove(self) -> None:
        """The job is finished and its result written: nothing here is needed any more."""
        if processes.is_first():
            shutil.rmtree(self.path)


def memory_limit() -> int | None:
    """MiB of memory that a scheduler grants this job; None where nothing limits it.

    What Slurm says in SLURM_MEM_PER_NODE; elsewhere the limit of the control group (version 2).
    """
    said = os.environ.get("SLURM_MEM_PER_NODE", "")
    if said.isdigit() and int(said) > 0:
        return int(said)
    limits = []
    with contextlib.suppress(OSError):  # no Linux, or other control groups: then nobody says
        own = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2]
        group = Path("/sys/fs/cgroup", own.lstrip("/"))
        for folder in (group, *group.parents):
            limit = folder / "memory.max"
            if limit.is_file() and (text := limit.read_text().strip()) != "max":
                limits.append(int(text) >> 20)
    return min(limits, default=None)
