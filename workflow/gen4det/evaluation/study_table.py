"""One table per study: a row per arm, over its seeds, against the baseline arm and against the papers.

What is missing is shown missing: an arm is averaged over the seeds that are there, and says which are not.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.evaluation.differences import Interval, category_changes, interval
from gen4det.evaluation.settings import needs_split
from gen4det.evaluation.study_settings import StudySettings

Metrics = dict[str, dict[int, dict]]
"""arm -> seed -> contents of metrics.json"""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (ddof = 1) of `count` values; None where undefined."""

    mean: float | None
    deviation: float | None
    count: int


@dataclass(frozen=True)
class Cell:
    """One metric of one arm, on 0-100."""

    value: Spread
    delta: Spread
    """Difference to the baseline arm, seed by seed, over the seeds that both have."""
    published: float | None
    published_delta: float | None
    interval: Interval | None = None
    """Where the difference lies; None of one seed, or of none."""


@dataclass(frozen=True)
class Row:
    """One arm, or a row that papers print and nobody trains here: it has no seeds at all."""

    arm: str
    label: str
    present: tuple[int, ...]
    missing: tuple[int, ...]
    paired: int
    """Seeds that the baseline arm has, too."""
    cells: dict[str, Cell]
    """By metric."""
    refused: tuple[str, ...]
    """Why missing seeds are missing, each reason once; empty if nobody knows."""
    source: str
    """Where the published numbers are printed; empty if there are none."""

    @property
    def seeds(self) -> str:
        """E.g. "3/3" or "2/3 (missing: 1)"; "published only" of what nobody trains."""
        if not (self.present or self.missing):
            return "published only"
        text = f"{len(self.present)}/{len(self.present) + len(self.missing)}"
        return f"{text} (missing: {', '.join(map(str, self.missing))})" if self.missing else text

    @property
    def caption(self) -> str:
        """The label; where seeds are missing, with those that are there."""
        return f"{self.label}, seeds {self.seeds}" if self.missing else self.label

    @property
    def refusal(self) -> str:
        """Reasons of missing seeds in one line; empty if there are none."""
        return "; ".join(self.refused)


# --- reading --------------------------------------------------------------------------------------


def read_metrics(arguments: list[str], settings: StudySettings) -> tuple[Metrics, list[Path]]:
    """Load metrics.json files.

    Args:
        arguments: "<arm>:<seed>=<path>", or a path that ends in <arm>/seed<seed>/<data set>/metrics.json.

    Returns:
        The metrics and the files they were read from.

    Raises:
        InputError: an argument names no arm or seed of the study, or one twice; a file is missing or is no
            metrics.json; two files of one data set were not measured on the same validation data.
    """
    metrics: Metrics = {arm: {} for arm in settings.arms}
    paths = []
    measured_on: dict[str, dict[str, Path]] = {}
    for argument in arguments:
        arm, seed, path = parse_argument(argument)
        if arm not in settings.arms:
            raise InputError(f"--metrics {argument}: no arm {arm!r}; arms: {', '.join(settings.arms)}")
        if seed not in settings.seeds:
            seeds = ", ".join(map(str, settings.seeds))
            raise InputError(f"--metrics {argument}: seed {seed} is not of this study; seeds: {seeds}")
        if seed in metrics[arm]:
            raise InputError(f"--metrics {argument}: seed {seed} of {arm!r} is given twice")
        values = read_json(path, "a metrics.json")
        if "refused" in values:
            metrics[arm][seed] = values
            paths.append(path)
            continue
        if not {"box", "mask"} <= values.keys():
            raise InputError(f"{path}: not a metrics.json: no values for box and mask")
        validation = values.get("validation") or {}
        # The name does not count: subsets of one data set are measured on the same images.
        how = {key: value for key, value in validation.items() if key != "dataset"}
        alike = measured_on.setdefault(settings.arms[arm].on, {})
        alike.setdefault(json.dumps(how, sort_keys=True), path)
        if len(alike) > 1:
            first = next(iter(alike.values()))
            raise InputError(f"{path}: measured on other validation data, or otherwise, than {first}")
        _require_splits(values, settings, path)
        metrics[arm][seed] = values
        paths.append(path)
    return metrics, paths


