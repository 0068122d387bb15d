"""The checklists of the engines name tests that exist, and numbers that stand where they are explained."""

import re
from pathlib import Path

import pytest

from gen4det.core.yaml_files import read_yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/checklists.md").read_text()
PARTS = {part.partition("\n")[0]: part for part in TEXT.split("\n## ")[1:]}
ENGINES = {
    facts["name"]: facts for facts in read_yaml(ROOT / "resources/engines.yaml").values() if "arxiv" in facts
}
QUESTIONS = (
    "paper read?",
    "code read?",
    "what differs?",
    "verified how?",
    "which sign held?",
    "which did not, or was not run?",
)


def test_every_engine_has_a_checklist_without_gaps():
    assert PARTS.keys() == ENGINES.keys()
    for name, part in PARTS.items():
        answers = dict(re.findall(r"^\| (.*?) \| (.+) \|$", part, flags=re.MULTILINE))
        assert all(answers.get(question) for question in QUESTIONS), name
        assert ENGINES[name]["arxiv"] in answers["paper read?"]


def test_every_test_that_is_named_exists():
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", TEXT)
    assert len(named) > 25
    assert [name for name in named if f"def {name}(" not in sources] == []


@pytest.mark.parametrize("name", PARTS)
def test_no_number_stands_in_a_checklist_alone(name):
    """Means with their spread, and changes: each is in the readme or in docs/engines.md."""
    elsewhere = (ROOT / "README.md").read_text() + (ROOT / "docs/engines.md").read_text()
    elsewhere = " ".join(elsewhere.split())
    numbers = re.findall(r"[+-]\d+\.\d+(?: ± \d+\.\d+)?|\d+ of \d+|AP \d+\.\d+", PARTS[name])
    assert [number for number in numbers if number not in elsewhere] == []
