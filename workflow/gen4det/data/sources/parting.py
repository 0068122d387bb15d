"""One split of a user's own data parted into training and validation, category by category.

Iterative stratification for images with several labels (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011).
"""

from gen4det.core.provenance import seed_for

UNLABELLED = -1


def part(data: dict, share: float, seed: int) -> tuple[dict, dict]:
    """Training and validation, with images in their order and all categories.

    The rarest category is shared out first, image by image, to the side that lacks most of it; equals are
    decided by a hash of (seed, image id), so that the order of the file decides nothing. A category of one
    image is in the training split.

    Args:
        data: a dictionary whose references are sound.
        share: of the images, for validation.
    """
    shown: dict[int, set[int]] = {image["id"]: set() for image in data["images"]}
    for annotation in data["annotations"]:
        shown[annotation["image_id"]].add(annotation["category_id"])
    holders: dict[int, set[int]] = {}
    for image, categories in shown.items():
        for category in categories or {UNLABELLED}:
            holders.setdefault(category, set()).add(image)
    wanted = {
        category: [len(images) * (1 - share), len(images) * share] for category, images in holders.items()
    }
    room = [len(shown) * (1 - share), len(shown) * share]
    rank = {image: seed_for(seed, "validation", image) for image in shown}
    side: dict[int, int] = {}
    while holders:
        category = min(holders, key=lambda it: (it == UNLABELLED, len(holders[it]), it))
        for image in sorted(holders[category], key=rank.__getitem__):
            need = wanted[category]
            chosen = 1 if (need[1], room[1]) > (need[0], room[0]) else 0
            side[image] = chosen
            room[chosen] -= 1
            for other in shown[image] or {UNLABELLED}:
                wanted[other][chosen] -= 1
                if other != category:
                    holders[other].discard(image)
        del holders[category]
        holders = {it: images for it, images in holders.items() if images}
    return _of(data, side, 0), _of(data, side, 1)


def _of(data: dict, side: dict[int, int], wanted: int) -> dict:
    return data | {
        "images": [image for image in data["images"] if side[image["id"]] == wanted],
        "annotations": [label for label in data["annotations"] if side[label["image_id"]] == wanted],
    }
