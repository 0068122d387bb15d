"""What all figures share: style, colours, and files that are equal when their contents are."""

import contextlib
import functools
import logging
import textwrap
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure

from gen4det.core.errors import InputError
from gen4det.core.provenance import atomic_write

COLUMN_WIDTH = 3.35
PAGE_WIDTH = 7.0
"""Inches, of one and of both columns of a two-column paper."""
PALETTE = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1")
"""Okabe and Ito's colours, told apart by colour-blind readers; the pale yellow gives way to a violet."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
GREY = "#666666"

_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 6,
    "legend.fontsize": 6.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "gen4det",
    "figure.dpi": 100,
}

logging.getLogger("fontTools").setLevel(logging.WARNING)  # tells of every glyph it leaves out


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The style; for drawing and for saving."""
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE, "backend": matplotlib.get_backend()}):
        yield


@functools.cache
def _letters() -> frozenset[int]:
    """Code points that the font of all figures has."""
    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())


def as_text(name: str) -> str:
    """A name as figures show it: dollars make no formula, letters that the font lacks are [U+732B]."""
    shown = (letter if ord(letter) in _letters() else f"[U+{ord(letter):04X}]" for letter in name)
    return "".join(shown).replace("$", r"\$")


def heading(*texts: str, characters: int) -> str:
    """Texts below each other, each broken to this width; what repeats the one before is left out."""
    kept = [text for previous, text in zip(("", *texts), texts, strict=False) if text and text != previous]
    return "\n".join(line for text in kept for line in textwrap.wrap(text, characters))


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 200) -> list[Path]:
    """Write `path` (.pdf or .png) and its sibling of the other kind, without dates, atomically.

    Raises:
        InputError: another suffix.
    """
    path = Path(path)
    if path.suffix not in (".pdf", ".png"):
        raise InputError(f"{path}: expected a name that ends in .pdf or .png")
    written = []
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {"Software": None})):
        target = path.with_suffix(suffix)
        with atomic_write(target) as temporary, style():
            figure.savefig(temporary, dpi=dpi, metadata=metadata)
        written.append(target)
    return written
