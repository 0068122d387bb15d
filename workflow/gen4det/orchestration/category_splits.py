"""Which file says what base and novel categories of a data set are, and whether one is needed."""

from collections.abc import Mapping
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.settings import suggest
from gen4det.evaluation.settings import needs_split
from gen4det.orchestration.scale import Config
from gen4det.orchestration.studies import CheckedStudy


def category_split(dataset: str, config: Config) -> str | None:
    """File that says which categories are base and which novel; None: the annotations do, if any."""
    data, splits = config.datasets[dataset], config.evaluation.splits
    return splits.get(dataset) or (splits.get(data.of) if data.source == "subset" else None)


def check_splits(config: Config, studies: Mapping[str, CheckedStudy], *, source: str, root: Path) -> None:
    """Files of category splits are there, and no study asks for means over base or novel without one.

    Only for public data is it known before anything runs that their own categories do not say it.

    Raises:
        InputError: one line for the first problem.
    """
    for name, file in config.evaluation.splits.items():
        where = f"{source}: evaluation.splits.{name}"
        if name not in config.datasets:
            raise InputError(f"{where}: not a data set of {source}{suggest(name, config.datasets)}")
        if not (root / file).is_file():
            raise InputError(f"{where}: no such file {file}")
    for study_name, study in studies.items():
        asked = [metric for metric in study.table.metrics if needs_split(metric)]
        for on in study.on.values() if asked else ():
            data = config.datasets[on]
            whole = config.datasets[data.of] if data.source == "subset" else data
            if whole.source == "download" and not category_split(on, config):
                raise InputError(
                    f"config/studies/{study_name}.yaml: metrics: {asked[0]}: no category of {on} is base or "
                    f"novel; name a file of them in evaluation.splits of {source}, "
                    "e.g. resources/splits/coco_ovd.yaml"
                )
