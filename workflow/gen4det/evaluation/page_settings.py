"""Settings of the page that shows a whole study. Pydantic only: the Snakefile reads this module."""

from typing import Any

from pydantic import Field

from gen4det.core.settings import Settings
from gen4det.evaluation.study_settings import StudySettings


class Reference(Settings):
    """A work to be cited; fields that nobody is certain of are empty."""

    title: str
    authors: tuple[str, ...] = Field(min_length=1)
    """First name and surname of each; "others" at the end: there are more."""
    year: int
    journal: str = ""
    booktitle: str = ""
    arxiv: str = ""
    url: str = ""


class MethodFacts(Settings):
    """What is known of an engine, whatever its settings."""

    name: str
    """As its paper writes it."""
    idea: str
    """Where images and labels come from, in one sentence."""
    paper: str = ""
    """Who, what, where; empty: there is none."""
    arxiv: str = ""
    """Number of the paper there; empty: it is not there."""
    code: str = ""
    """Licence of the code that the authors published."""
    differs: tuple[str, ...] = ()
    """What is done otherwise than in the paper or its code."""
    preset: dict[str, Any] = {}
    """All settings of the variant that bears the engine's name, as written, its filter included."""


class SetFacts(Settings):
    """One synthetic set of a study: a variant of an engine, drawn for a data set."""

    method: str
    changed: dict[str, tuple[Any, Any]] = {}
    """What this run sets otherwise than the engine's preset, by path: (there, here). The rest is as there."""
    models: dict[str, str] = {}
    """Pretrained models by what they are used for: their paths."""


class ArmFacts(Settings):
    """What one row of the table is trained on."""

    dataset: str
    detector: str
    real: bool
    sets: tuple[str, ...] = ()
    """<data set>/<engine>."""
    on: str = ""
    """Data set it is measured on."""
    cites: tuple[str, ...] = ()
    """Keys of references to its detector and data."""


class PageSettings(Settings):
    """What the page of a study reads of the configuration; numbers and images come from results."""

    table: StudySettings
    question: str = ""
    """What the study asks, in words."""
    arms: dict[str, ArmFacts]
    """By row of the table."""
    sets: dict[str, SetFacts] = {}
    """By <data set>/<engine>, in the order of the rows."""
    methods: dict[str, MethodFacts] = {}
    """Engines of these sets."""
    references: dict[str, Reference] = {}
    """By key."""
    cited: dict[str, dict[str, tuple[str, ...]]] = {}
    """Keys of references for what is used, by kind ("method", "model", "protocol", "package") and name."""
    pictures: int = Field(default=12, ge=0)
    """Images shown of each set."""
