"""What to paint anew: which real images, which of their boxes, how often (Gen2Det, arXiv 2312.04566)."""

from collections.abc import Iterator

from gen4det.core.errors import InputError
from gen4det.core.provenance import seed_for
from gen4det.data.annotations import category_counts, index_annotations, is_object
from gen4det.data.images import image_name
from gen4det.data.references import require_images
from gen4det.diffusion.latent_boxes import latent_mask, painted_share
from gen4det.diffusion.sources import check_grounded, latent_cell, load_tokenizer
from gen4det.diffusion.words import spoken_name
from gen4det.engines import base
from gen4det.engines.gen2det.prompts import fit_prompts, phrases_of, prompt_of, warn_of_unknown_names
from gen4det.engines.gen2det.settings import Settings


class Planner(base.Planner):
    """Which real images are painted anew, and which of their boxes. Reads the training split only."""

    settings: Settings

    def plan(self) -> list[dict]:
        """See `plan_manifest`; the images must be there, and the model must take boxes."""
        source = self.settings.source(self.foundation)
        check_grounded(source)
        train = self.dataset.train
        data = train.load()
        rows = plan_manifest(data, self.settings, self.run_seed, latent_cell(source))
        require_images(train.images, rows, who="gen2det paints it anew")
        tokenizer = load_tokenizer(source)
        warn_of_unknown_names(used_categories(data, rows), tokenizer)
        return fit_prompts(rows, self.settings.prompt, tokenizer)


def plan_manifest(data: dict, settings: Settings, run_seed: int, cell: int) -> list[dict]:
    """Manifest of the whole synthetic set; needs no image.

    The first images of all references stand before the second ones, and so on. So a larger number of
    generations leaves every row and every batch before it as it was.

    Args:
        data: annotations of the training split.
        cell: side of a latent cell in pixels.

    Returns:
        Rows {"index", "batch", "seed", "reference_image_id", "number": which image of its reference, from 0,
        "file_name" of the reference, "height", "width": its size and that of the result, "prompt",
        "objects": see `plan_objects`}.

    Raises:
        InputError: a size that does not fit the model, a reference smaller than a latent cell, or no
            training image with a box.
    """
    cells = latent_size(settings, cell)
    objects = index_annotations(data)
    names = {category["id"]: spoken_name(category) for category in data["categories"]}
    holders = image_counts(data)
    references = []
    for image in choose_references(data, settings, run_seed):
        if min(image["width"], image["height"]) < cell:
            raise InputError(
                f"gen2det: training image {image['id']} ({image_name(image)}): {image['width']} x "
                f"{image['height']} px; expected at least one latent cell of this model, {cell} x {cell} px"
            )
        planned = plan_objects(
            objects[image["id"]], (image["height"], image["width"]), cells, settings, names, holders
        )
        references.append(
            {
                "reference_image_id": image["id"],
                "file_name": image_name(image),
                "height": image["height"],
                "width": image["width"],
                "prompt": prompt_of(phrases_of(planned), settings.prompt),
                "objects": planned,
            }
        )
    batches_per_number = -(-len(references) // settings.batch_size)
    rows = []
    for number in range(settings.generations_per_reference):
        for position, reference in enumerate(references):
            rows.append(
                {
                    "index": len(rows),
                    "batch": number * batches_per_number + position // settings.batch_size,
                    "seed": seed_for(run_seed, settings.method, reference["reference_image_id"], number),
                    "number": number,
                    **reference,
                }
            )
    return rows


def latent_size(settings: Settings, cell: int) -> tuple[int, int]:
    """(height, width) in latent cells at which the model paints.

    Raises:
        InputError: a side is not a multiple of a cell.
    """
    for side in ("height", "width"):
        value = getattr(settings.size, side)
        if value % cell:
            raise InputError(f"gen2det: size.{side}: {value} px is not a multiple of this model's {cell} px")
    return settings.size.height // cell, settings.size.width // cell


def choose_references(data: dict, settings: Settings, run_seed: int) -> list[dict]:
    """Records of the training images that are painted anew, the first `references` of the order asked for.

    A smaller number of references gives a part of what a larger one gives. Images whose boxes are all crowds
    or regions to ignore have nothing to paint.

    Raises:
        InputError: no image is left.
    """
    holders = image_counts(data)
    order = []
    for image, annotations in zip(data["images"], index_annotations(data).values(), strict=True):
        present = [holders[a["category_id"]] for a in annotations if is_object(a)]
        if present:
            rank = min(present) if settings.reference_order == "rare-first" else 0
            draw = seed_for(run_seed, settings.method, image["id"], "reference")
            order.append((rank, draw, image["id"], image))
    if not order:
        raise InputError("gen2det: no training image has a box to paint")
    order.sort(key=lambda entry: entry[:3])
    return [image for *_, image in order[: settings.references]]


def image_counts(data: dict) -> dict[int, int]:
    """Training images that show each category, by its id."""
    return {category: images for category, (images, _) in category_counts(data).items()}


def plan_objects(
    annotations: list[dict],
    image: tuple[int, int],
    cells: tuple[int, int],
    settings: Settings,
    names: dict[int, str],
    holders: dict[int, int],
) -> list[dict]:
    """What becomes of each label of a reference.

    Args:
        annotations: of one image, in their order.
        image: its (height, width) in pixels.
        cells: (height, width) of its latent image.
        names: of the categories, as phrases.
        holders: see `image_counts`.

    Returns:
        In the same order {"category_id", "bbox": [x, y, width, height] in pixels of the reference, "role"}.
        Roles are "painted" (these have a "phrase"; at most `max_boxes`), "covered" (not painted,
        but others painted over most of it), "kept" (still the real object) and "crowd" (no object:
        `iscrowd` or `ignore`).
    """

    def rank(i: int) -> tuple[int, float]:
        rare_first = settings.box_order == "rare-first"
        _, _, width, height = annotations[i]["bbox"]
        return holders[annotations[i]["category_id"]] if rare_first else 0, -width * height

    single = [i for i, annotation in enumerate(annotations) if is_object(annotation)]
    painted = set(sorted(single, key=rank)[: settings.max_boxes])
    mask = None
    if len(painted) < len(single):
        mask = latent_mask([annotations[i]["bbox"] for i in sorted(painted)], image, cells)
    planned = []
    for i, annotation in enumerate(annotations):
        category, box = annotation["category_id"], annotation["bbox"]
        entry = {"category_id": category, "bbox": box}
        if i in painted:
            entry |= {"role": "painted", "phrase": names[category]}
        elif not is_object(annotation):
            entry["role"] = "crowd"
        else:
            covered = painted_share(box, image, mask) > settings.max_covered
            entry["role"] = "covered" if covered else "kept"
        planned.append(entry)
    return planned


def used_categories(data: dict, rows: list[dict]) -> Iterator[dict]:
    """Categories that some row paints, in the order of the data."""
    used = {entry["category_id"] for row in rows for entry in row["objects"] if entry["role"] == "painted"}
    return (category for category in data["categories"] if category["id"] in used)
