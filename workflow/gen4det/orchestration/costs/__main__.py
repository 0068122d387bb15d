"""What a run costs, before it is started: jobs, hours of a GPU, or of a core, and disk of each rule.

    python -m gen4det.orchestration.costs --configfile config/paper.yaml        (make plan CONFIGFILE=...)

Everything is counted as if nothing had been made yet. Hours come from counted work and from what the file of
costs assumes of the GPU; take them for the right order of magnitude.
"""

import argparse
import os
import sys
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.provenance import PACKAGE_ROOT
from gen4det.core.settings import parse_settings
from gen4det.core.yaml_files import read_yaml
from gen4det.orchestration.costs.estimates import Estimate, Estimator, datasets_of_unknown_size, total
from gen4det.orchestration.costs.settings import Costs
from gen4det.orchestration.costs.tasks import Task, tasks
from gen4det.orchestration.needs import RESUMABLE
from gen4det.orchestration.project import Project, load_project

ROOT = PACKAGE_ROOT.parent
COSTS = ROOT / "config/costs/a100.yaml"
COLUMNS = "{:<12} {:>8} {:>9} {:<18} {:>10} {:>10}"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m gen4det.orchestration.costs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--configfile", type=Path, default=ROOT / "config/config.yaml", metavar="FILE", help="scale"
    )
    parser.add_argument("--studies", nargs="+", metavar="NAME", help="in place of the scale's own")
    parser.add_argument("--shards", type=int, metavar="N", help="in place of the scale's `shards`")
    parser.add_argument(
        "--costs", type=Path, default=COSTS, metavar="FILE", help="what a GPU does; default: A100"
    )
    args = parser.parse_args()
    changes = {name: value for name in ("studies", "shards") if (value := getattr(args, name)) is not None}
    try:
        print(report(args.configfile, args.costs, changes))
    except InputError as error:
        sys.exit(f"error: {error}")


def report(configfile: Path, costs_file: Path = COSTS, changes: dict | None = None) -> str:
    """The table that is printed.

    Args:
        changes: values in place of those of the scale file.

    Raises:
        InputError: one line for the first problem of a settings file.
    """
    project = load_project(read_yaml(configfile) | (changes or {}), source=str(configfile), root=ROOT)
    costs = parse_settings(Costs, read_yaml(costs_file), source=str(costs_file))
    estimator, found = Estimator(project, costs), tasks(project)
    rules = estimator.by_rule(found)
    everything = Estimate(
        sum(rule.jobs for rule in rules.values()),
        seconds=total(rule.seconds for rule in rules.values()),
        stored=total(rule.stored for rule in rules.values()),
    )
    device = estimator.device or costs.gpu
    lines = [
        f"Scale {project.config.scale}: {', '.join(project.studies)}; {device.name}",
        "",
        COLUMNS.format("rule", "jobs", "work", "", "GPU-hours" if estimator.on_gpu else "core-hours", "disk"),
        *(row(name, rule, amount(rule.work)) for name, rule in rules.items()),
        row("total", everything, ""),
    ]
    if unknown := datasets_of_unknown_size(estimator, found):
        lines += ["", f"Not there yet, so that their size is unknown: {', '.join(unknown)}"]
    lines += segments(project, found, rules)
    lines += passing(rules)
    if not estimator.on_gpu:
        lines += ["", f"No job of this scale asks for a GPU. {on_this_machine(rules)}"]
    return "\n".join(lines)


def on_this_machine(rules: dict[str, Estimate]) -> str:
    """How long the processor of this machine is busy."""
    known = sum(rule.seconds or 0 for rule in rules.values())
    if not known:
        return "Hours on processors are not estimated."
    cores = os.cpu_count() or 1
    least = "more than " if any(rule.seconds is None for rule in rules.values()) else ""
    return f"With the {cores} cores here: {least}about {max(1, round(known / cores / 60))} minutes."


def segments(project: Project, found: list[Task], rules: dict[str, Estimate]) -> list[str]:
    """A line for each rule whose longest job outlasts the `runtime` of its kind."""
    lines = []
    for rule, kind in {task.rule: task.kind for task in found}.items():
        runtime = 60 * getattr(project.config.needs, kind).runtime
        if rules[rule].longest > runtime:
            way = "goes on in another attempt" if kind in RESUMABLE else "must be given more"
            lines.append(
                f"{rule}: its longest job takes {hours(rules[rule].longest)} h, more than the "
                f"{hours(runtime)} h of needs.{kind}.runtime, and {way}"
            )
    return ["", *lines] if lines else []


def passing(rules: dict[str, Estimate]) -> list[str]:
    """A line for each rule whose jobs need disk that they give back."""
    lines = [
        f"{name}: while it runs, a job keeps up to {size(rule.passing)} more, features of its images "
        "(`kept_draws` of its detector)"
        for name, rule in rules.items()
        if rule.passing != 0
    ]
    return ["", *lines] if lines else []


def row(name: str, rule: Estimate, work: str) -> str:
    """One line of the table."""
    unit = rule.unit if work != "?" else ""
    return COLUMNS.format(name, rule.jobs, work, unit, hours(rule.seconds), size(rule.stored)).rstrip()


def amount(number: float | None) -> str:
    """A count with three digits, e.g. 20.4 M."""
    if number is None:
        return "?"
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= factor:
            return f"{number / (1e3 if letter == 'k' else factor):.3g} {letter}"
    return f"{number:.0f}"


def hours(seconds: float | None) -> str:
    """Hours, or - where there are none."""
    if seconds is None:
        return "?"
    return f"{seconds / 3600:,.1f}" if seconds else "-"


def size(stored: float | None) -> str:
    """Bytes in words."""
    if stored is None:
        return "?"
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if stored >= factor:
            return f"{stored / factor:.1f} {unit}"
    return f"{stored / 1e3:.0f} kB"


if __name__ == "__main__":
    main()
