"""The losses of a training: kept for every iteration, written as a table and a figure."""

import csv
import math
from pathlib import Path

import torch

from gen4det.errors import InputError
from gen4det.provenance import atomic_write

ROWS = 500
"""Rows of the table, at most about; each is the mean over equally many iterations."""


class Losses:
    """Losses by name, one value per iteration. Restoring `state()` gives the same table in the end."""

    def __init__(self, state: dict | None = None):
        self.names: list[str] = list(state["names"]) if state else []
        self._rows: list[torch.Tensor] = list(state["rows"].unbind()) if state else []
        self._new: list[dict[str, torch.Tensor]] = []

    def __len__(self) -> int:
        return len(self._rows) + len(self._new)

    def add(self, values: dict[str, torch.Tensor]) -> None:
        """Losses of the next iteration, scalars on any device; not waited for."""
        self._new.append({name: value.detach() for name, value in values.items() if "loss" in name})

    def latest(self) -> dict[str, float]:
        """Losses of the last iteration.

        Raises:
            InputError: the training has diverged.
        """
        self._collect()
        return dict(zip(self.names, self._rows[-1].tolist(), strict=True)) if self._rows else {}

    def _collect(self) -> None:
        for values in self._new:
            if not self.names:
                self.names = sorted(values, key=lambda name: (name != "loss", name))
            row = torch.tensor([float(values.get(name, 0.0)) for name in self.names])
            if not math.isfinite(float(row.sum())):
                raise InputError(
                    f"training diverged: the loss is not finite in iteration {len(self._rows) + 1}; "
                    "lower the learning rate of the detector's config"
                )
            self._rows.append(row)
        self._new = []

    def state(self) -> dict:
        """Everything, as plain values and a tensor (iterations, losses)."""
        self._collect()
        rows = torch.stack(self._rows) if self._rows else torch.zeros(0, len(self.names))
        return {"names": self.names, "rows": rows}

    def table(self) -> tuple[list[str], list[list[float]]]:
        """Column names and rows: the last iteration of each stretch, then the mean of each loss over it."""
        self._collect()
        width = max(1, len(self._rows) // ROWS)
        rows = []
        for start in range(0, len(self._rows), width):
            stretch = torch.stack(self._rows[start : start + width])
            rows.append([start + len(stretch), *stretch.double().mean(0).tolist()])
        return ["iteration", *self.names], rows

    def write(self, folder: Path) -> None:
        """Write losses.csv and losses.png."""
        header, rows = self.table()
        with atomic_write(folder / "losses.csv") as temporary, open(temporary, "w", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(header)
            writer.writerows([[row[0], *(f"{value:.6g}" for value in row[1:])] for row in rows])
        self._draw(folder / "losses.png", header, rows)

    def _draw(self, path: Path, header: list[str], rows: list[list[float]]) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot(xlabel="iteration", ylabel="loss", yscale="log")
        columns = list(zip(*rows, strict=True))
        for name, column in zip(header[1:], columns[1:], strict=True):
            axes.plot(columns[0], column, label=name, linewidth=2 if name == "loss" else 1)
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=120, format="png")
