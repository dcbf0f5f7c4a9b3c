"""Models Genesis as published (Zhou et al. 2019), for one slice, written from its description: the plain way, in loops.

With one axis less than there, and rectangles of our sides: it is what ours is compared with, in outcome and in speed.
`blocks` has the published sides, for cubes.
"""

from math import comb
from random import Random
from typing import NamedTuple

import numpy as np

WINDOWS = 10_000
FLIP, LOCAL, NONLINEAR, PAINT, INPAINT = 0.4, 0.5, 0.9, 0.9, 0.2


class Rectangle(NamedTuple):
    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def perturb(
    image: np.ndarray, windows: int, chance: Random, noise: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The network's input and its target."""
    for axis in flips(FLIP, chance):
        image = np.flip(image, axis)
    perturbed = image.copy()
    if chance.random() < LOCAL:
        perturbed = shuffle(perturbed, draw_windows(len(image), windows, chance), noise)
    if chance.random() < NONLINEAR:
        perturbed = bend(perturbed, chance)
    if chance.random() < PAINT:
        if chance.random() < INPAINT:
            paint_in(perturbed, rectangles_in(len(image), chance), noise)
        else:
            perturbed = paint_out(perturbed, rectangles_out(len(image), chance), noise)
    return perturbed, image


def flips(rate: float, chance: Random) -> list[int]:
    """Axes to flip along, one after the other."""
    axes: list[int] = []
    while chance.random() < rate and len(axes) < 3:
        axes.append(chance.choice([0, 1]))
    return axes


def draw_windows(size: int, number: int, chance: Random) -> list[Rectangle]:
    windows = []
    for _ in range(number):
        height, width = chance.randint(1, size // 10), chance.randint(1, size // 10)
        windows.append(Rectangle(chance.randint(0, size - height), chance.randint(0, size - width), height, width))
    return windows


def shuffle(image: np.ndarray, windows: list[Rectangle], noise: np.random.Generator) -> np.ndarray:
    """Each window of the original is shuffled and laid over what is there by then."""
    shuffled = image.copy()
    for window in windows:
        content = image[window.slices].flatten()
        noise.shuffle(content)
        shuffled[window.slices] = content.reshape(window.height, window.width)
    return shuffled


def bend(image: np.ndarray, chance: Random) -> np.ndarray:
    """A Bezier curve in 100,000 points, sorted by x; by y too in half of the cases, which makes it increase."""
    points = np.array([(0, 0), (chance.random(), chance.random()), (chance.random(), chance.random()), (1, 1)])
    bent: np.ndarray = np.interp(image, *curve(points, 100_000, increasing=chance.random() >= 0.5))
    return bent


def curve(points: np.ndarray, steps: int, *, increasing: bool) -> tuple[np.ndarray, np.ndarray]:
    """The curve runs down from the last point to the first, so that y decreases over the sorted x if left alone."""
    t = np.linspace(0, 1, steps)
    weights = np.array([comb(3, number) * t ** (3 - number) * (1 - t) ** number for number in range(4)])
    x, y = points.T @ weights
    return np.sort(x), np.sort(y) if increasing else y


def rectangles_in(size: int, chance: Random) -> list[Rectangle]:
    found: list[Rectangle] = []
    while len(found) < 5 and chance.random() < 0.95:
        found.append(inside(size, [chance.randint(size // 12, size // 6) for _ in range(2)], chance))
    return found


def rectangles_out(size: int, chance: Random) -> list[Rectangle]:
    found: list[Rectangle] = []
    while not found or (len(found) < 5 and chance.random() < 0.95):
        found.append(inside(size, [chance.randint(size // 4, 3 * size // 8) for _ in range(2)], chance))
    return found


def inside(size: int, sides: list[int], chance: Random) -> Rectangle:
    """Three of 64 pixels or more from the frame."""
    margin, (height, width) = 3 * size // 64, sides
    top, left = (chance.randint(margin, size - side - margin) for side in sides)
    return Rectangle(top, left, height, width)


def blocks(shape: tuple[int, ...], chance: Random, *, outside: bool) -> np.ndarray:
    """The voxels of a cube that in-painting fills or that out-painting leaves, as published."""
    marked, number = np.zeros(shape, bool), 0
    while number < 5 and ((outside and number == 0) or chance.random() < 0.95):
        place = []
        for size in shape:
            low, high = (3 * size // 7, 4 * size // 7) if outside else (size // 6, size // 3)
            side = size - chance.randint(low, high) if outside else chance.randint(low, high)
            start = chance.randint(3, size - side - 3)
            place.append(slice(start, start + side))
        marked[tuple(place)] = True
        number += 1
    return marked


def paint_in(image: np.ndarray, rectangles: list[Rectangle], noise: np.random.Generator) -> None:
    for one in rectangles:
        image[one.slices] = noise.random((one.height, one.width))


def paint_out(image: np.ndarray, rectangles: list[Rectangle], noise: np.random.Generator) -> np.ndarray:
    painted = noise.random(image.shape)
    for one in rectangles:
        painted[one.slices] = image[one.slices]
    return painted
