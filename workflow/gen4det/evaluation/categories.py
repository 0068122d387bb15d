"""Categories of a detector and of a data set, matched by their names.

Data sets number the same things differently, and spell them differently: COCO's "traffic light" is LVIS's
"traffic_light" and "Traffic Light" elsewhere.
"""

from gen4det.core.errors import InputError
from gen4det.data.category_names import same_word

SHOWN = 5
"""Names in an error."""


def match_categories(
    known: list[dict], wanted: list[dict], *, partial: bool = False, where: str
) -> dict[int, int]:
    """Which category of a data set each category of a detector is.

    Args:
        known: the detector's, [{"id", "name"}, ...].
        wanted: the data set's.
        partial: whether categories that only one of both knows are left out. Otherwise they are an error, as
            they must be where a detector is measured on the data it was trained on.
        where: the detector's file, for errors.

    Returns:
        {id of the detector's category: id of the data set's}.

    Raises:
        InputError: some categories, or with `partial` all of them, have no counterpart of the same name.
    """
    exact = {category["name"]: category["id"] for category in wanted}
    alike: dict[str, list[int]] = {}
    for category in wanted:
        alike.setdefault(same_word(category["name"]), []).append(category["id"])
    found = {}
    for category in known:
        candidates = alike.get(same_word(category["name"]), [])
        if category["name"] in exact:
            found[category["id"]] = exact[category["name"]]
        elif len(candidates) == 1:
            found[category["id"]] = candidates[0]
    met = set(found.values())
    foreign = [category["name"] for category in known if category["id"] not in found]
    missing = [category["name"] for category in wanted if category["id"] not in met]
    if not found:
        raise InputError(f"{where}: no category of the data set is known to this detector: {_some(missing)}")
    if len(met) < len(found):
        raise InputError(f"{where}: two categories of this detector are one category of the data set")
    if not partial and (foreign or missing):
        problem = (
            f"knows categories that the data set does not have: {_some(foreign)}"
            if foreign
            else f"does not know categories of the data set: {_some(missing)}"
        )
        raise InputError(f"{where}: the detector {problem}; train it again")
    return found


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
