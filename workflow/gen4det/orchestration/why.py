"""Why a run would make results again: one paragraph per result that is not up to date.

    python -m gen4det.orchestration.why results/miniature/tables/lvis_rare.csv     (make why TARGET=...)

Snakemake says that parameters have changed and prints both, each a page of JSON. Here it is the key that
changed, with its values before and now; of changed code, the modules that are not those of the record beside
the result. Nothing is run.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.settings.enums import Quietness, RerunTrigger
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings

from gen4det.core.errors import InputError
from gen4det.core.provenance import closure_hashes
from gen4det.orchestration.lineage import MADE_FROM
from gen4det.orchestration.snakemake_metadata import ABSENT, RECORD, differences, parameters, unrecorded

TRIGGERS = frozenset({RerunTrigger.PARAMS, RerunTrigger.INPUT, RerunTrigger.CODE})
"""Those of the profiles."""
SHOWN = 5
"""Longest list of files or modules that is printed."""
CONTENTS = frozenset({"models", "files"})
"""Parts of a job's parameter that hold hashes of files."""


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("targets", nargs="*", metavar="FILE", help="results; none: all of the scale")
    parser.add_argument("--configfile", type=Path, metavar="FILE", help="scale, in place of the miniature")
    args = parser.parse_args()
    stale = 0
    for heading, reasons in stale_results(args.targets, args.configfile):
        stale += 1
        print(heading, *(f"    {reason}" for reason in reasons), sep="\n")
    if not stale:
        print("Everything is up to date.")


def stale_results(targets: Iterable[str] = (), configfile: Path | None = None) -> list[tuple[str, list[str]]]:
    """Results that a run in this folder would make, in an order in which they can be made.

    Args:
        targets: files or rules; none: the default target.
        configfile: scale file; None: the Snakefile's own.

    Returns:
        (first output and its rule, reasons in words) of each job. Last come results that a run would not make
        again, because Snakemake has no record of them, although they were made with another parameter.
    """
    config = ConfigSettings(configfiles=[configfile.absolute()] if configfile else [])
    with SnakemakeApi(OutputSettings(dryrun=True, quiet={Quietness.ALL})) as api:
        workflow = api.workflow(ResourceSettings(cores=1), config)
        settings = DAGSettings(targets=frozenset(targets), rerun_triggers=TRIGGERS, force_incomplete=True)
        workflow.dag(settings).execute_workflow("dryrun")
        dag = workflow._workflow.dag
        order = {job: rank for rank, level in enumerate(dag.toposorted()) for job in level}
        jobs = [job for job in dag.needrun_jobs(exclude_finished=False) if job.output]
        found = [
            (f"{job.output[0]} ({job.rule.name})", list(reasons_of(job, dag)))
            for job in sorted(jobs, key=lambda job: (order[job], str(job.output[0])))
        ]
        for job, before, now in unrecorded(dag):
            if before != now:
                heading = f"{job.output[0]} ({job.rule.name}), unknown to Snakemake, which keeps it"
                found.append((heading, list(changed(job, before, now))))
        return found


def reasons_of(job: Any, dag: Any) -> Iterator[str]:
    """Reasons of one of Snakemake's jobs, in words; all of them, where Snakemake stops at the first."""
    reason, memory = dag.reason(job), dag.workflow.persistence
    if reason._incomplete_output:
        yield "an earlier run began it and did not finish"
        return
    if reason._missing_output:
        partly = Path(job.output[0]).exists()
        yield f"missing: {some(reason.missing_output)}" if partly else "not there yet"
    if change := memory.params_changed(job):
        before, now = parameters(change.only_old), parameters(change.only_new)
        if reason._updated_input_run:  # said below
            before.pop(MADE_FROM, None), now.pop(MADE_FROM, None)
        yield from changed(job, before, now)
    if any(memory.input_changed(job)):
        now = {str(file) for file in job.input}
        before = {file for path in job.output for file in memory.input(path) or ()}
        for files, word in ((now - before, "also"), (before - now, "no more")):
            if files:
                yield f"reads {word} {some(files)}"
    if any(memory.code_changed(job)):
        yield "the text of the rule has changed"
    if reason._updated_input_run and not reason._missing_output:
        yield f"made again before it: {some(reason.updated_input_run)}"


# --- parameters -----------------------------------------------------------------------------------------


def changed(job: Any, before: dict, now: dict) -> Iterator[str]:
    """Differences between the parameter of a result and that of its job now, in words."""
    for key, old, new in differences(before, now):
        part, _, file = key.partition(".")
        if part == "code":
            modules = some(changed_modules(job))
            yield "its code has changed" + (f": {modules}" if modules else "")
        elif part == MADE_FROM:
            yield f"made from other results of {file}"
        elif part in CONTENTS:
            yield f"the contents of {file} have changed"
        else:
            yield f"{key}: {shown(old)} -> {shown(new)}"


def changed_modules(job: Any) -> list[str]:
    """Modules that are not as the record beside a result has them: changed, new or gone."""
    records = [Path(path) for path in job.output if str(path).endswith(RECORD)]
    try:
        code = json.loads(records[0].read_bytes())["code"]
        before, now = code["closure"], closure_hashes(*code["modules"])
    except (OSError, ValueError, LookupError, InputError):  # no such record, or the stage itself is gone
        return []
    return [name for name in sorted(before | now) if before.get(name) != now.get(name)]


def shown(value: Any) -> str:
    """A value on one line."""
    if value is ABSENT:
        return "(nothing)"
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def some(names: Iterable[str]) -> str:
    """A list on one line."""
    names = sorted(map(str, names))
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


if __name__ == "__main__":
    sys.exit(main())