def _require_splits(values: dict, settings: StudySettings, path: Path) -> None:
    """A mean over base or novel categories of data that have neither would be an empty column."""
    asked = [metric for metric in settings.metrics if needs_split(metric)]
    categories = values.get("per_category", [])
    if asked and categories and not any(category["split"] for category in categories):
        raise InputError(
            f"{path}: {asked[0]}: no category is base or novel; name a file of them in evaluation.splits"
        )


def parse_argument(argument: str) -> tuple[str, int, Path]:
    """Arm, seed and path of a metrics.json as the option `--metrics` has them.

    Raises:
        InputError: no such argument.
    """
    match = re.fullmatch(r"([^/=:]+):(\d+)=(.+)", argument)
    if match:
        return match[1], int(match[2]), Path(match[3])
    match = re.search(r"([^/]+)/seed(\d+)/[^/]+/[^/]+$", argument)
    if match:
        return match[1], int(match[2]), Path(argument)
    raise InputError(
        f"--metrics {argument}: expected <arm>:<seed>=<path> or a path .../<arm>/seed<seed>/<data set>/<file>"
    )


def value_of(metrics: dict, metric: str) -> float | None:
    """A value of metrics.json by its address, e.g. "mask_APr"; None: undefined, or its kind was not measured.

    Raises:
        InputError: the file does not know the metric.
    """
    kind, _, name = metric.partition("_")
    values = metrics[kind]
    if values is None:
        return None
    if name not in values:
        raise InputError(f"metrics.json: no {kind} {name}; it was written by another version: measure again")
    return values[name]


# --- computing ------------------------------------------------------------------------------------


def values_by_arm(settings: StudySettings, metrics: Metrics) -> dict[str, pd.DataFrame]:
    """Values on 0-100 of each arm: a row per seed that is there, a column per metric; NaN where undefined."""
    names = list(dict.fromkeys(settings.metrics))
    tables = {}
    for arm, found in metrics.items():
        seeds = present_seeds(settings, found)
        rows = [[value_of(found[seed], name) for name in names] for seed in seeds]
        tables[arm] = pd.DataFrame(rows, index=seeds, columns=names, dtype=float)
    return tables


def present_seeds(settings: StudySettings, found: dict[int, dict]) -> list[int]:
    """Seeds of an arm that were measured; one whose training was refused is missing."""
    return [seed for seed in settings.seeds if seed in found and "refused" not in found[seed]]


def study_rows(settings: StudySettings, metrics: Metrics) -> list[Row]:
    """The rows of a table, arms in the order of the settings."""
    values = values_by_arm(settings, metrics)
    return [_row(arm, settings, values, metrics) for arm in settings.arms]


def published_rows(settings: StudySettings, rows: list[Row]) -> list[Row]:
    """What papers print: the rows of a table that have published numbers, and those of nobody's training."""
    return [*(row for row in rows if row.source), *_published_only(settings)]


def _published_only(settings: StudySettings) -> list[Row]:
    nothing, rows = Spread(None, None, 0), []
    for name in settings.published_only:
        cells = {
            metric: Cell(
                nothing,
                nothing,
                settings.published_value(name, metric),
                settings.published_delta(name, metric),
            )
            for metric in settings.metrics
        }
        rows.append(Row(name, settings.label(name), (), (), 0, cells, (), settings.published_source(name)))
    return rows


def _reasons(found: dict[int, dict]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found[seed]["refused"] for seed in sorted(found) if "refused" in found[seed]))


