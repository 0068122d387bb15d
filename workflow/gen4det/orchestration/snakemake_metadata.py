"""Results that Snakemake has no record of, and what stands beside them.

Snakemake writes down what a result was made from when the job ends under its eyes. It does not see the end of
jobs whose driver died, and its records stay behind when results are copied without them. Then it compares
times and nothing else. But each result has a record of its own, with the command that made it.
"""

import ast
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

RECORD = ".record.json"
"""End of the name of the record beside a result."""
ABSENT = object()
"""The value of a key that is not there."""


def adopt_results(workflow: Any, say: Callable[[str], None]) -> None:
    """Give Snakemake records of finished results that lack them, where they were made as they would be now.

    Args:
        workflow: Snakemake's, with its graph of jobs.
        say: shows a line to the user: results that were made with other settings, which Snakemake keeps.
    """
    for job, before, now in unrecorded(workflow.dag):
        if before == now:
            workflow.async_run(workflow.persistence.finished(job))
        else:
            keys = ", ".join(key for key, _, _ in differences(before, now))
            say(
                f"Note: {job.output[0]} was made with another {keys}, but Snakemake has no record of it "
                "and keeps it. Delete it to make it again."
            )


def unrecorded(dag: Any) -> Iterator[tuple[Any, dict, dict]]:
    """(job, parameter it was made with, parameter now) of finished results that Snakemake has no record of.

    Args:
        dag: Snakemake's graph of jobs.
    """
    for job in dag.jobs:
        if job.output and not dag.needrun(job) and not dag.workflow.persistence.has_metadata(job):
            records = [path for path in job.output if str(path).endswith(RECORD)]
            now = job.params.get("job")
            if records and now and (before := parameter_of(Path(records[0]))):
                yield job, before, json.loads(now)


def parameter_of(record: Path) -> dict | None:
    """The parameter in the command that made a result; None if the record does not tell."""
    try:
        command = json.loads(record.read_bytes())["command"]
        return json.loads(command[command.index("--settings") + 1])
    except (OSError, ValueError, KeyError, IndexError):
        return None


def parameters(literals: Iterable[str]) -> dict:
    """A job's parameter as Snakemake remembers it, as nested mappings; others are under the key "others".

    Args:
        literals: Python literals, one of them the JSON text of `workflow.job`.
    """
    found: dict = {}
    for literal in literals:
        value = ast.literal_eval(literal)
        if isinstance(value, str) and value.startswith("{"):
            found |= json.loads(value)
        else:
            found.setdefault("others", []).append(value)
    return found


def differences(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value before, value now) of every difference between two nested mappings."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            path = f"{key}.{name}" if key else name
            yield from differences(before.get(name, ABSENT), now.get(name, ABSENT), path)
    elif before != now:
        yield key, before, now
