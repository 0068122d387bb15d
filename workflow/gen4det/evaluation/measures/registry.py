"""All measures by name: what they are of, which values they give, and where they stand.

A measure is a function of plain data (annotations, detections, features, records); it predicts and draws
nothing. To add one: write it in a module of this room, and name it here and in docs/metrics.md.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gen4det.evaluation.settings import METRICS

LAYOUT = ("AP", "AP50", "AP75", "APs", "APm", "APl")
SET = ("images", "labels", "rejected", "agreement", "seconds_per_image", "seconds_per_offered")


@dataclass(frozen=True)
class Measure:
    """One measure."""

    of: Literal["detector", "set", "generator"]
    """A detector on a data set, a synthetic set (what is offered for training), or a generator (what it draws
    when it is asked for a layout)."""
    values: tuple[str, ...]
    """Names of its values."""
    place: str
    """<module>:<function>; imported when it is asked for, not before."""
    better: Literal["higher", "lower", "neither"]

    @property
    def function(self) -> Callable:
        """The measure itself."""
        module, _, name = self.place.partition(":")
        return getattr(importlib.import_module(module), name)


MEASURES: dict[str, Measure] = {
    "average_precision": Measure(
        "detector", METRICS, "gen4det.evaluation.average_precision:average_precision", "higher"
    ),
    "synthetic_set": Measure(
        "set", SET, "gen4det.evaluation.measures.synthetic_set:synthetic_set_measures", "neither"
    ),
    "layout": Measure(
        "generator", LAYOUT, "gen4det.evaluation.measures.layout:layout_average_precision", "higher"
    ),
    "layout_fidelity": Measure(
        "generator",
        ("found",),
        "gen4det.evaluation.measures.fidelity:layout_fidelity",
        "higher",
    ),
    "named": Measure("generator", ("named",), "gen4det.evaluation.measures.fidelity:named_rightly", "higher"),
    "frechet": Measure(
        "generator", ("frechet",), "gen4det.evaluation.measures.frechet:frechet_distance", "lower"
    ),
}
"""By name."""
