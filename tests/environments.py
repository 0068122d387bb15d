"""Jobs that see only the packages of their own environment, without an environment being made.

Everything is installed in one place here. A `sitecustomize.py` hides from a stage what is not in the lock
file of the environment that its rule names: for imports, and for those who ask whether a package is there.
"""

import importlib.metadata
import json
import re
import sys
from pathlib import Path

from gen4det.orchestration.locks import canonical, read_lock

ROOT = Path(__file__).parents[1]

GUARD = '''"""Written by a test: a job cannot import what is not in the environment of its rule."""

import re
import sys
from importlib.machinery import PathFinder

STAGES = {stages}
HIDDEN = {hidden}


def hide(modules, packages):
    class Finder(PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            return None if name.partition(".")[0] in modules else super().find_spec(name, path, target)

        @classmethod
        def find_distributions(cls, *context):
            for found in super().find_distributions(*context):
                if re.sub(r"[-_.]+", "-", found.name or "").lower() not in packages:
                    yield found

    sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]


for word in sys.orig_argv:
    if word in STAGES:
        hide(*map(frozenset, HIDDEN[STAGES[word]]))
'''


def stages() -> dict[str, str]:
    """Module of each stage and the environment of its rule."""
    found = {}
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            name, stage = re.search(r"envs/(\w+)\.yaml", rule), re.search(r"gen4det\.stages\.\w+", rule)
            if name and stage:
                found[stage[0]] = name[1]
    return found


def hidden(environment: str) -> tuple[list[str], list[str]]:
    """Top-level modules, and packages by canonical name, that are installed but not in an environment."""
    lock = read_lock(ROOT / f"envs/{environment}.lock.txt")
    owners: dict[str, set[str]] = {}
    for module, packages in importlib.metadata.packages_distributions().items():
        owners[module] = {canonical(package) for package in packages}
    modules = [
        m for m, packages in owners.items() if not packages & (lock.keys() | {"gen4det", "setuptools"})
    ]
    packages = set().union(*owners.values()) - lock.keys() - {"gen4det"}
    return sorted(set(modules) - sys.stdlib_module_names), sorted(packages)


def write_guard(folder: Path) -> None:
    """Write the guard into a folder that is on PYTHONPATH of the jobs."""
    table = stages()
    lists = {name: hidden(name) for name in sorted(set(table.values()))}
    text = GUARD.replace("{stages}", json.dumps(table)).replace("{hidden}", json.dumps(lists))
    (folder / "sitecustomize.py").write_text(text)