def _row(arm: str, settings: StudySettings, values: dict[str, pd.DataFrame], metrics: Metrics) -> Row:
    own, baseline = values[arm], settings.baseline_of(arm)
    nothing = own.iloc[:0]
    other = nothing if arm == baseline else values.get(baseline, nothing)
    common = [seed for seed in own.index if seed in other.index]
    change = own.loc[common] - other.loc[common]
    cells = {
        metric: Cell(
            spread(own[metric]),
            spread(change[metric]),
            settings.published_value(arm, metric),
            settings.published_delta(arm, metric),
            _interval(change[metric], metrics[arm], metrics.get(baseline, {}), metric),
        )
        for metric in settings.metrics
    }
    missing = tuple(seed for seed in settings.seeds if seed not in own.index)
    source, refused = settings.published_source(arm), _reasons(metrics[arm])
    return Row(arm, settings.label(arm), tuple(own.index), missing, len(common), cells, refused, source)


def _interval(change: pd.Series, own: dict, other: dict, metric: str) -> Interval | None:
    if change.empty or change.hasnans:
        return None
    return interval(change.tolist(), category_changes(own, other, metric, list(change.index)))


def spread(values: pd.Series) -> Spread:
    """Mean and sample standard deviation; one undefined value makes the whole undefined."""
    if values.empty or values.hasnans:
        return Spread(None, None, 0)
    deviation = float(values.std()) if len(values) > 1 else None
    return Spread(float(values.mean()), deviation, len(values))


# --- writing: CSV ---------------------------------------------------------------------------------


def csv_columns(settings: StudySettings) -> list[str]:
    """Column names, in order; the same settings always give the same columns."""
    columns = [
        "study",
        "scale",
        "dataset",
        "detector",
        "arm",
        "label",
        "seeds_present",
        "seeds_wanted",
        "seeds",
    ]
    for metric in settings.metrics:
        columns += [f"{metric}_{suffix}" for suffix in ("mean", "sd", "delta", "delta_sd", "delta_seeds")]
        columns += [f"{metric}_{suffix}" for suffix in ("delta_low", "delta_high", "told")]
        columns += [f"{metric}_published", f"{metric}_published_delta"]
    return [*columns, "published_source"]


def to_csv(
    settings: StudySettings,
    rows: list[Row],
    more: Mapping[str, Mapping[str, str | float | None]] | None = None,
) -> str:
    """One line per arm, then one for each row that is published only; numbers with four decimals, undefined
    and missing ones empty; why in `seeds`.

    Args:
        more: further columns of some arms, by arm and name; the same names for each.
    """
    lines = []
    all_rows = [*rows, *_published_only(settings)]
    for row in all_rows:
        line = [settings.title, settings.scale, settings.dataset, settings.detector, row.arm, row.label]
        seeds = f"{row.seeds}: {row.refusal}" if row.refused else row.seeds
        line += [len(row.present), len(row.present) + len(row.missing), seeds]
        for metric in settings.metrics:
            cell = row.cells[metric]
            line += [_exact(cell.value.mean), _exact(cell.value.deviation)]
            line += [_exact(cell.delta.mean), _exact(cell.delta.deviation), cell.delta.count or ""]
            where = cell.interval
            line += (
                [_exact(where.low), _exact(where.high), "yes" if where.told else "no"] if where else [""] * 3
            )
            line += [_exact(cell.published), _exact(cell.published_delta)]
        lines.append([*line, row.source])
    table = pd.DataFrame(lines, columns=csv_columns(settings), dtype=object)
    for name in next(iter((more or {}).values()), {}):
        cells = [more.get(row.arm, {}).get(name) for row in all_rows]
        table[name] = [it if isinstance(it, str | int) else _exact(it) for it in cells]
    return table.to_csv(index=False, lineterminator="\n")


def _exact(value: float | None) -> str:
    return "" if value is None else f"{without_negative_zero(value, 4):.4f}"


def without_negative_zero(value: float, digits: int) -> float:
    """`value` rounded to `digits` decimals; what rounds to zero has no sign."""
    return round(value, digits) + 0.0  # -0.0 + 0.0 is 0.0
