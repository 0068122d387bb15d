"""Profiles, rules and scale agree with each other. Snakemake ignores names that it does not know."""

import json
import re
from pathlib import Path

import pytest

from gen4det.core.yaml_files import read_yaml
from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.needs import RESUMABLE
from gen4det.orchestration.project import load_project

ROOT = Path(__file__).parents[2]
SLURM = read_yaml(ROOT / "slurm/profile.yaml")
PARTITIONS = read_yaml(ROOT / "slurm/partitions.yaml")["partitions"]
LVIS = {"train.json": 1_250_000_000, "val.json": 205_000_000}
"""Bytes of the annotation files of LVIS v1."""


def rules() -> dict[str, str]:
    """Text of each rule. A rule that uses another is its own text after that of the other."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for part in re.split(r"^(?=(?:use )?rule )", path.read_text(), flags=re.MULTILINE)[1:]:
            head = part.partition(":")[0]
            if used := re.match(r"use rule (\w+) as (\w+) with", head):
                found[used[2]] = found[used[1]] + part
            else:
                found[head.removeprefix("rule ")] = part
    return found


RULES = rules()
KINDS = {
    name: kind[1]
    for name, text in RULES.items()
    if (kind := re.search(r'threads: jobs\.needs\("(\w+)"', text))
}
GPU_RULES = [name for name, text in RULES.items() if re.search(r"^ +gpu=", text, re.MULTILINE)]


@pytest.fixture(scope="module")
def lvis(tmp_path_factory) -> list[str]:
    """Descriptor of a data set of the size of LVIS; the files are holes."""
    folder = tmp_path_factory.mktemp("lvis")
    for name, size in LVIS.items():
        with open(folder / name, "wb") as stream:
            stream.truncate(size)
    splits = {name.removesuffix(".json"): {"annotations": name} for name in LVIS}
    (folder / "dataset.json").write_text(json.dumps(splits))
    return [str(folder / "dataset.json")]


def jobs_of(scale: Path) -> Jobs:
    return Jobs(load_project(read_yaml(scale), source=str(scale), root=ROOT))


def test_rules_were_found():
    assert {"render", "plan", "generate", "filter", "train", "predict", "measure", "table"} <= RULES.keys()
    assert {"generate", "train", "predict", "fit", "label"} <= set(GPU_RULES)


def test_every_rule_a_profile_names_exists():
    for path in (*ROOT.glob("*/profile.yaml"), ROOT / "tests/slurm/profile.yaml"):
        profile = read_yaml(path)
        named = {name for key in ("groups", "set-resources", "set-threads") for name in profile.get(key, {})}
        assert named <= RULES.keys(), path
        groups = set(profile.get("groups", {}).values())
        assert profile.get("group-components", {}).keys() <= groups | set(SLURM["groups"].values()), path


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_rule_asks_for_everything_and_as_one_kind_of_job(name):
    text, kind = RULES[name], KINDS[name]
    assert f'mem_mb=jobs.memory("{kind}")' in text
    assert f'runtime=jobs.runtime("{kind}")' in text
    asked = set(re.findall(r'jobs\.(?:needs|memory|runtime)\("(\w+)"\)', text))
    assert asked == {kind}


@pytest.mark.parametrize("name", sorted(GPU_RULES))
def test_a_gpu_rule_retries_by_the_profile_only(name):
    assert name in KINDS and f'gpu=jobs.needs("{KINDS[name]}").gpu' in RULES[name]
    assert "retries:" not in RULES[name], "it would be used up inside the first allocation"
    assert SLURM["retries"] >= 1


@pytest.mark.parametrize("scale", sorted((ROOT / "config").glob("[!r]*.yaml")), ids=lambda path: path.stem)
def test_what_needs_a_gpu_asks_for_it(scale):
    needs = jobs_of(scale).config.needs
    with_gpu = {kind for kind in type(needs).model_fields if getattr(needs, kind).gpu}
    assert with_gpu <= {KINDS[name] for name in GPU_RULES}


def test_jobs_that_resume_are_told_how_long_they_may_take():
    told = {KINDS[name] for name, text in RULES.items() if "{params.budget}" in text}
    assert told <= RESUMABLE
    assert {"generate", "train"} <= told


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_request_fits_a_partition(name, lvis):
    jobs, kind = jobs_of(ROOT / SLURM["configfile"]), KINDS[name]
    needs = jobs.needs(kind)
    gpus = needs.gpu if name in GPU_RULES else 0
    together = SLURM["group-components"].get(SLURM["groups"].get(name), 1)
    for attempt in range(1, SLURM["retries"] + 2):
        memory = jobs.memory(kind)(None, lvis, attempt=attempt)
        minutes = jobs.runtime(kind)(None, attempt=attempt) * together
        fitting = [
            partition
            for partition, limits in PARTITIONS.items()
            if memory <= limits["max_mem_mb"]
            and minutes <= limits["max_runtime"]
            and needs.threads <= limits["max_threads"]
            and gpus <= limits.get("max_gpu", 0)
        ]
        assert fitting, f"{name}, attempt {attempt}: {memory} MB, {minutes} min, {gpus} GPUs"


def test_every_key_of_the_profile_has_its_reason():
    for path in (ROOT / "slurm/profile.yaml", ROOT / "local/profile.yaml", ROOT / "tests/slurm/profile.yaml"):
        _, *paragraphs = re.split(r"\n\s*\n", path.read_text().partition("\n")[2])
        for paragraph in paragraphs:
            keys = [line for line in paragraph.splitlines() if re.match(r"[\w-]+:", line)]
            assert not keys or paragraph.lstrip().startswith("#"), f"{path}: {keys[0]}"


def test_drivers_name_their_jobs_so_that_they_are_found():
    from gen4det.orchestration.slurm import PREFIX

    assert f"{SLURM['slurm-jobname-prefix']}_" == PREFIX


def test_shards_of_one_allocation_take_turns():
    """Each needs the slot, of which an allocation has one: their minutes add up, their GPUs do not."""
    assert SLURM["resources"] == {"slot": 1}
    assert all("slot=1" in RULES[name] for name in SLURM["groups"])
    common = (ROOT / "workflow/rules/common.smk").read_text()
    assert re.search(r'resource_scopes:\s+slot="local"', common)


def test_partitions_are_what_the_plugin_reads():
    known = {"max_runtime", "max_mem_mb", "max_threads", "max_gpu"}
    for limits in (
        *PARTITIONS.values(),
        *read_yaml(ROOT / "tests/slurm/partitions.yaml")["partitions"].values(),
    ):
        assert known - {"max_gpu"} <= limits.keys() <= known
