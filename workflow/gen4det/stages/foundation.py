"""Make one part of the miniature's foundation models, or install them where they ship with the repository.

Parts, in their order: corpus, autoencoder, diffusion, inpainting, clip, aesthetic, backbone, judge; install.
Writes <folder>/<part>/result and result.record.json beside it. Training resumes from its last checkpoint, in
<folder>/<part>/work: run the same command again after an interruption. Exit status 143 after SIGTERM and 75
when --max-seconds is used up; both save first. On a GPU the same command takes minutes.
"""

import importlib
from pathlib import Path
from types import SimpleNamespace

from gen4det.core.errors import InputError
from gen4det.core.provenance import RunRecord, code_hash, content_hash, file_hash
from gen4det.detection.config_files import config_files
from gen4det.miniature.foundation_parts import INSTALL, PARTS, Part
from gen4det.miniature.foundation_settings import FoundationTraining
from gen4det.stages._cli import run, stage_parser, stage_settings
from gen4det.stages._device import torch_device
from gen4det.training.stop import Deadline
from gen4det.training.work_folder import WorkFolder


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("part", choices=(*PARTS, "install"))
    parser.add_argument("--folder", type=Path, required=True, help="folder of all parts")
    parser.add_argument(
        "--resources",
        type=Path,
        default=Path("resources/miniature"),
        help="where `install` copies the models (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--max-seconds", type=float, metavar="S", help="save and stop before this time is up")
    args = parser.parse_args()
    settings = stage_settings(args, FoundationTraining)
    part = PARTS.get(args.part, INSTALL)
    read = settings.model_dump(mode="json", include=set(part.settings))
    inputs = {name: args.folder / name / "result" for name in part.reads}
    for path in inputs.values():
        if not path.is_dir():
            raise InputError(f"{path}: no such folder; make this part first")
    device, output = torch_device(args.device), args.folder / args.part / "result"
    code = (__spec__.name, part.module)
    fingerprint = {
        **args.settings,  # the workflow adds hashes of what it read
        "settings": read,
        "code": code_hash(*code),
        **{name: tree_hash(path) for name, path in inputs.items()},
        "files": files_read(part, settings),
        "device": device,
    }
    record = RunRecord(output, settings=read, code=code, seeds={"world": settings.seed})
    record.add(inputs=fingerprint["files"] | {str(path): fingerprint[name] for name, path in inputs.items()})
    module = importlib.import_module(part.module)
    if part is INSTALL:
        with record:
            module.install(settings, args.folder, args.resources)
        return
    from gen4det.miniature.foundation_job import FoundationJob

    work = WorkFolder(
        output.parent / "work",
        fingerprint,
        doing=f"making {args.part}",
        keeps="**/checkpoint.pt",
        limit_attempts=False,  # each training in it has its own limit
    )
    with Deadline(args.max_seconds) as deadline, work:
        with record:
            only = SimpleNamespace(**{name: getattr(settings, name) for name in part.settings})
            job = FoundationJob(only, inputs, output, work.path, fingerprint, device, deadline)
            record.add(device=device, **module.make(job))
        work.remove()


def files_read(part: Part, settings: FoundationTraining) -> dict[str, str]:
    """Hashes of what a part reads beside its inputs: the config of a detector, weights to start from."""
    found = {path: file_hash(path) for path in config_files(part.config)} if part.config else {}
    if "diffusion_start" in part.settings and settings.diffusion_start:
        found[settings.diffusion_start] = tree_hash(Path(settings.diffusion_start))
    return {str(path): digest for path, digest in found.items()}


def tree_hash(folder: Path) -> str:
    """Hash of the names and contents of all files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return content_hash([[str(path.relative_to(folder)), file_hash(path)] for path in files])


if __name__ == "__main__":
    run(main)
