"""What can be made of names alone: a set, by an engine that needs no real image; never a table."""

from collections.abc import Iterable

from gen4det.core.errors import InputError
from gen4det.core.settings import suggest
from gen4det.orchestration.scale import Config
from gen4det.orchestration.studies import CheckedStudy
from gen4det.orchestration.variants import Variant


def check_exports(config: Config, variants: dict, *, source: str) -> None:
    """Exports name data sets and engines that there are. Raises InputError."""
    for number, it in enumerate(config.exports):
        where = f"{source}: exports.{number}"
        if it.dataset not in config.datasets:
            known = suggest(it.dataset, config.datasets)
            raise InputError(f"{where}.dataset: {it.dataset!r} is not a data set of {source}{known}")
        if it.engine not in variants:
            raise InputError(f"{where}.engine: no such engine {it.engine!r}{suggest(it.engine, variants)}")
        if it.merged and config.datasets[it.dataset].source == "names":
            raise InputError(f"{where}.merged: {it.dataset} has names alone; there is nothing to merge with")


def check_tables(config: Config, studies: dict[str, CheckedStudy], *, source: str) -> None:
    """No detector is trained or measured on names. Raises InputError."""
    for name, study in studies.items():
        data = {row.dataset for row in study.trainings.values()} | set(study.on.values())
        for dataset in sorted(data):
            if config.datasets[dataset].source == "names":
                raise InputError(
                    f"{source}: studies: {name} is a table over {dataset}, which has names alone; a table "
                    "needs real validation images: leave it out of studies, and name the set under exports"
                )


def check_names(
    config: Config, engines: dict[str, Variant], sets: Iterable[tuple[str, str]], *, source: str
) -> None:
    """Engines and filters that need real images get some. Raises InputError."""
    for dataset, name in sets:
        if config.datasets[dataset].source != "names":
            continue
        engine = engines[name]
        where = f"{source}: {name} for {dataset}, which has names alone:"
        if engine.settings.needs_images:
            raise InputError(f"{where} {engine.settings.method} needs real images")
        if engine.filter.agreement.enabled:
            raise InputError(f"{where} filter.agreement asks a detector of real images; switch it off")
        aesthetic = engine.filter.aesthetic
        if aesthetic.enabled and aesthetic.threshold == "real-mean":
            raise InputError(f"{where} filter.aesthetic.threshold is the mean of real images; give a number")
