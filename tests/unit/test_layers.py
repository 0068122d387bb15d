"""The library has one direction: imports go down, never up, never in a circle."""

import ast
from pathlib import Path

import pytest

from gen4det.core.provenance import PACKAGE_ROOT, import_closure

LAYERS = (
    {"core"},
    {"training"},
    {"data", "miniature"},
    {"diffusion", "filters", "detection", "evaluation"},
    {"engines"},
    {"orchestration"},
    {"stages"},
)


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((PACKAGE_ROOT / "gen4det").rglob("*.py")):
        parts = path.relative_to(PACKAGE_ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(module: str) -> set[str]:
    """Modules of gen4det that a module imports anywhere in its text; packages count as themselves."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_bytes())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import; write the full name"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(name if name in MODULES else node.module for name in names)
    return {name for name in found if name in MODULES}


def layer(module: str) -> int:
    room = module.split(".")[1]
    for rank, rooms in enumerate(LAYERS):
        if room in rooms:
            return rank
    raise AssertionError(f"{module}: room {room} is in no layer")


@pytest.mark.parametrize("module", [name for name in MODULES if name != "gen4det"])
def test_imports_go_down(module):
    upward = {name for name in imports(module) if name != "gen4det" and layer(name) > layer(module)}
    assert not upward, f"{module} imports from above: {sorted(upward)}"


def test_no_circular_imports():
    graph = {module: imports(module) - {module} for module in MODULES}
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            path.append(module)
            for name in sorted(graph[module]):
                visit(name)
            done.add(path.pop())

    for module in graph:
        visit(module)


def test_engines_know_no_other_engine():
    for module in MODULES:
        parts = module.split(".")
        if parts[1:2] == ["engines"] and len(parts) > 3:
            own = ".".join(parts[:3])
            others = {
                name
                for name in imports(module)
                if len(name.split(".")) > 3
                and name.startswith("gen4det.engines.")
                and not name.startswith(own)
            }
            assert not others, f"{module} imports {sorted(others)}"


def test_packages_hold_a_docstring_only():
    for module, path in MODULES.items():
        if path.name == "__init__.py":
            body = ast.parse(path.read_bytes()).body
            assert len(body) == 1 and isinstance(body[0], ast.Expr), f"{module}: more than a docstring"


def test_settings_import_settings_only():
    """So that the Snakefile stays fast, and the code of a stage holds only the settings it reads."""
    for module in MODULES:
        if module.endswith("settings") and module != "gen4det.core.settings":
            heavy = {name for name in imports(module) if not name.endswith("settings")}
            heavy -= {"gen4det.core.errors", "gen4det.engines.steps"}  # as light as settings
            assert not heavy, f"{module} imports {sorted(heavy)}"


@pytest.mark.parametrize("stage", ["plan", "generate", "train", "predict", "measure", "detect", "plot"])
def test_wording_a_refusal_anew_remakes_nothing_heavy(stage):
    """Annotations are checked once, where they come in; the check is in no later stage's code."""
    assert "gen4det.data.validation" not in import_closure(f"gen4det.stages.{stage}")


def test_modules_stay_readable():
    """One story each; past 350 lines or so a module tells two."""
    long = {name: count for name, path in MODULES.items() if (count := path.read_text().count("\n")) > 400}
    assert not long
