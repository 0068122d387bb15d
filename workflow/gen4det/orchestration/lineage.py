"""How the inputs of a job were made: part of the job's one parameter.

    {"settings": ..., "code": ..., "made_from": {"plan": "5e3c...", "render": "01ab..."}}

Snakemake's own way is to compare times, and above a megabyte nothing but times: `touch`, `cp -r` or a backup
that comes back would draw and train for weeks. Here times do not count. Instead the parameter of a job holds
the hashes of the parameters of the jobs that make its inputs, down to the raw data. Files that no rule makes,
such as the user's own annotations, count with their contents. So a parameter describes a result whole, also
where Snakemake's records or the times of files were lost, and after a run that ended half way.

The rules need nothing for it: what a job reads is what its rule says under `input`.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import snakemake.io
from snakemake.iocontainers import Wildcards

from gen4det.core.provenance import content_hash
from gen4det.orchestration.hashes import RememberedHashes

PARAMETER = "job"
"""Name of the one parameter of a rule."""
MADE_FROM = "made_from"
"""Its key for the jobs that make the inputs: one hash for each rule, over all its jobs."""
FILES = "files"
"""Its key for the contents of files that no rule makes."""


def follow_inputs(workflow: Any, memory: Path) -> None:
    """Add to the parameter of each rule what its inputs are made from. To be called after the last rule.

    Args:
        workflow: Snakemake's, with all its rules.
        memory: file in which hashes of own files are remembered.
    """
    lineage = Lineage(list(workflow.rules), RememberedHashes(memory))
    for rule in lineage.rules:
        if PARAMETER in rule.params.keys():
            lineage.follow(rule)


def ignore_times() -> None:
    """Let no input count as newer than what was made from it.

    Snakemake 9.27 compares times whatever `rerun-triggers` says. Inputs marked as `ancient` would not do: a
    job that comes after one with changed parameters is then not asked about its own.
    """

    async def is_newer(self: Any, time: Any) -> bool:
        return False

    snakemake.io._IOFile.is_newer = is_newer


class Lineage:
    """Parameters of jobs with those of the jobs before them.

    Args:
        rules: Snakemake's.
        hashes: of files that no rule makes.
    """

    def __init__(self, rules: list[Any], hashes: RememberedHashes):
        self.rules = rules
        self._hashes = hashes
        self._makers: dict[str, tuple[Any, Wildcards] | None] = {}
        self._parameters: dict[tuple, str] = {}
        self._asked: dict[str, Callable] = {}
        """What a rule answered before its parameter was extended."""

    def follow(self, rule: Any) -> None:
        """Extend the parameter of a rule."""

        def parameter(wildcards: Wildcards) -> str:  # of wildcards alone: only then Snakemake compares it
            return self.parameter(rule, wildcards)

        self._asked[rule.name] = rule.params[PARAMETER]
        place, _ = rule.params._names[PARAMETER]
        rule.params[place] = parameter
        rule.params._set_name(PARAMETER, place)

    def parameter(self, rule: Any, wildcards: Wildcards) -> str:
        """The parameter of a job; of one without any, such as a list of targets, what it reads."""
        key = (rule.name, *sorted(wildcards.items()))
        if key not in self._parameters:
            own = json.loads(self._asked[rule.name](wildcards)) if rule.name in self._asked else {}
            makers: dict[str, dict[str, None]] = {}
            files = {}
            for path in self._inputs(rule, wildcards):
                if maker := self._maker(path):
                    makers.setdefault(maker[0].name, {})[self.parameter(*maker)] = None
                elif digest := self._hashes.of(Path(path)):
                    files[path] = digest
            if makers:
                own[MADE_FROM] = {
                    name: content_hash(sorted(made))[:16] for name, made in sorted(makers.items())
                }
            if files:
                own[FILES] = own.get(FILES, {}) | files
            self._parameters[key] = json.dumps(own)
        return self._parameters[key]

    def _inputs(self, rule: Any, wildcards: Wildcards) -> Iterator[str]:
        for path in rule.expand_input(wildcards)[0]:
            yield str(path)

    def _maker(self, path: str) -> tuple[Any, Wildcards] | None:
        """The rule that makes a file, with its wildcards; None if none does."""
        if path not in self._makers:
            rule = next((rule for rule in self.rules if rule.is_producer(path)), None)
            words = rule and Wildcards(fromdict=rule.get_wildcards(path))
            self._makers[path] = (rule, words) if rule else None
        return self._makers[path]
