"""The losses of a training: kept for every iteration, written as a table. Curves are drawn elsewhere."""

import csv
import math
from pathlib import Path

import torch

from gen4det.core.errors import InputError
from gen4det.core.provenance import atomic_write

CPU_SECONDS = "cpu_seconds"
ROWS = 500
"""Rows of the table, at most about; each is the mean over equally many iterations."""


class Losses:
    """Losses by name, one value per iteration. Restoring `state()` gives the same table in the end.

    An iteration may lack a loss, e.g. that of masks where no image has any: means are over the others.
    """

    def __init__(self, state: dict | None = None):
        self.names: list[str] = list(state["names"]) if state else []
        self._rows: list[torch.Tensor] = list(state["rows"].unbind()) if state else []
        self._seconds: list[float] = list(state.get("seconds", ())) if state else []
        self._new: list[dict[str, torch.Tensor]] = []

    def __len__(self) -> int:
        return len(self._rows) + len(self._new)

    def add(self, values: dict[str, torch.Tensor], *, cpu_seconds: float | None = None) -> None:
        """Losses of the next iteration, scalars on any device; not waited for.

        Args:
            cpu_seconds: time of the processor so far, all attempts together; in all iterations or in none.
        """
        if cpu_seconds is not None:
            self._seconds.append(cpu_seconds)
        self._new.append({name: value.detach() for name, value in values.items() if "loss" in name})

    def latest(self) -> dict[str, float]:
        """Losses of the last iteration.

        Raises:
            InputError: the training has diverged.
        """
        self._collect()
        if not self._rows:
            return {}
        values = zip(self.names, self._rows[-1].tolist(), strict=True)
        return {name: value for name, value in values if not math.isnan(value)}

    def _collect(self) -> None:
        for values in self._new:
            self._add_names(values.keys() - set(self.names))
            if not all(math.isfinite(value) for value in values.values()):
                raise InputError(
                    f"training diverged: the loss is not finite in iteration {len(self._rows) + 1}; "
                    "lower the learning rate"
                )
            self._rows.append(torch.tensor([float(values.get(name, math.nan)) for name in self.names]))
        self._new = []

    def _add_names(self, new: set[str]) -> None:
        """Make room for losses that no iteration had before."""
        if new:
            old, self.names = self.names, sorted({*self.names, *new}, key=lambda name: (name != "loss", name))
            places = [self.names.index(name) for name in old]
            wider = torch.full((len(self._rows), len(self.names)), math.nan)
            wider[:, places] = self._stacked(len(old))
            self._rows = list(wider.unbind())

    def _stacked(self, width: int) -> torch.Tensor:
        return torch.stack(self._rows) if self._rows else torch.zeros(0, width)

    def state(self) -> dict:
        """Everything, as plain values and a tensor (iterations, losses)."""
        self._collect()
        return {"names": self.names, "rows": self._stacked(len(self.names)), "seconds": list(self._seconds)}

    def table(self) -> tuple[list[str], list[list[float]]]:
        """Column names and rows: the last iteration of each stretch, then the mean of each loss over it.

        A loss that no iteration of a stretch had is NaN there. Times, where given, are the last column.
        """
        self._collect()
        width = max(1, len(self._rows) // ROWS)
        rows = []
        for start in range(0, len(self._rows), width):
            stretch = torch.stack(self._rows[start : start + width])
            rows.append([start + len(stretch), *stretch.double().nanmean(0).tolist()])
        if not self._seconds:
            return ["iteration", *self.names], rows
        return ["iteration", *self.names, CPU_SECONDS], [[*row, self._seconds[row[0] - 1]] for row in rows]

    def write(self, folder: Path) -> None:
        """Write losses.csv."""
        header, rows = self.table()
        with atomic_write(folder / "losses.csv") as temporary, open(temporary, "w", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(header)
            writer.writerows([[row[0], *map(_shown, row[1:])] for row in rows])


def _shown(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
