"""A scale file for one's own data, written from what the data are, and checked before anything starts.

    make own DATA=folder [NAMES="cup, fish"|file] [ENGINES=mosaicfusion,gen2det] [OWN=config/own.yaml]

A file that is there already is kept, with what was changed in it, and checked again.
"""

import argparse
import json
import logging
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.provenance import PACKAGE_ROOT, atomic_write
from gen4det.core.settings import parse_settings, suggest
from gen4det.core.yaml_files import read_yaml, shown
from gen4det.data.annotations import is_object
from gen4det.data.defects import HINT, Defects
from gen4det.data.source_settings import NamesDataset, PhotographsDataset
from gen4det.data.sources.folder import read_folder
from gen4det.data.sources.found import images_by_stem
from gen4det.data.sources.own import read_splits
from gen4det.data.validation import validate_annotations
from gen4det.orchestration.costs.__main__ import COSTS, size
from gen4det.orchestration.costs.estimates import Estimator
from gen4det.orchestration.costs.settings import Costs
from gen4det.orchestration.costs.tasks import tasks
from gen4det.orchestration.own_file import ENGINES, MASKS, own_file
from gen4det.orchestration.project import Project, load_project

log = logging.getLogger(__name__)

ROOT = PACKAGE_ROOT.parent
DEFAULT = FROM_NAMES = ("mosaicfusion",)
"""Engines where none are named, and those that need no real image: nothing is fitted for them."""
DATASET = "own"
"""Name of the data set, and of the study, in the file."""


