"""Outlines of the miniature world's objects.

Every object is a list of parts `(role, polygon)`, painted in order. A polygon is an (n, 2) float array
in object coordinates: x to the right, y down, the object about filling [-1, 1] x [-1, 1]. The role names
the colour: "main", "second", "light" or "dark".
"""

from collections.abc import Callable

import numpy as np

Part = tuple[str, np.ndarray]
Shape = Callable[[np.random.Generator], list[Part]]


def ellipse(cx: float, cy: float, rx: float, ry: float, start: float = 0, stop: float = 360) -> np.ndarray:
    """Polygon of an elliptic arc; angles in degrees, clockwise from the positive x axis."""
    count = 28 if stop - start >= 360 else 18
    angles = np.radians(np.linspace(start, stop, count, endpoint=stop - start < 360))
    return np.stack([cx + rx * np.cos(angles), cy + ry * np.sin(angles)], 1)


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """Axis-parallel rectangle."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)


def poly(*points: tuple[float, float]) -> np.ndarray:
    """Polygon through the given points."""
    return np.array(points, float)


def stroke(points: list[tuple[float, float]], width: float) -> np.ndarray:
    """Polygon of a line of constant width through the given points."""
    line = np.array(points, float)
    tangent = np.gradient(line, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
    normal *= width / 2 / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    return np.concatenate([line + normal, (line - normal)[::-1]])


def star_polygon(points: int, inner: float, cx: float = 0, cy: float = 0, radius: float = 1) -> np.ndarray:
    """Star with the given number of points; `inner` is the inner radius relative to the outer one."""
    angles = np.pi * np.arange(2 * points) / points - np.pi / 2
    radii = radius * np.where(np.arange(2 * points) % 2, inner, 1.0)
    return np.stack([cx + radii * np.cos(angles), cy + radii * np.sin(angles)], 1)


def ring(cx: float, cy: float, outer: float, inner: float, start: float, stop: float) -> np.ndarray:
    """Part of a ring between two radii."""
    return np.concatenate([
        ellipse(cx, cy, outer, outer, start, stop), ellipse(cx, cy, inner, inner, start, stop)[::-1]
    ])  # fmt: skip


def cup(rng):
    taper = rng.uniform(0.0, 0.2)
    return [
        ("main", ring(0.45, 0.0, 0.5, 0.26, -90, 90)),
        ("main", poly((-0.9, -0.8), (0.5, -0.8), (0.5 - taper, 0.8), (-0.9 + taper, 0.8))),
        ("dark", ellipse(-0.2, -0.8, 0.7, 0.16)),
        ("second", box(-0.84 + taper / 2, -0.1, 0.44 - taper / 2, 0.15)),
    ]


def fish(rng):
    tall = rng.uniform(0.42, 0.6)
    return [
        ("second", poly((0.3, 0), (1.0, -0.6), (0.85, 0), (1.0, 0.6))),
        ("second", poly((-0.3, -tall + 0.1), (0.25, -0.85), (0.3, -tall + 0.25))),
        ("main", ellipse(-0.2, 0, 0.78, tall)),
        ("light", ellipse(-0.62, -0.12, 0.14, 0.14)),
        ("dark", ellipse(-0.64, -0.12, 0.07, 0.07)),
    ]


def tree(rng):
    layers = [("dark", box(-0.16, 0.5, 0.16, 1.0))]
    for base, top, width in ((0.6, -0.1, 0.85), (0.15, -0.55, 0.68), (-0.3, -1.0, 0.5)):
        layers.append(("main", poly((-width, base), (width, base), (0, top))))
    return layers


def house(rng):
    door = rng.uniform(-0.4, 0.1)
    return [
        ("main", box(-0.75, -0.15, 0.75, 0.95)),
        ("second", poly((-1.0, -0.1), (0, -1.0), (1.0, -0.1))),
        ("dark", box(door, 0.35, door + 0.35, 0.95)),
        ("light", box(0.28, 0.1, 0.6, 0.42)),
    ]


def car(rng):
    return [
        ("second", poly((-0.6, -0.05), (-0.35, -0.55), (0.3, -0.55), (0.6, -0.05))),
        ("light", poly((-0.42, -0.08), (-0.26, -0.42), (-0.05, -0.42), (-0.05, -0.08))),
        ("main", poly((-1, 0.4), (-1, 0.0), (-0.7, -0.1), (0.75, -0.1), (1, 0.1), (1, 0.4))),
        ("dark", ellipse(-0.52, 0.42, 0.27, 0.27)),
        ("dark", ellipse(0.52, 0.42, 0.27, 0.27)),
        ("light", ellipse(-0.52, 0.42, 0.1, 0.1)),
        ("light", ellipse(0.52, 0.42, 0.1, 0.1)),
    ]


def star(rng):
    return [("main", star_polygon(5, rng.uniform(0.4, 0.5)))]


def apple(rng):
    return [
        ("dark", stroke([(0.0, -0.45), (0.05, -0.7), (0.15, -0.95)], 0.13)),
        ("second", ellipse(0.4, -0.75, 0.3, 0.14)),
        ("main", ellipse(-0.3, 0.2, 0.58, 0.72)),
        ("main", ellipse(0.3, 0.2, 0.58, 0.72)),
        ("light", ellipse(-0.4, -0.05, 0.12, 0.2)),
    ]


def bottle(rng):
    neck = rng.uniform(0.13, 0.2)
    return [
        ("main", poly((-neck, -0.75), (neck, -0.75), (neck, -0.35), (0.42, -0.1), (0.42, 1), (-0.42, 1),
                      (-0.42, -0.1), (-neck, -0.35))),
        ("dark", box(-neck - 0.05, -1.0, neck + 0.05, -0.75)),
        ("light", box(-0.42, 0.15, 0.42, 0.65)),
    ]  # fmt: skip


def boat(rng):
    return [
        ("dark", box(-0.06, -0.95, 0.06, 0.4)),
        ("light", poly((0.1, -0.9), (0.1, 0.25), (0.8, 0.25))),
        ("second", poly((-0.1, -0.65), (-0.1, 0.25), (-0.6, 0.25))),
        ("main", poly((-1, 0.35), (1, 0.35), (0.65, 0.9), (-0.65, 0.9))),
    ]


def flower(rng):
    petals = [("main", ellipse(0.48 * np.cos(a), -0.35 + 0.48 * np.sin(a), 0.3, 0.3))
              for a in np.radians(np.arange(6) * 60)]  # fmt: skip
    return [
        ("dark", box(-0.07, -0.3, 0.07, 1.0)),
        ("dark", ellipse(0.3, 0.72, 0.3, 0.12)),
        *petals,
        ("second", ellipse(0, -0.35, 0.28, 0.28)),
    ]


def hat(rng):
    tall = rng.uniform(0.75, 0.95)
    return [
        ("main", poly((-0.5, 0.45), (-0.55, -tall), (0.55, -tall), (0.5, 0.45))),
        ("second", box(-0.52, 0.1, 0.52, 0.4)),
        ("main", ellipse(0, 0.5, 1.0, 0.2)),
    ]


def chair(rng):
    return [
        ("dark", box(-0.6, 0.2, -0.42, 1.0)),
        ("dark", box(0.42, 0.2, 0.6, 1.0)),
        ("main", box(-0.65, 0.05, 0.65, 0.3)),
        ("main", box(-0.65, -1.0, -0.42, 0.1)),
        ("second", box(-0.42, -0.9, 0.5, -0.55)),
        ("second", box(-0.42, -0.4, 0.5, -0.15)),
        ("main", box(0.42, -1.0, 0.65, 0.1)),
    ]


def lamp(rng):
    return [
        ("dark", box(-0.08, -0.1, 0.08, 0.85)),
        ("dark", ellipse(0, 0.88, 0.5, 0.13)),
        ("main", poly((-0.4, -1.0), (0.4, -1.0), (0.8, 0.0), (-0.8, 0.0))),
        ("second", poly((-0.74, -0.16), (0.74, -0.16), (0.8, 0.0), (-0.8, 0.0))),
    ]


def balloon(rng):
    bend = rng.uniform(-0.25, 0.25)
    return [
        ("dark", stroke([(0, 0.4), (bend, 0.65), (-bend / 2, 1.0)], 0.09)),
        ("main", ellipse(0, -0.35, 0.6, 0.68)),
        ("main", poly((-0.12, 0.45), (0.12, 0.45), (0, 0.25))),
        ("light", ellipse(-0.22, -0.58, 0.12, 0.2)),
    ]


def bell(rng):
    return [
        ("dark", ellipse(0, 0.78, 0.2, 0.2)),
        ("second", ellipse(0, -0.85, 0.15, 0.15)),
        ("main", poly((-0.18, -0.8), (0.18, -0.8), (0.5, -0.45), (0.58, 0.3), (0.9, 0.65), (-0.9, 0.65),
                      (-0.58, 0.3), (-0.5, -0.45))),
        ("second", box(-0.7, 0.4, 0.7, 0.52)),
    ]  # fmt: skip


def ladder(rng):
    rungs = [("second", box(-0.36, y, 0.36, y + 0.14)) for y in (-0.8, -0.38, 0.04, 0.46)]
    return [*rungs, ("main", box(-0.5, -1, -0.33, 1)), ("main", box(0.33, -1, 0.5, 1))]


def key(rng):
    return [
        ("main", ring(-0.55, 0, 0.45, 0.2, 0, 360)),
        ("main", box(-0.15, -0.12, 1.0, 0.12)),
        ("main", box(0.5, 0.1, 0.66, 0.45)),
        ("main", box(0.8, 0.1, 0.98, 0.5)),
    ]


def mushroom(rng):
    return [
        ("light", poly((-0.25, 0.0), (0.25, 0.0), (0.36, 0.95), (-0.36, 0.95))),
        ("main", np.concatenate([ellipse(0, 0.12, 0.98, 1.05, 180, 360)])),
        ("light", ellipse(-0.45, -0.3, 0.17, 0.15)),
        ("light", ellipse(0.1, -0.6, 0.17, 0.15)),
        ("light", ellipse(0.5, -0.15, 0.17, 0.15)),
    ]


def butterfly(rng):
    return [
        ("main", ellipse(-0.52, -0.4, 0.46, 0.5)),
        ("main", ellipse(0.52, -0.4, 0.46, 0.5)),
        ("second", ellipse(-0.42, 0.45, 0.36, 0.4)),
        ("second", ellipse(0.42, 0.45, 0.36, 0.4)),
        ("light", ellipse(-0.55, -0.42, 0.16, 0.16)),
        ("light", ellipse(0.55, -0.42, 0.16, 0.16)),
        ("dark", ellipse(0, 0.02, 0.12, 0.75)),
    ]


def crown(rng):
    return [
        ("main", poly((-0.85, 0.75), (-1.0, -0.5), (-0.5, 0.05), (0, -0.85), (0.5, 0.05), (1.0, -0.5),
                      (0.85, 0.75))),
        ("second", box(-0.86, 0.42, 0.86, 0.75)),
        ("light", ellipse(0, -0.02, 0.15, 0.15)),
    ]  # fmt: skip


def cactus(rng):
    left, right = rng.uniform(-0.3, 0.0), rng.uniform(-0.3, 0.0)
    return [
        ("main", ellipse(0, -0.75, 0.27, 0.25)),
        ("main", box(-0.27, -0.75, 0.27, 0.6)),
        ("main", box(-0.8, left + 0.2, 0, left + 0.45)),
        ("main", box(-0.85, left - 0.35, -0.58, left + 0.45)),
        ("main", box(0, right + 0.2, 0.8, right + 0.45)),
        ("main", box(0.58, right - 0.35, 0.85, right + 0.45)),
        ("second", poly((-0.55, 0.55), (0.55, 0.55), (0.4, 1.0), (-0.4, 1.0))),
    ]


def kite(rng):
    return [
        ("dark", stroke([(0, 0.3), (0.2, 0.7), (0.45, 1.0)], 0.1)),
        ("main", poly((0, -1), (0.7, -0.3), (0, 0.5))),
        ("second", poly((0, -1), (-0.7, -0.3), (0, 0.5))),
        ("second", poly((0.02, 0.72), (0.3, 0.6), (0.3, 0.86))),
    ]


def snowman(rng):
    return [
        ("light", ellipse(0, 0.5, 0.58, 0.5)),
        ("light", ellipse(0, -0.22, 0.4, 0.38)),
        ("dark", box(-0.42, -0.66, 0.42, -0.52)),
        ("dark", box(-0.26, -1.0, 0.26, -0.6)),
        ("main", box(-0.4, -0.02, 0.4, 0.14)),
        ("main", poly((0, -0.36), (0, -0.2), (0.35, -0.27))),
        ("dark", ellipse(0, 0.4, 0.08, 0.08)),
    ]


def umbrella(rng):
    return [
        ("dark", box(-0.06, -0.2, 0.06, 0.75)),
        ("dark", ring(0.18, 0.74, 0.24, 0.12, 0, 180)),
        ("main", ellipse(0, 0.05, 1.0, 0.98, 180, 360)),
        ("second", np.concatenate([ellipse(0, 0.05, 0.38, 0.98, 180, 360)])),
    ]
