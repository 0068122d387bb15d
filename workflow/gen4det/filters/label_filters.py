"""Filters that look at the box and the area of a label alone."""

from collections.abc import Iterator

import numpy as np

from gen4det.core.errors import InputError
from gen4det.core.settings import suggest
from gen4det.data.label_columns import Columns
from gen4det.filters.settings import FilterSettings

LABEL_FILTERS = ("min_score", "min_box_side", "max_aspect_ratio", "min_area_fraction", "max_area_fraction")
"""Names of their settings, in the order in which they are asked."""


def failed_filters(
    columns: Columns, judged: np.ndarray, settings: FilterSettings
) -> Iterator[tuple[str, np.ndarray]]:
    """(name of a setting, the labels that do not satisfy it, (labels,) bool), in their order.

    Args:
        judged: (labels,) bool, the labels that are asked about; every one of them needs a threshold.

    Raises:
        InputError: there is a score's threshold for each labeller, but none for one of these.
    """
    score, least = columns.numbers("score"), least_scores(columns, judged, settings)
    low = (score < least) | ((score == least) & settings.score_must_exceed)
    yield "min_score", low  # labels given by construction have no score: NaN is never less
    sides = np.sort(columns.boxes()[:, 2:], axis=1)
    short, long = sides[:, 0], sides[:, 1]
    yield "min_box_side", short < settings.min_box_side
    if settings.max_aspect_ratio is not None:
        yield "max_aspect_ratio", long > settings.max_aspect_ratio * short
    pixels = columns.of_image("height") * columns.of_image("width")
    share = columns.numbers("area") / pixels[columns.image]
    yield "min_area_fraction", share < settings.min_area_fraction
    yield "max_area_fraction", share > settings.max_area_fraction


def least_scores(columns: Columns, judged: np.ndarray, settings: FilterSettings) -> np.ndarray | float:
    """The threshold for each label's labeller.

    Args:
        judged: see `failed_filters`.

    Raises:
        InputError: there is a threshold for each labeller, but none for one of these.
    """
    if not isinstance(settings.min_score, dict):
        return settings.min_score
    codes, names = columns.codes("labeller")
    names = [*names, "None"]  # code -1
    for code in np.unique(codes[judged]):
        if names[code] not in settings.min_score:
            known = suggest(names[code], settings.min_score)
            raise InputError(f"filter.min_score: no threshold for the labels of {names[code]!r}{known}")
    return np.array([settings.min_score.get(name, 0.0) for name in names])[codes]
