"""Is a run worse than the seeds of a reference lead one to expect? One-sided; what cannot be told is said.

Of the values of a metric over n reference seeds, with mean m and standard deviation s, and of the mean x of a
run's k seeds: had both come from one experiment, (x - m) / (s sqrt(1/n + 1/k)) would have Student's
distribution with n - 1 degrees of freedom: the prediction interval of a mean of k further seeds. Only its
lower end counts: a run that is better is no defect. Many comparisons are made at once, so their p-values
are corrected after Holm (1979): with no difference anywhere, the chance of calling anything worse is at most
`level`, however much the metrics depend on each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.evaluation.same_experiment import differing, other_code, settings_behind
from gen4det.evaluation.study_table import value_of

METRICS = tuple(
    f"{kind}_{name}" for kind in ("box", "mask") for name in ("AP", "APr", "APc", "APf", "APbase", "APnovel")
)
"""What is compared unless others are asked for; those that are undefined are left out."""


@dataclass(frozen=True)
class Row:
    """One detector on one data set, over its seeds."""

    dataset: str
    detector: str
    arm: str
    on: str

    def __str__(self) -> str:
        return f"{self.dataset}/{self.detector}/{self.arm} on {self.on}"


@dataclass(frozen=True)
class Comparison:
    """One metric of one row."""

    row: Row
    metric: str
    run: float
    """Mean over the run's seeds."""
    mean: float
    deviation: float
    """Of the reference's seeds."""
    seeds: tuple[int, int]
    """Of the run, of the reference."""
    p: float
    """Chance of so low a mean if nothing is wrong, of this comparison alone."""

    def limit(self, level: float) -> float:
        """Means below this have a smaller p than `level`."""
        ours, theirs = self.seeds
        width = self.deviation * (1 / ours + 1 / theirs) ** 0.5
        return self.mean + width * float(stats.t.ppf(level, theirs - 1))


@dataclass(frozen=True)
class Check:
    """What came out."""

    comparisons: tuple[Comparison, ...]
    """In the order of rows and metrics."""
    corrected: tuple[float, ...]
    """Their p-values after Holm."""
    notes: tuple[str, ...]
    """What was not compared and why, and what else is to be known; a line each."""

    def worse(self, level: float) -> list[Comparison]:
        """Comparisons in which the run is worse."""
        pairs = zip(self.comparisons, self.corrected, strict=True)
        return [it for it, p in pairs if p < level]


def check_run(run: Path, reference: Path, metrics: Sequence[str] = METRICS) -> Check:
    """Compare all rows that two folders of results share.

    Raises:
        InputError: a folder without results of detectors, or twice the same one.
    """
    if run.resolve() == reference.resolve():
        raise InputError(
            f"{run}: the run is the reference itself; name another folder, e.g. REFERENCE=results"
        )
    ours, theirs = find_rows(run), find_rows(reference)
    comparisons, notes = [], []
    for row in ours:
        if row not in theirs:
            notes.append(f"{row}: not compared: the reference has no such row")
            continue
        made, said = _compare(row, ours[row], theirs[row], (run, reference), metrics)
        comparisons += made
        notes += said
    notes += [f"{row}: not compared: the run has no such row" for row in theirs if row not in ours]
    return Check(tuple(comparisons), tuple(holm([it.p for it in comparisons])), tuple(notes))


def find_rows(results: Path) -> dict[Row, dict[int, Path]]:
    """metrics.json of all detectors below a folder of results, by row and seed.

    Raises:
        InputError: there is none.
    """
    found: dict[Row, dict[int, Path]] = {}
    for path in sorted(results.glob("detectors/*/*/*/seed*/*/metrics.json")):
        dataset, detector, arm, seed, on, _ = path.relative_to(results / "detectors").parts
        if seed.removeprefix("seed").isdecimal():
            found.setdefault(Row(dataset, detector, arm, on), {})[int(seed.removeprefix("seed"))] = path
    if not found:
        raise InputError(
            f"{results}: no results of detectors; expected detectors/.../seed0/.../metrics.json in it"
        )
    return found


