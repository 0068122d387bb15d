"""Lock files: every package of every environment with its version, those that others bring along included.

`python -m gen4det.orchestration.locks` (`make lock`) resolves anew what pyproject.toml and envs/*.yaml pin.

A lock is a constraints file of pip. It holds names and versions and nothing of the place it was written at:
no address, no path, no build (torch's builds for CPU and for CUDA have one version). What a build for CUDA
brings along is pinned by torch itself.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
HEADER = """\
# All packages of {what}, as pip resolves the pins there for Python 3.11 on Linux.
# Written by `make lock`. Constraints for pip: pip install --constraint {name} ...
"""
BUILD_TOOLS = frozenset({"pip", "setuptools", "wheel"})
"""Not pinned: each Python brings its own, and constraints would hold for the building of packages, too."""


def project_packages(root: Path = ROOT) -> list[str]:
    """What pyproject.toml pins, the tools of development included: "name==version"."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["dev"]]


def environment_packages(path: Path) -> list[str]:
    """What the file of a conda environment asks pip for: "name==version"."""
    entries = yaml.safe_load(path.read_text())["dependencies"]
    (packages,) = (entry["pip"] for entry in entries if isinstance(entry, dict))
    return packages


def canonical(name: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(path: Path) -> dict[str, str]:
    """Versions by canonical name."""
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("==") for line in lines)


def resolve(packages: list[str], constraints: Path | None = None) -> dict[str, str]:
    """Versions by canonical name of all that pip would install into an empty environment.

    Args:
        constraints: lock of another environment, whose versions hold here, too.

    Raises:
        subprocess.CalledProcessError: they cannot be installed together; pip has said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        command += ["--report", str(report), *(["--constraint", str(constraints)] if constraints else [])]
        subprocess.run([*command, *packages], check=True)
        found = [entry["metadata"] for entry in json.loads(report.read_bytes())["install"]]
    versions = {canonical(entry["name"]): entry["version"].partition("+")[0] for entry in found}
    return {name: versions[name] for name in sorted(versions.keys() - BUILD_TOOLS)}


def write_locks(root: Path = ROOT) -> None:
    """Resolve and write all locks.

    The environments of jobs have the versions that `make setup` installs, so that a run in one .venv is a run
    in them. The submit host has its own, because its plugin asks for a newer numpy.
    """
    envs = root / "envs"
    develop = envs / "develop.lock.txt"
    _write(develop, "pyproject.toml", resolve(project_packages(root)))
    for name, constraints in (("compute", develop), ("analyse", develop), ("submit", None)):
        packages = environment_packages(envs / f"{name}.yaml")
        _write(envs / f"{name}.lock.txt", f"envs/{name}.yaml", resolve(packages, constraints))


def _write(path: Path, what: str, versions: dict[str, str]) -> None:
    lines = [f"{package}=={version}\n" for package, version in versions.items()]
    path.write_text(HEADER.format(what=what, name=f"envs/{path.name}") + "".join(lines))
    print(f"envs/{path.name}: {len(versions)} packages")


if __name__ == "__main__":
    write_locks()
