"""Curves of losses as small drawings inside a page: a line for each training, a drawing for each row."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gen4det.core.errors import InputError

POINTS = 120
"""Of one line; each is the mean of a stretch of the table."""
WIDTH, HEIGHT = 240, 110
"""Of one drawing, in its own units."""


@dataclass(frozen=True)
class Drawing:
    """Some lines on one pair of axes."""

    lines: tuple[str, ...]
    """Points "x,y x,y ..." in a field of WIDTH x HEIGHT."""
    iterations: int
    highest: float
    lowest: float


def read_losses(path: str | Path) -> tuple[list[float], list[float]]:
    """Iterations and losses of a training's table, averaged over at most `POINTS` stretches.

    Raises:
        InputError: not such a table.
    """
    try:
        with open(path, newline="") as stream:
            rows = [
                (float(row["iteration"]), float(row["loss"] or math.nan)) for row in csv.DictReader(stream)
            ]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected the losses of a training") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a table of losses with the columns iteration and loss") from error
    rows = [(step, loss) for step, loss in rows if math.isfinite(loss)]
    length = math.ceil(len(rows) / POINTS) or 1
    parts = [rows[start : start + length] for start in range(0, len(rows), length)]
    steps = [part[-1][0] for part in parts]
    return steps, [sum(loss for _, loss in part) / len(part) for part in parts]


def drawings(tables: Mapping[str, Sequence[tuple[list[float], list[float]]]]) -> dict[str, Drawing]:
    """A drawing for each name, all on the same axes: iterations, and losses on a logarithmic scale.

    Args:
        tables: what `read_losses` gives, of each training under a name. Names without any numbers, of
            trainings that were refused, are left out.
    """
    known = [(steps, losses) for lines in tables.values() for steps, losses in lines if losses]
    if not known:
        return {}
    last = max(steps[-1] for steps, _ in known)
    values = [loss for _, losses in known for loss in losses if loss > 0]
    low, high = (min(values), max(values)) if values else (1.0, 1.0)
    span = math.log(high / low) or 1.0

    def line(steps: list[float], losses: list[float]) -> str:
        places = (
            (step / last, math.log(max(loss, low) / low) / span)
            for step, loss in zip(steps, losses, strict=True)
        )
        return " ".join(f"{WIDTH * x:.1f},{HEIGHT * (1 - y):.1f}" for x, y in places)

    found = {}
    for name, lines in tables.items():
        if drawn := tuple(line(steps, losses) for steps, losses in lines if losses):
            found[name] = Drawing(drawn, int(last), high, low)
    return found
