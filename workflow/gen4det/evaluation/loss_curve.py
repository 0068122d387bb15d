"""The curve of a training's losses, from the table that the training wrote (losses.csv)."""

import csv
import math
from pathlib import Path

from matplotlib.figure import Figure

from gen4det.core.errors import InputError
from gen4det.evaluation.plotting import GREY, PALETTE, style

SMOOTH = 25
"""Stretches of the table behind one point of the bold line; a shorter table is shown as it is."""
TIMES = "cpu_seconds"
"""Column of the table that is no loss."""


def loss_curve(table: str | Path) -> Figure:
    """Losses against iterations on a logarithmic axis: their sum bold, and its parts, where it has any.

    Args:
        table: CSV with the columns "iteration", "loss" and any others; empty cells are gaps. One
            without rows, of a training that was refused, gives axes that say so.

    Raises:
        InputError: not such a table.
    """
    try:
        with open(table, newline="") as stream:
            reader = csv.DictReader(stream)
            rows, names = list(reader), reader.fieldnames or []
    except OSError as error:
        raise InputError(f"{table}: {error.strerror}; expected the losses of a training") from error
    if not {"iteration", "loss"} <= set(names):
        raise InputError(f"{table}: expected a table of losses with the columns iteration and loss")
    try:
        columns = {name: [float(row[name] or math.nan) for row in rows] for name in names}
    except (TypeError, ValueError) as error:
        raise InputError(f"{table}: not a table of numbers: {error}") from error
    steps = columns.pop("iteration")
    columns.pop(TIMES, None)
    with style():
        figure = Figure(figsize=(5, 3), layout="constrained")
        axes = figure.add_subplot(xlabel="iteration", ylabel="loss", yscale="log")
        if not rows:
            axes.text(0.5, 0.5, "not trained", transform=axes.transAxes, ha="center", va="center")
            return figure
        for name, colour in zip(list(columns)[1:], PALETTE[1:] * len(columns), strict=False):
            axes.plot(steps, columns[name], label=name, color=colour, linewidth=0.8)
        whole = columns["loss"]
        width = SMOOTH if len(whole) > 4 * SMOOTH else 1
        if width > 1:
            axes.plot(steps, whole, color=GREY, alpha=0.4, linewidth=0.5)
        means = [sum(whole[i - width : i]) / width for i in range(width, len(whole) + 1)]
        axes.plot(steps[width - 1 :], means, label="loss", color=PALETTE[0], linewidth=1.4)
        axes.legend(frameon=False)
    return figure
