"""The work folder of a training: where it resumes, and how it refuses what is not its own.

<output folder>/work/fingerprint.json   what the training depends on
<output folder>/work/attempts.json      how often it was begun from the present checkpoint
<output folder>/work/checkpoint.pt      the last checkpoint: tensors and plain values
"""

import contextlib
import fcntl
import json
import shutil
from pathlib import Path

import torch

from gen4det.core.errors import InputError
from gen4det.core.provenance import atomic_write, write_json

FRUITLESS_ATTEMPTS = 2
"""Attempts that may begin at the same iteration; the next one is refused."""


class WorkFolder:
    """Folder of one training in progress.

    As a context manager it holds a lock, so that two jobs never train into the same folder.

    Args:
        path: the folder; created if need be.
        fingerprint: everything the result depends on, JSON-serialisable; keys are named in errors.

    Raises:
        InputError: (on entering) the folder was begun with another fingerprint, another process is at work in
            it, or attempts to go on from its checkpoint keep failing.
    """

    def __init__(self, path: str | Path, fingerprint: dict):
        self.path = Path(path)
        self.fingerprint = fingerprint
        self._checkpoint = self.path / "checkpoint.pt"
        self._attempts = self.path / "attempts.json"
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "WorkFolder":
        self.path.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context(open(self.path / "lock", "w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{self.path}: another process is training in this folder") from None
            self._check_fingerprint()
            self.state = self._load()
            self._begin_attempt()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind, value, traceback) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._attempts.unlink(missing_ok=True)  # it did not fail, someone changed their mind
        self._stack.close()

    def _check_fingerprint(self) -> None:
        path = self.path / "fingerprint.json"
        found = json.loads(path.read_bytes()) if path.exists() else {}
        different = sorted(
            key for key in found | self.fingerprint if found.get(key) != self.fingerprint.get(key)
        )
        if different and self._checkpoint.exists():
            raise InputError(
                f"{self.path}: holds a checkpoint made with other {', '.join(different)}; "
                "delete this folder to train anew, or go back to what it was made with"
            )
        if different:
            self._attempts.unlink(missing_ok=True)  # they were attempts at something else
            write_json(path, self.fingerprint, indent=1)

    def _load(self) -> dict | None:
        if not self._checkpoint.exists():
            return None
        try:
            return torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling fails in many ways; all mean the same to the user
            raise InputError(
                f"{self._checkpoint}: damaged checkpoint; delete {self.path} to train anew"
            ) from error

    def _begin_attempt(self) -> None:
        before = json.loads(self._attempts.read_bytes()) if self._attempts.exists() else {}
        attempts = before.get("attempts", 0) if before.get("iteration") == self.iteration else 0
        if attempts >= FRUITLESS_ATTEMPTS:
            raise InputError(
                f"{self.path}: {attempts} attempts began at iteration {self.iteration} and reached no new "
                f"checkpoint; see their logs (memory? time limit?), then delete {self._attempts} to try again"
            )
        write_json(self._attempts, {"iteration": self.iteration, "attempts": attempts + 1})

    # --- checkpoints ----------------------------------------------------------------------------------

    @property
    def iteration(self) -> int:
        """Finished iterations of the last checkpoint."""
        return 0 if self.state is None else self.state["iteration"]

    def save(self, state: dict) -> None:
        """Replace the checkpoint atomically.

        Args:
            state: tensors and plain values; "iteration" says how many are finished.
        """
        with atomic_write(self._checkpoint) as temporary:
            torch.save(state, temporary)
        self.state = {"iteration": state["iteration"]}

    def remove(self) -> None:
        """The training is finished and its result written: nothing here is needed any more."""
        shutil.rmtree(self.path)
