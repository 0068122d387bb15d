"""The set-up files agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(requirements: list[str]) -> dict[str, str]:
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", requirement) for requirement in requirements)
    return dict(requirement.split("==") for requirement in requirements)


def test_every_requirement_is_pinned():
    assert pins(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"])


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda path: path.stem)
def test_environments_have_the_pins_of_the_project(path):
    (packages,) = (
        entry["pip"] for entry in yaml.safe_load(path.read_text())["dependencies"] if isinstance(entry, dict)
    )
    packages = [package for package in packages if "executor-plugin" not in package]
    assert pins(packages).items() <= pins(PROJECT["dependencies"]).items()


def test_each_rule_names_an_environment_that_exists():
    named = set()
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        named.update(re.findall(r"\.\./\.\./(envs/[\w.]+)", path.read_text()))
    there = {f"envs/{path.name}" for path in (ROOT / "envs").glob("*.yaml")}
    assert named == there - {"envs/submit.yaml"}


def test_each_rule_has_log_benchmark_resources_and_a_message():
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            name = rule.partition(":")[0]
            if "shell:" in rule:
                missing = [
                    word
                    for word in ("log", "benchmark", "resources", "threads", "message", "conda", "params")
                    if f"\n    {word}:" not in rule
                ]
                assert not missing, f"{path.name}: rule {name}: {missing}"


def test_continuous_integration_runs_make_test():
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("exec make test")
