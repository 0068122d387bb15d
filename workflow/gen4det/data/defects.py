"""Bad annotations and images of a user's own data: refused, or left out and written down with the reason."""

import csv
import re
from collections import Counter
from pathlib import Path
from typing import Literal, NoReturn

from gen4det.core.errors import InputError
from gen4det.core.provenance import atomic_write, write_json

_VALUES = re.compile(r"'[^']*'|\[[^\]]*\]|[-+]?\d[\d.]*(?:x\d+)?")
Policy = Literal["refuse", "drop"]
HINT = "mend it, or set on_bad_annotation: drop to leave such ones out"
FILE = "dropped.json"
"""Beside dataset.json, where `on_bad_annotation` is "drop"."""
REASONS = "dropped.csv"
"""Beside it, of all data: how many for which reason."""


class Defects:
    """What is wrong with annotations and images, one at a time.

    Args:
        policy: "refuse" raises at the first one, "drop" remembers it.
    """

    def __init__(self, policy: Policy):
        self.policy = policy
        self.found: list[dict] = []

    @property
    def drops(self) -> bool:
        """Whether what is bad is left out."""
        return self.policy == "drop"

    def add(self, kind: Literal["annotation", "image"], where: str, reason: str, **record: object) -> None:
        """Note what has to be left out.

        Args:
            where: file, and place in it.
            record: what is lost, JSON-serialisable.

        Raises:
            InputError: the policy is to refuse.
        """
        if not self.drops:
            self.refuse(f"{where}: {reason}")
        self.found.append({"kind": kind, "where": where, "reason": reason, **record})

    def refuse(self, problem: str) -> NoReturn:
        """Raise InputError with a problem, and what the user can do."""
        raise InputError(f"{problem}; {HINT}")

    def counts(self) -> dict[str, int]:
        """{"annotation": n, "image": m} left out."""
        counted = Counter(entry["kind"] for entry in self.found)
        return {kind: counted[kind] for kind in ("annotation", "image")}

    def by_reason(self) -> list[tuple[str, str, int, str]]:
        """(kind, reason, how many, where the first one is), the most frequent reasons first.

        Numbers and names in a reason do not count: they differ from one to the next.
        """
        same: dict[tuple[str, str], list[str]] = {}
        for entry in self.found:
            reason = _VALUES.sub("...", str(entry["reason"]))
            same.setdefault((entry["kind"], reason), []).append(entry["where"])
        rows = [(*key, len(places), places[0]) for key, places in same.items()]
        return sorted(rows, key=lambda row: -row[2])

    def write(self, folder: Path) -> None:
        """Write `REASONS` and `FILE`; where nothing may be dropped, remove what an earlier run has left."""
        with atomic_write(folder / REASONS) as temporary, open(temporary, "w", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("what", "reason", "left out", "the first"))
            writer.writerows(self.by_reason() or [("nothing", "", 0, "")])
        if self.drops:
            write_json(folder / FILE, {"counts": self.counts(), "dropped": self.found}, indent=1)
        else:
            (folder / FILE).unlink(missing_ok=True)

    def summary(self) -> str:
        """One line for the log; empty if there was nothing."""
        if not self.found:
            return ""
        annotations, images = self.counts().values()
        first = self.found[0]
        return (
            f"left out {annotations} bad annotations and {images} bad images, with their reasons in {FILE}; "
            f"the first: {first['where']}: {first['reason']}"
        )
