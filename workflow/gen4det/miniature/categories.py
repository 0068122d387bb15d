"""The vocabulary of the miniature world: names, definitions, palettes, frequency groups."""

from dataclasses import dataclass

from gen4det.miniature import shapes


@dataclass(frozen=True)
class Category:
    """One kind of object.

    Attributes:
        id: 1-based, dense.
        name: a word of everyday language, as it stands in prompts.
        definition: LVIS's `def`.
        frequency: LVIS group in the detection set, "r", "c" or "f".
        train_images: number of training images of the LVIS edition that show it.
        hues: typical hues in degrees; most instances take one of them, the rest any.
        novel: whether the COCO edition holds it back as a novel category.
        max_rotation: largest rotation in degrees.
    """

    id: int
    name: str
    definition: str
    frequency: str
    train_images: int
    hues: tuple[int, ...]
    novel: bool = False
    max_rotation: float = 20.0

    @property
    def shape(self) -> shapes.Shape:
        return getattr(shapes, self.name)


_ROWS = (
    # name, definition, LVIS training images, typical hues, novel in COCO edition
    ("cup", "a small open container with a handle for drinking", 210, (205, 20), False),
    ("fish", "an animal with fins that lives in water", 190, (28, 195), False),
    ("tree", "a tall plant with a trunk and green branches", 220, (120,), False),
    ("house", "a building with a roof where people live", 180, (15, 45), False),
    ("car", "a vehicle with four wheels and an engine", 200, (0, 220), False),
    ("star", "a figure with five points", 150, (50,), False),
    ("apple", "a round fruit with a stem", 170, (0, 100), False),
    ("bottle", "a tall container with a narrow neck", 140, (140, 190), False),
    ("boat", "a small vessel with a sail that floats on water", 80, (25, 210), False),
    ("flower", "the bloom of a plant with petals around a centre", 70, (330, 290), False),
    ("hat", "a covering for the head with a flat brim", 60, (275, 220), False),
    ("chair", "a seat with four legs and a back", 50, (30,), False),
    ("lamp", "a light on a stand with a shade", 45, (42, 180), False),
    ("balloon", "a bag filled with air on a string", 40, (350, 300), True),
    ("bell", "a hollow metal object that rings", 30, (45,), True),
    ("ladder", "two long rails joined by steps for climbing", 24, (30, 200), False),
    ("key", "a metal tool that opens a lock", 9, (48, 210), True),
    ("mushroom", "a fungus with a stalk and a spotted cap", 8, (0, 20), True),
    ("butterfly", "an insect with two pairs of coloured wings", 7, (280, 30), False),
    ("crown", "a royal ornament for the head with points", 6, (50,), True),
    ("cactus", "a desert plant with a thick stem and arms", 5, (130,), False),
    ("kite", "a light frame covered with cloth that flies in wind", 5, (180, 320), True),
    ("snowman", "a figure of a person made of balls of snow", 4, (0, 210), False),
    ("umbrella", "a round cover on a stick that keeps off rain", 3, (260, 340), False),
)


def _group(images: int) -> str:
    """LVIS v1: rare up to 10 training images, common up to 100, frequent above."""
    return "r" if images <= 10 else "c" if images <= 100 else "f"


CATEGORIES = tuple(
    Category(index, name, definition, _group(images), images, hues, novel)
    for index, (name, definition, images, hues, novel) in enumerate(_ROWS, start=1)
)
BY_NAME = {category.name: category for category in CATEGORIES}
