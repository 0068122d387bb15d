"""What the stages that do a step of an engine share: its settings, what it reads, its worker."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen4det.core.errors import InputError
from gen4det.core.provenance import content_hash, file_hash
from gen4det.core.settings import Settings, parse_settings, suggest
from gen4det.data.datasets import Dataset
from gen4det.diffusion.settings import FoundationSettings
from gen4det.engines.base import (
    MANIFEST,
    Inputs,
    StepWorker,
    check_inputs,
    engine_module,
    load_worker,
    settings_class,
)
from gen4det.engines.settings import EngineSettings
from gen4det.engines.steps import DETECTORS, Kind, Step, settings_of_step
from gen4det.stages._cli import stage_settings

DETECTIONS = "detections."
"""Begins the names of detections among what a step reads: detections.dataset, detections.<draw step>."""


class StepSettings(Settings):
    """Settings of every stage that does a step of an engine."""

    engine: dict[str, Any]
    """Settings of one method that the step reads; `method` names it."""
    step: str | None = None
    """Name of the step; null: the only one of its kind."""
    foundation: FoundationSettings = FoundationSettings()
    """Pretrained models the step starts from."""
    run_seed: int = 0
    """Seed of the run; every image has its own, derived from it."""


@dataclass(frozen=True)
class StepJob:
    """One step with typed settings: all that its results depend on beside data and device."""

    step: Step
    engine: EngineSettings
    """The fields that the step reads."""
    foundation: FoundationSettings
    run_seed: int
    part: str
    """Module of the method's room that does the work: "plan", "draw", "fit_<step>" or "label"."""

    @property
    def module(self) -> str:
        """Dotted name of that module, for the hash of the code."""
        return engine_module(self.engine.method, self.part)

    def resolved(self) -> dict:
        """All settings with their defaults, JSON-serialisable."""
        return {
            "engine": self.engine.model_dump(mode="json"),
            "step": self.step.name,
            "foundation": self.foundation.model_dump(mode="json"),
            "run_seed": self.run_seed,
        }

    def worker(self, inputs: Inputs, **options: Any) -> StepWorker:
        """The object that does the work.

        Args:
            options: device, workers.

        Raises:
            InputError: something that the step reads is not given.
        """
        check_inputs(self.step, self.engine, inputs)
        module, kind = engine_module(self.engine.method, self.part), self.part.partition("_")[0]
        return load_worker(module, kind, self.engine, self.foundation, self.run_seed, inputs, **options)


def step_job(args: argparse.Namespace, kind: Kind, *, plan: bool = False) -> StepJob:
    """Settings given on the command line.

    Args:
        kind: kind of the step that the stage does.
        plan: whether it only decides what a draw step draws.

    Raises:
        InputError: one line for the first bad setting; unknown method or step.
    """
    settings = stage_settings(args, StepSettings)
    method = settings.engine.get("method")
    if not isinstance(method, str):
        raise InputError("--settings: engine.method: required key is missing")
    model = settings_class(method)
    steps = model.checked_steps()
    names = [step.name for step in steps.in_order if step.kind == kind]
    if not names:
        raise InputError(f"--settings: engine.method: {method} has no step of kind {kind!r}")
    name = settings.step or names[0]
    if name not in names:
        raise InputError(f"--settings: step: {method} has no {kind} step {name!r}{suggest(name, names)}")
    step = steps[name]
    kept = settings_of_step(model, steps.fields(step))
    engine = parse_settings(kept, settings.engine, source="--settings: engine")
    return StepJob(step, engine, settings.foundation, settings.run_seed, "plan" if plan else step.module)


def add_reads(parser: argparse.ArgumentParser) -> None:
    """Option for what earlier steps have made."""
    parser.add_argument(
        "--reads",
        nargs="*",
        default=[],
        metavar="NAME=PATH",
        help="what earlier steps made: a fitted model (STEP=FOLDER), the label files of drawn shards "
        "(STEP=FILE, each), detections (detections.dataset=FILE, detections.STEP=FILE), weights of a "
        f"detector ({DETECTORS}FIELD=FILE), what another variant planned ({MANIFEST}=FILE)",
    )


def step_inputs(
    args: argparse.Namespace, job: StepJob, dataset: Dataset, *, drawn: Path | None = None
) -> Inputs:
    """What `--reads` gives.

    Args:
        drawn: the shard that a label step labels; it counts as what the draw step made.

    Raises:
        InputError: not NAME=PATH, a name that the step does not read, or nothing is there.
    """
    steps = settings_class(job.engine.method).checked_steps()
    models: dict[str, Path] = {}
    shards: dict[str, list[Path]] = {}
    detections: dict[str, list[Path]] = {}
    detectors: dict[str, Path] = {}
    manifest: Path | None = None
    known = {*job.step.reads, *(DETECTIONS + asked.on for asked in job.step.detections)}
    known |= {DETECTORS + name for name in job.step.detectors}
    known |= {MANIFEST} if job.step.manifest_of else set()
    for given in args.reads:
        name, separator, text = given.partition("=")
        path = Path(text)
        if not (separator and text):
            raise InputError(f"--reads {given}: expected NAME=PATH")
        if name not in known:
            raise InputError(
                f"--reads {given}: step {job.step.name!r} does not read it{suggest(name, known)}"
            )
        if not path.exists():
            raise InputError(f"--reads {given}: no such file or folder")
        if name.startswith(DETECTIONS):
            detections.setdefault(name.removeprefix(DETECTIONS), []).append(path)
        elif name.startswith(DETECTORS):
            detectors[name.removeprefix(DETECTORS)] = path
        elif name == MANIFEST:
            manifest = path
        elif steps[name].kind == "fit":
            models[name] = path
        else:
            shards.setdefault(name, []).append(path)
    if drawn is not None:
        shards[steps.draw.name] = [drawn]
    inputs = Inputs(dataset, models, shards, detections, detectors, manifest)
    check_inputs(job.step, job.engine, inputs)
    return inputs


def hash_of(inputs: Inputs) -> dict[str, str]:
    """What earlier steps made, by name, for fingerprints: contents, not paths. Without the data set."""
    hashes = {name: folder_hash(path) for name, path in inputs.models.items()}
    for prefix, group in (("", inputs.shards), (DETECTIONS, inputs.detections)):
        for name, files in group.items():
            hashes[prefix + name] = content_hash([file_hash(file) for file in files])
    hashes |= {DETECTORS + name: file_hash(path) for name, path in inputs.detectors.items()}
    if inputs.manifest is not None:
        hashes[MANIFEST] = file_hash(inputs.manifest)
    return hashes


def folder_hash(path: Path) -> str:
    """Hash of names and contents of all files of a folder, or of one file.

    Raises:
        InputError: there is nothing.
    """
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    if not files:
        raise InputError(f"{path}: no such file or folder, or empty")
    return content_hash([[str(file.relative_to(path)), file_hash(file)] for file in files])
