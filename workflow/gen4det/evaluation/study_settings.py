"""Settings of tables, figures and galleries. Pydantic only: the Snakefile reads this module.

Apart from the settings of the measurements, so that the hash of measurements does not depend on these: a new
label evaluates no detector again.
"""

from pydantic import Field, model_validator

from gen4det.core.settings import Settings
from gen4det.evaluation.settings import METRICS


class ArmLabel(Settings):
    """How one arm is called in tables and figures."""

    label: str = ""
    """Empty: the arm's own name."""
    baseline: str = ""
    """The row this one is compared with; empty: the study's."""
    on: str = ""
    """Data set it is measured on; empty: the one it was trained on."""


class LinePanel(Settings):
    """One panel of a figure that draws lines: how the numbers follow one setting."""

    x: str
    """Label of the axis: which setting."""
    logarithmic: bool = False
    """Whether equal factors of the setting are equally far apart."""
    lines: dict[str, tuple[tuple[float, str], ...]] = Field(min_length=1)
    """Points (value of the setting, arm) of each line, by its name. An arm may stand in several lines."""


BESIDE_NUMBERS = ("source", "baseline", "label")
"""Keys of a published row that are no metrics."""
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
    paper may bring its own "source": text and "baseline": {"<metric>": value} of that paper's baseline. A
    name that is no arm's brings a "label": a row that a paper prints and nobody trains here."""
    lines: tuple[LinePanel, ...] = ()
    """Panels of a figure of lines; none: a figure of points, arms side by side."""
    sets: dict[str, tuple[str, ...]] = {}
    """<data set>/<engine> of the sets that each arm trains on, where the table says something of them."""
    laid_out: tuple[str, ...] = ()
    """Of these the ones that were asked for boxes; others were labelled afterwards."""
    dataset: str = ""
    detector: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> "StudySettings":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: a seed is listed twice")
        for metric in self.metrics:
            _check_metric("metrics", metric)
        for arm, label in self.arms.items():
            if label.baseline and label.baseline not in self.arms:
                raise ValueError(f"arms.{arm}.baseline: no such arm; arms: {', '.join(self.arms)}")
        for number, panel in enumerate(self.lines):
            for name, points in panel.lines.items():
                for _, arm in points:
                    if arm not in self.arms:
                        raise ValueError(f"lines.{number}.lines.{name}: no such arm {arm!r}")
        numbers = {arm: values for arm, values in self.published.items() if arm != "source"}
        for arm, values in numbers.items():
            where = f"published.{arm}"
            if not isinstance(values, dict):
                raise ValueError(f"{where}: a mapping of metrics to numbers is needed")
            if arm not in self.arms and not values.get("label"):
                known = ", ".join(self.arms)
                raise ValueError(f"{where}: no such arm, and no label for a row of its own; arms: {known}")
            if arm in self.arms and "label" in values:
                raise ValueError(f"{where}.label: the label of an arm stands in arms.{arm}.label")
            if not (self.published.get("source") or values.get("source")):
                raise ValueError(f"{where}: published numbers need a source")
            baseline = values.get("baseline", {})
            if not isinstance(baseline, dict):
                raise ValueError(f"{where}.baseline: a mapping of metrics to numbers is needed")
            own = {name: value for name, value in values.items() if name not in BESIDE_NUMBERS}
            for metric, value in [*own.items(), *baseline.items()]:
                _check_metric(where, metric)
                if not isinstance(value, int | float):
                    raise ValueError(f"{where}.{metric}: a number is needed")
        return self

    @property
    def published_only(self) -> tuple[str, ...]:
        """Names of the rows that papers print and nobody trains here, in their order."""
        return tuple(name for name in self.published if name != "source" and name not in self.arms)

    def label(self, arm: str) -> str:
        """Name of an arm, or of a row that is published only, for human eyes."""
        return self.arms[arm].label or arm if arm in self.arms else self.published[arm]["label"]

    def baseline_of(self, arm: str) -> str:
        """The arm that this one is compared with; itself, if others are compared with it."""
        return (self.arms[arm].baseline if arm in self.arms else "") or self.baseline

    def published_value(self, arm: str, metric: str) -> float | None:
        """The number a paper prints for this arm, or None."""
        return self.published.get(arm, {}).get(metric)

    def published_delta(self, arm: str, metric: str) -> float | None:
        """The published gain of an arm over the baseline of its own paper, or None."""
        value = self.published_value(arm, metric)
        own_baseline = self.published.get(arm, {}).get("baseline", {})
        baseline_arm = self.baseline_of(arm)
        baseline = own_baseline.get(metric, self.published_value(baseline_arm, metric))
        if arm == baseline_arm or value is None or baseline is None:
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
