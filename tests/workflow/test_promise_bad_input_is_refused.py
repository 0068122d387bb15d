"""Promise: bad input is refused early and clearly, in one line, whichever way it comes in."""

import pytest

pytestmark = pytest.mark.workflow


def refused(checkout, *arguments: str) -> str:
    """Output of a run that must fail, without a traceback."""
    done = checkout.run(*arguments)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout


def only_line(text: str) -> str:
    """The one line of an error at parse time, after what Snakemake says of its profile and configuration."""
    lines = [line for line in text.splitlines() if not line.startswith(("Using profile", "Config file"))]
    assert len(lines) == 1, text
    return lines[0]


def test_unknown_key_is_one_line(fresh):
    text = only_line(refused(fresh, "--dry-run", "--config", "sceds=[0]", "--"))
    assert text == "config/test.yaml: sceds: unknown key; did you mean 'seeds'?"


def test_unknown_key_of_an_engine_is_one_line(fresh):
    fresh.edit("config/test.yaml", "guidance: 4.0", "guidence: 4.0")
    text = only_line(refused(fresh))
    assert text.endswith("denoising.guidence: unknown key; did you mean 'guidance'?")


def test_unknown_study_is_one_line(fresh):
    text = only_line(refused(fresh, "--config", "studies=[lvis_rar]", "--"))
    assert "lvis_rar.yaml; did you mean 'lvis_rare'?" in text


def test_missing_photographs_are_named(fresh):
    text = refused(
        fresh, "--configfile", "config/photographs.yaml", "--", "results/photographs/data/lvis/dataset.json"
    )
    assert "error: photographs/train" in text


def test_missing_model_is_named_before_anything_is_drawn(fresh):
    fresh.edit(
        "config/test.yaml", "path: resources/miniature/stable-diffusion", "path: resources/miniature/stable"
    )
    text = refused(fresh, "results/test/synthetic/lvis/mosaicfusion/manifest.jsonl")
    line = next(line for line in text.splitlines() if line.startswith("error: "))
    assert "resources/miniature/stable" in line
    log = "results/test/logs/plan/lvis/mosaicfusion.log"
    assert text.splitlines()[-2:] == ["What failed:", f"{log}: {line}"], "the last words are ours"