def _compare(
    row: Row,
    ours: Mapping[int, Path],
    theirs: Mapping[int, Path],
    roots: tuple[Path, Path],
    metrics: Sequence[str],
) -> tuple[list[Comparison], list[str]]:
    """Comparisons of a row, and what is to be said of it."""
    notes = []
    own, others = _read(row, ours, "the run", notes), _read(row, theirs, "the reference", notes)
    if not own or not others:
        return [], notes
    behind = [
        settings_behind(paths[next(iter(values))], root)
        for paths, values, root in zip((ours, theirs), (own, others), roots, strict=True)
    ]
    for who, found in zip(("the run", "the reference"), behind, strict=True):
        if found is None:
            return [], [*notes, f"{row}: not compared: no record lies beside the weights of {who}"]
    if different := differing(*behind):
        return [], [*notes, f"{row}: not compared: {'; '.join(different)}"]
    if code := other_code(*behind):
        notes.append(f"{row}: compared, though the code differs: {', '.join(code)}")
    if same := [seed for seed in own if own[seed] == others.get(seed)]:
        notes.append(f"{row}: seed {', '.join(map(str, same))}: equal to the reference to the last digit")
    if len(others) < 2:
        return [], [*notes, f"{row}: cannot tell: the reference has one seed, and one seed has no spread"]
    made = []
    for metric in metrics:
        values = [[value_of(it, metric) for it in some.values()] for some in (own, others)]
        if any(value is None for some in values for value in some):
            continue
        deviation = float(np.std(values[1], ddof=1))
        if deviation == 0:
            notes.append(f"{row}: {metric}: cannot tell: all seeds of the reference give the same value")
            continue
        made.append(one_sided(row, metric, *values))
    return made, notes


def _read(row: Row, paths: Mapping[int, Path], who: str, notes: list[str]) -> dict[int, dict]:
    """Contents of metrics.json by seed, without trainings that were refused; those become notes."""
    contents = {seed: read_json(path, "a metrics.json") for seed, path in paths.items()}
    for seed, values in contents.items():
        if "refused" in values:
            notes.append(f"{row}: seed {seed} of {who}: not trained: {values['refused']}")
    return {seed: values for seed, values in contents.items() if "refused" not in values}


def one_sided(row: Row, metric: str, run: Sequence[float], reference: Sequence[float]) -> Comparison:
    """One comparison of at least one value with at least two that differ."""
    mean, deviation = float(np.mean(reference)), float(np.std(reference, ddof=1))
    width = deviation * (1 / len(run) + 1 / len(reference)) ** 0.5
    p = float(stats.t.cdf((np.mean(run) - mean) / width, len(reference) - 1))
    return Comparison(row, metric, float(np.mean(run)), mean, deviation, (len(run), len(reference)), p)


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected after Holm, in their order: each is at least its own, and at most 1."""
    corrected, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(np.argsort(values, kind="stable")):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = largest
    return corrected


# --- in words -------------------------------------------------------------------------------------------


def in_words(check: Check, level: float) -> list[str]:
    """A table of the comparisons, what was not compared, and a verdict; lines of text."""
    worse = check.worse(level)
    lines = []
    if check.comparisons:
        lines += [
            "One-sided comparison of means over seeds (Student's distribution, after Holm for "
            f"{len(check.comparisons)} comparisons):",
            "",
            *_table(check, level),
            "",
        ]
    if check.notes:
        lines += [*(f"- {note}" for note in check.notes), ""]
    if worse:
        named = ", ".join(f"{it.metric} of {it.row}" for it in worse)
        lines.append(f"WORSE than the reference at level {level:g}: {named}")
    elif check.comparisons:
        lines.append(
            f"Nothing is worse than the reference at level {level:g}. Where its seeds differ much or are "
            "few, even large losses would not be noticed: see the last column."
        )
    return lines


def _table(check: Check, level: float) -> list[str]:
    header = ["row", "metric", "run", "seeds", "reference", "seeds", "p", "verdict", "noticed below"]
    rows = []
    for it, p in zip(check.comparisons, check.corrected, strict=True):
        limit = it.limit(level / len(check.comparisons))
        verdict, noticed = "WORSE" if p < level else "within", f"{limit:.2f}" if limit > 0 else "never"
        rows.append([
            str(it.row), it.metric, f"{it.run:.2f}", str(it.seeds[0]), f"{it.mean:.2f} ± {it.deviation:.2f}",
            str(it.seeds[1]), f"{p:.3f}", verdict, noticed,
        ])  # fmt: skip
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
