"""The set-up files agree with each other."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gen4det.core.provenance import PACKAGE_ROOT, import_closure
from gen4det.engines.base import engine_module, known_methods, settings_class
from gen4det.orchestration.locks import canonical, environment_packages, project_packages, read_lock, resolve

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


ENVIRONMENTS = sorted(path.stem for path in (ROOT / "envs").glob("*.yaml"))


def pins(requirements: list[str]) -> dict[str, str]:
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", requirement) for requirement in requirements)
    return dict(requirement.split("==") for requirement in requirements)


def test_every_requirement_is_pinned():
    assert pins(project_packages())


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environments_have_the_pins_of_the_project(name):
    packages = environment_packages(ROOT / f"envs/{name}.yaml")
    packages = [package for package in packages if "executor-plugin" not in package]
    assert pins(packages).items() <= pins(PROJECT["dependencies"]).items()


def test_there_is_one_environment_for_gpus_one_for_the_rest_and_one_to_submit_from():
    assert ENVIRONMENTS == ["analyse", "compute", "submit"]


@pytest.mark.parametrize("name", [*ENVIRONMENTS, "develop"])
def test_pins_and_locks_agree(name):
    """Every package of the lock has a version, nothing else stands there, and what is pinned has that one."""
    path = ROOT / f"envs/{name}.lock.txt"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert lines == sorted(set(lines), key=lambda line: line.partition("==")[0])
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in lines), "a name, ==, a version"
    asked = project_packages() if name == "develop" else environment_packages(ROOT / f"envs/{name}.yaml")
    wanted = {canonical(package): version for package, version in pins(asked).items()}
    assert wanted.items() <= read_lock(path).items(), "make lock"
    assert len(lines) > len(wanted)


@pytest.mark.parametrize("name", ["analyse", "compute"])
def test_jobs_have_the_versions_that_make_setup_installs(name):
    locked = read_lock(ROOT / f"envs/{name}.lock.txt")
    assert locked.items() <= read_lock(ROOT / "envs/develop.lock.txt").items(), "make lock"


def test_what_needs_no_torch_has_an_environment_without():
    there = read_lock(ROOT / "envs/analyse.lock.txt").keys()
    assert not {"torch", "diffusers", "accelerate", "onedl-mmdetection"} & there


DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "httpx2": "huggingface_hub",
    "faster_coco_eval": "faster-coco-eval",
    "mmcv": "onedl-mmcv",
    "mmdet": "onedl-mmdetection",
    "mmengine": "onedl-mmengine",
    "tokenizers": "transformers",
    "yaml": "PyYAML",
}
"""Packages whose name is not that of the module, or that another brings along."""


def environment(path: Path) -> set[str]:
    """Packages that an environment names."""
    return {package.partition("==")[0] for package in environment_packages(path)}


def stages_by_environment() -> dict[str, set[str]]:
    """Stages that run in each environment, by the rules."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            name, stage = re.search(r"envs/(\w+)\.yaml", rule), re.search(r"gen4det\.stages\.(\w+)", rule)
            if name and stage:
                found.setdefault(name[1], set()).add(stage[1])
    return found


def imported(*modules: str) -> set[str]:
    """Packages of others that come with these modules: imported at the top level of one that is, too."""
    packages, seen, queue = set(), set(), list(modules)
    while queue:
        module = queue.pop()
        source = PACKAGE_ROOT.joinpath(*module.split(".")).with_suffix(".py")
        if module in seen or not source.is_file():  # a name of a module, not a module
            continue
        seen.add(module)
        for node in ast.parse(source.read_bytes()).body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            queue += [name for name in names if name.startswith("gen4det.")]
            packages.update(name.partition(".")[0] for name in names)
    return {DISTRIBUTIONS.get(name, name) for name in packages - sys.stdlib_module_names - {"gen4det"}}


@pytest.mark.parametrize("name", sorted(stages_by_environment()))
def test_environments_hold_what_their_stages_import(name):
    there = environment(ROOT / f"envs/{name}.yaml")
    for stage in sorted(stages_by_environment()[name]):
        parts = {"plan": "plan", "generate": "draw"}
        methods = known_methods() if stage in parts else []
        rooms = [engine_module(method, parts[stage]) for method in methods]
        if stage in ("fit", "label"):
            kinds = {(method, step) for method in known_methods() for step in settings_class(method).steps}
            rooms = [engine_module(method, step.module) for method, step in kinds if step.kind == stage]
        modules = import_closure(f"gen4det.stages.{stage}", *rooms)
        missing = imported(*modules) - there
        assert not missing, f"envs/{name}.yaml: gen4det.stages.{stage} imports {sorted(missing)}"


def test_the_submit_host_can_read_the_snakefile():
    """With nothing but its own packages: those of the jobs are not there."""
    common = (ROOT / "workflow/rules/common.smk").read_text()
    modules = re.findall(r"^from (gen4det[.\w]+) import", common, re.MULTILINE)
    settings = [engine_module(method, "settings") for method in known_methods()]
    assert imported(*modules, *settings) <= environment(ROOT / "envs/submit.yaml")


@pytest.mark.parametrize("script", sorted(ROOT.glob("[eft]*/**/*.sh")), ids=lambda path: path.stem)
def test_scripts_parse(script):
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_pins_outside_the_environments_are_those_of_the_project():
    pinned = pins(PROJECT["dependencies"])
    for script in (ROOT / "envs").glob("*.post-deploy.sh"):
        named = re.findall(r"([\w-]+)==([\w.]+)", script.read_text())
        assert named and all(pinned[package] == version for package, version in named), script
    image = (ROOT / "envs/gen4det.def").read_text()
    assert "pyproject.toml" in image and "==" not in image  # it reads them there


def test_the_image_is_of_the_pythons_we_support():
    image = re.search(r"^From: \S+python:3\.(\d+)", (ROOT / "envs/gen4det.def").read_text(), re.MULTILINE)
    assert int(image[1]) >= int(PROJECT["requires-python"].removeprefix(">=3."))


@pytest.mark.skipif(not os.environ.get("GEN4DET_TEST_INDEX"), reason="GEN4DET_TEST_INDEX=1 asks the index")
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_pins_of_an_environment_resolve_to_its_lock(name):
    """As pip would install them into an empty environment; half a minute each."""
    lock = ROOT / f"envs/{name}.lock.txt"
    assert resolve(environment_packages(ROOT / f"envs/{name}.yaml"), lock) == read_lock(lock)


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
