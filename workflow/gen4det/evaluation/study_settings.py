"""Settings of tables, figures and galleries. Pydantic only: the Snakefile reads this module.

They stand apart from the settings of the measurements, so that a new label evaluates no detector again.
"""

from pydantic import Field, model_validator

from gen4det.evaluation.settings import METRICS
from gen4det.settings import Settings


class ArmLabel(Settings):
    """How one arm is called in tables and figures."""

    label: str = ""
    """Empty: the arm's own name."""


Published = str | dict[str, float | str | dict[str, float]]


class StudySettings(Settings):
    """What a table and its figure read of a study; `arms` keeps its order."""

    title: str
    scale: str
    """What the numbers were measured at, e.g. "miniature" or "paper"; shown in every output."""
    arms: dict[str, ArmLabel] = Field(min_length=1)
    metrics: tuple[str, ...] = Field(min_length=1)
    """"<kind>_<name>", e.g. "mask_APr"; see METRICS."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """The seeds every arm should have been trained with."""
    baseline: str = "real"
    """The arm the others are compared with."""
    published: dict[str, Published] = {}
    """{"source": where the numbers are printed, "<arm>": {"<metric>": value, ...}, ...}. An arm from another
    paper may bring its own "source": text and "baseline": {"<metric>": value} of that paper's baseline."""
    dataset: str = ""
    detector: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> "StudySettings":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: a seed is listed twice")
        for metric in self.metrics:
            _check_metric("metrics", metric)
        numbers = {arm: values for arm, values in self.published.items() if arm != "source"}
        for arm, values in numbers.items():
            where = f"published.{arm}"
            if arm not in self.arms:
                raise ValueError(f"{where}: no such arm; arms: {', '.join(self.arms)}")
            if not isinstance(values, dict):
                raise ValueError(f"{where}: a mapping of metrics to numbers is needed")
            if not (self.published.get("source") or values.get("source")):
                raise ValueError(f"{where}: published numbers need a source")
            baseline = values.get("baseline", {})
            if not isinstance(baseline, dict):
                raise ValueError(f"{where}.baseline: a mapping of metrics to numbers is needed")
            own = {name: value for name, value in values.items() if name not in ("source", "baseline")}
            for metric, value in [*own.items(), *baseline.items()]:
                _check_metric(where, metric)
                if not isinstance(value, int | float):
                    raise ValueError(f"{where}.{metric}: a number is needed")
        return self

    def label(self, arm: str) -> str:
        """Name of an arm for human eyes."""
        return self.arms[arm].label or arm

    def published_value(self, arm: str, metric: str) -> float | None:
        """The number a paper prints for this arm, or None."""
        return self.published.get(arm, {}).get(metric)

    def published_delta(self, arm: str, metric: str) -> float | None:
        """The published gain of an arm over the baseline of its own paper, or None."""
        value = self.published_value(arm, metric)
        own_baseline = self.published.get(arm, {}).get("baseline", {})
        baseline = own_baseline.get(metric, self.published_value(self.baseline, metric))
        if arm == self.baseline or value is None or baseline is None:
            return None
        return round(value - baseline, 6)

    def published_source(self, arm: str) -> str:
        """Where the numbers of this arm are printed; empty if there are none."""
        values = self.published.get(arm)
        return (values.get("source") or self.published["source"]) if values else ""


def _check_metric(where: str, metric: str) -> None:
    kind, _, name = metric.partition("_")
    if kind not in ("box", "mask") or name not in METRICS:
        raise ValueError(
            f"{where}: no metric {metric!r}; expected box_ or mask_ and one of {', '.join(METRICS)}"
        )


class GallerySettings(Settings):
    """What a qualitative page shows."""

    title: str
    scale: str
    seed: int = 0
    """Seed of the choice of examples."""
    kept: int = Field(default=12, ge=0)
    """Number of kept images."""
    rejected: int = Field(default=8, ge=0)
    """Number of rejected images, spread over the reasons."""
    columns: int = Field(default=4, ge=1)