@dataclass(frozen=True)
class Wishes:
    """What the command line asks for."""

    data: Path | None
    names: tuple[tuple[str, str], ...]
    """(name, definition); empty: those of the annotations."""
    engines: tuple[str, ...]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="make own",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="images and annotations")
    parser.add_argument(
        "--names", default="", metavar="TEXT|FILE", help="categories, where nothing is annotated"
    )
    parser.add_argument(
        "--engines", default="", metavar="A,B", help=f"of {', '.join(ENGINES)}; default: the first"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "config/own.yaml", metavar="FILE", help="scale file"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        wishes = Wishes(args.data, read_names(args.names), _listed(args.engines))
        prepare(wishes, args.output)
    except InputError as error:
        sys.exit(f"error: {error}")


def prepare(wishes: Wishes, output: Path) -> Project:
    """Write the scale file, unless it is there, and check all that can be checked without drawing.

    Raises:
        InputError: one line for the first problem.
    """
    if output.is_file():
        _same(wishes, output)
        log.info("%s is kept as it is; delete it to begin anew", output)
    else:
        text = _described(wishes, output)
        with atomic_write(output) as temporary:
            temporary.write_text(text)
        log.info("written: %s; what it says can be changed there", output)
    values = read_yaml(output)
    project = load_project(values, source=str(output), root=ROOT)
    for line in check(project, output):
        log.warning(line)
    check_disk(project)
    return project


# --- what the command line says -------------------------------------------------------------------


def read_names(text: str) -> tuple[tuple[str, str], ...]:
    """Names from "cup, fish", or from a file with a name in each line; "name: definition" has both.

    Raises:
        InputError: an empty file.
    """
    if not text.strip():
        return ()
    lines = Path(text).read_text().splitlines() if Path(text).is_file() else text.split(",")
    pairs = [line.partition(":") for line in lines if line.strip()]
    if not pairs:
        raise InputError(f"{text}: no names")
    return tuple((name.strip(), definition.strip()) for name, _, definition in pairs)


def _listed(text: str) -> tuple[str, ...]:
    engines = tuple(dict.fromkeys(text.replace(",", " ").split())) or DEFAULT
    for engine in engines:
        if engine not in ENGINES:
            raise InputError(
                f"ENGINES: {engine!r} is no row of config/studies/own.yaml{suggest(engine, ENGINES)}"
            )
    return engines


def _same(wishes: Wishes, output: Path) -> None:
    """A file that is there is about the same data."""
    data = read_yaml(output).get("datasets", {}).get(DATASET, {})
    said = data.get("folder")
    if wishes.data is not None and said is not None and Path(said).resolve() != wishes.data.resolve():
        raise InputError(
            f"{output}: is about {said}, not {wishes.data}; delete it, or name another file: OWN=..."
        )
    if wishes.names and said is not None:
        raise InputError(f"{output}: is about the annotations in {said}; delete it to begin anew from names")


# --- what the data are ----------------------------------------------------------------------------


def _described(wishes: Wishes, output: Path) -> str:
    """Text of the scale file for these data."""
    if wishes.data is not None and not wishes.data.is_dir():
        raise InputError(f"DATA: {wishes.data}: no such folder")
    if wishes.names:
        if wishes.data is not None:
            _only_unlabelled(wishes.data)
        for engine in set(wishes.engines) - set(FROM_NAMES):
            suffices = ", ".join(FROM_NAMES)
            raise InputError(f"ENGINES: {engine} needs real images; names alone suffice for {suffices}")
        return own_file(shown(output), None, wishes.names, wishes.engines, masks="")
    if wishes.data is None:
        raise InputError(
            'give DATA=folder of images and annotations, or NAMES="cup, fish" to draw from names'
        )
    settings = PhotographsDataset(source="photographs", folder=str(wishes.data))
    found = read_splits(settings, Defects("drop"), look=False)
    objects = [it for split in found.values() for it in split.data["annotations"] if is_object(it)]
    outlined = sum(bool(it.get("segmentation")) for it in objects)
    masks = MASKS if objects and outlined == len(objects) else ""
    if outlined and not masks:
        log.warning("%d of %d objects have a mask: boxes are learnt", outlined, len(objects))
    return own_file(shown(output), wishes.data, (), wishes.engines, masks=masks)


def _only_unlabelled(folder: Path) -> None:
    """Names stand in for annotations, not beside them."""
    try:
        read_folder(folder, Defects("drop"))
    except InputError:
        count = sum(map(len, images_by_stem(folder).values()))
        log.warning("%s: %d images without annotations; they are not used, names suffice", folder, count)
        return
    raise InputError(f"{folder}: has annotations, which say the names; give DATA or NAMES, not both")


# --- checks ---------------------------------------------------------------------------------------


def check(project: Project, output: Path) -> list[str]:
    """Check annotations, engines and names; images are read by the first job.

    Returns:
        Warnings, one line each.

    Raises:
        InputError: what the first job would refuse of the annotations.
    """
    data = project.config.datasets[DATASET]
    if isinstance(data, NamesDataset):
        return foreign_names(project, [name for name, _ in data.pairs()])
    defects = Defects(data.on_bad_annotation)
    found = read_splits(data, defects, look=False)
    warnings = [defects.summary()] if defects.found else []
    for split, it in found.items():
        allow = split == "val" or data.allow_empty_categories
        warnings += validate_annotations(it.data, source=it.source, allow_empty_categories=allow, hint=HINT)
    check_layouts(project, found["train"].data)
    return warnings + foreign_names(project, [c["name"] for c in found["train"].data["categories"]])


def check_layouts(project: Project, train: dict) -> None:
    """DetDiffusion draws layouts of the training images: there must be some that it takes.

    Raises:
        InputError: no image has as many objects as the engine's settings ask for.
    """
    images = {image["id"]: image["width"] * image["height"] for image in train["images"]}
    for name, variant in project.engines.items():
        if variant.settings.method != "detdiffusion":
            continue
        wanted = variant.settings.layouts
        counts = Counter(
            it["image_id"]
            for it in train["annotations"]
            if is_object(it) and it["bbox"][2] * it["bbox"][3] > wanted.least_area * images[it["image_id"]]
        )
        if not any(wanted.min_objects <= count <= wanted.max_objects for count in counts.values()):
            raise InputError(
                f"{name} does not suit these data: no training image has {wanted.min_objects} to "
                f"{wanted.max_objects} objects that cover more than {wanted.least_area:.0%} of it; change "
                "its `layouts`, or leave it out of ENGINES"
            )


def check_disk(project: Project) -> None:
    """Refuse what does not fit where the results go, by the sizes that `make plan` prints.

    Raises:
        InputError: too little space.
    """
    costs = parse_settings(Costs, read_yaml(COSTS), source=str(COSTS))
    rules = Estimator(project, costs).by_rule(tasks(project))
    needed = sum((rule.stored or 0) + (rule.passing or 0) for rule in rules.values())
    place = project.root / project.config.results
    free = shutil.disk_usage(next(it for it in (place, *place.parents) if it.is_dir())).free
    if free < needed:
        raise InputError(
            f"{place}: about {size(needed)} are needed (make plan says by what), {size(free)} are free; make "
            "room, or set `results` to a folder on a larger disk"
        )


def foreign_names(project: Project, names: Iterable[str]) -> list[str]:
    """A warning about names with words that the text-to-image model's tokenizer does not know whole."""
    model = project.config.foundation.diffusion
    words = known_words(project.root / model.path) if model else None
    if words is None:
        return []
    names = list(names)
    foreign = [name for name in names if any(word not in words for word in spoken_words(name))]
    if not foreign:
        return []
    some = ", ".join(map(repr, foreign[:5])) + (", ..." if len(foreign) > 5 else "")
    return [
        f"{len(foreign)} of {len(names)} names have words that {model.path} does not know whole ({some}); it "
        "can hardly draw them: set foundation.diffusion to a model that does, e.g. Stable Diffusion"
    ]


def spoken_words(name: str) -> Sequence[str]:
    """Words of a name as prompts say them, without what stands in parentheses."""
    head = name.partition("(")[0].strip() or name
    return head.replace("_", " ").lower().split()


def known_words(folder: Path) -> set[str] | None:
    """Words that are one token of a pipeline's tokenizer; None where it is not on this disk."""
    for name, pick in (("tokenizer.json", lambda it: it["model"]["vocab"]), ("vocab.json", lambda it: it)):
        path = folder / "tokenizer" / name
        if path.is_file():
            vocabulary = pick(json.loads(path.read_text()))
            return {token.removesuffix("</w>") for token in vocabulary if token.endswith("</w>")}
    return None


if __name__ == "__main__":
    main()
