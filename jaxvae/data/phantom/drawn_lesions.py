"""Lesions of the phantom: positions, effects on a slice, and masks.

Arrays are [N, P] in the normalised coordinates of `brain`: N slices with one lesion each, P pixels.
"""

from typing import NamedTuple

import numpy as np

from jaxvae.data.phantom.brain import coverage

KINDS = ("bright", "dark", "texture", "mass")
# Masks leave out smaller changes of brightness; white matter has 0.30, fluid 0.92.
VISIBLE = 0.05
# The brightness of a mass is between white and grey matter.
_MASS = 0.39


class Lesions(NamedTuple):
    """N lesions, every field [N, 1] but `lobes` [N, 3]."""

    p: np.ndarray  # the centre
    q: np.ndarray
    radius: np.ndarray  # mean distance to the outline; its square is about the lesion's fraction of the brain's area
    lobes: np.ndarray  # the phases of the outline's waves
    strength: np.ndarray  # 0..1, the change of brightness, or the contrast of a texture
    wavelength: np.ndarray  # of the waves of a texture
    direction: np.ndarray


COUNT = 10


def from_uniforms(uniforms: np.ndarray) -> Lesions:
    """Lesions from [N, COUNT] numbers in 0..1, each inside one half of the brain.

    Each has 2 to 10 % of the brain's area.
    """
    area, side, turn, away, *lobes, strength, wavelength, direction = np.split(uniforms, COUNT, axis=1)
    radius = np.sqrt(0.02 + 0.055 * area)
    # The pressure of a mass ends inside the outline of the brain.
    farthest = np.minimum(0.7, 1 - 1.55 * radius)
    distance, angle = 0.3 + (farthest - 0.3) * away, 2 * turn - 1
    return Lesions(
        p=np.where(side < 0.5, -1, 1) * distance * np.cos(angle),
        q=distance * np.sin(angle),
        radius=radius,
        lobes=2 * np.pi * np.concatenate(lobes, axis=1),
        strength=strength,
        wavelength=0.16 + 0.10 * wavelength,
        direction=np.pi * direction,
    )


def push(lesions: Lesions, p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The original place of the tissue that a mass has pushed to (p, q).

    With t the distance from the centre, 1 at the end of the pressure, tissue comes from t (1 - 0.9 (1 - t^4)^2): the
    centre swells tenfold, its surroundings are compressed without folds, and the outside joins smoothly.
    """
    # On the outline, t = 0.83, tissue has moved half of the largest movement.
    t = np.minimum(0.83 * _reach(lesions, p, q), 1)
    moved = 0.9 * np.square(1 - t**4)
    return p - (p - lesions.p) * moved, q - (q - lesions.q) * moved


def change(
    kind: str, lesions: Lesions, p: np.ndarray, q: np.ndarray, brightness: np.ndarray, blend: float
) -> tuple[np.ndarray, np.ndarray]:
    """(brightness with the lesion [N, P], mask [N, P] bool).

    A bright lesion moves brightness about half the way towards 1 and a dark one towards 0, so that the structure below
    stays visible. Its mask is every pixel that changes by more than `VISIBLE`. A texture replaces the structure with
    equal mean brightness; its mask is the area within its outline. A mass is as bright as tissue and has pushed its
    surroundings aside (`push`); its mask is the area within its outline: the mass and the tissue that moved at least
    half of the largest movement.
    """
    reach = _reach(lesions, p, q)
    if kind == "mass":
        return brightness + coverage((0.65 - reach) * lesions.radius, blend) * (_MASS - brightness), reach < 1
    if kind == "texture":
        extent = coverage((1 - reach) * lesions.radius, blend)
        missing = brightness - _mottle(lesions, p, q)
        mean = np.sum(extent * missing, axis=1, keepdims=True) / np.sum(extent, axis=1, keepdims=True)
        return brightness + extent * (mean - missing), reach < 1
    target, least = {"bright": (1, 0.45), "dark": (0, 0.35)}[kind]
    # Borders are soft, like those of an oedema.
    extent = coverage((1 - reach) * lesions.radius, blend + 0.05)
    difference = extent * (least + 0.2 * lesions.strength) * (target - brightness)
    return brightness + difference, np.abs(difference) > VISIBLE


def _reach(lesions: Lesions, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The relative distance of a pixel: 0 at the lesion's centre, 1 on its outline."""
    u, v = p - lesions.p, q - lesions.q
    angle = np.arctan2(v, u)
    two, three, five = np.split(lesions.lobes, 3, axis=1)
    waves = 0.13 * np.cos(2 * angle + two) + 0.08 * np.cos(3 * angle + three) + 0.04 * np.cos(5 * angle + five)
    return np.sqrt(u * u + v * v) / (lesions.radius * (1 + waves))


def _mottle(lesions: Lesions, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """A regular mottle of about zero mean: three waves at 60 degrees to each other."""
    number = 2 * np.pi / lesions.wavelength
    angles = [lesions.direction + turn * np.pi / 3 for turn in range(3)]
    waves = sum(np.cos(number * (p * np.cos(angle) + q * np.sin(angle))) for angle in angles)
    return (0.05 + 0.05 * lesions.strength) * waves
