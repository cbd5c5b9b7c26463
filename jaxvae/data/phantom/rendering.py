"""The embedded data set: T2-like slices of brains that nobody had, with lesions whose every pixel is known."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxvae.data.dataset import Dataset, Splits
from jaxvae.data.phantom import brain as brain
from jaxvae.data.phantom import lesions as lesions
from jaxvae.errors import ArgumentError

_STREAMS = {"train": 0, "validation": 1, "test": 2}
# Arrays of so many numbers stay in the cache of a core; four times as many take three times as long per slice.
_PIXELS_AT_ONCE = 2**15
_NOISE = 0.025


def slices(count: int, *, size: int = 64, seed: int = 0) -> np.ndarray:
    """Healthy slices, [count, size, size, 1] float32 in 0..1; outside the brain exactly 0.

    Slice i depends on (seed, i, size) only, and another size shows the same brain with other noise. Ten thousand of 64
    x 64 take about ten seconds on two cores.

    Raises:
      InputError: where a number is out of range.

    >>> slices(3, size=32).shape
    (3, 32, 32, 1)
    """
    _check(count=count, size=size, seed=seed)
    return _render("train", "healthy", np.arange(count), size, seed)[0]


def load(*, train: int = 2000, test: int = 400, size: int = 64, seed: int = 0, validation: float = 0.1) -> Splits:
    """Healthy brains to learn from, and others of which every second one has a lesion.

    The lesions are of four kinds in equal parts: `bright`, `dark`, `texture` (another pattern, as bright on average)
    and `mass` (as bright as tissue, it pushes aside what is around it). `phantom_lesions.change` says what each mask
    holds; those of healthy slices are empty. No two slices share a subject. A threshold on brightness does not
    find the lesions: fluid is brighter than the bright ones, and the background darker than the dark ones.

    Args:
      train: number of slices to learn from: those that `slices` gives.
      test: number of slices to judge.
      size: height and width in pixels.
      seed: which brains.
      validation: healthy slices to validate on, as a fraction of `train`, on top of it.
    Raises:
      InputError: where a number is out of range.
    """
    _check(train=train, test=test, size=size, seed=seed)
    if not 0 <= validation <= 1:
        raise ArgumentError("validation", validation, "give a fraction of the training slices, from 0 to 1")
    # Healthy ones in between, so that the beginning of the test set shows everything.
    judged = [kind for sick in lesions.KINDS for kind in ("healthy", sick)]
    return Splits(
        train=_dataset("train", ["healthy"] * train, size, seed),
        validation=_dataset("validation", ["healthy"] * round(validation * train), size, seed),
        test=_dataset("test", [judged[i % len(judged)] for i in range(test)], size, seed),
    )


def _check(size: int, seed: int, **counts: int) -> None:
    for name, value in {**counts, "seed": seed}.items():
        if value < 0:
            raise ArgumentError(name, value, "give a whole number, 0 or more")
    if size < 16:
        raise ArgumentError("size", size, "a slice needs 16 pixels or more in height and width to show a brain")


def _dataset(split: str, kinds: list[str], size: int, seed: int) -> Dataset:
    images = np.empty((len(kinds), size, size, 1), dtype=np.float32)
    masks = np.empty(images.shape, dtype=bool)
    for kind in set(kinds):
        index = np.flatnonzero(np.array(kinds) == kind)
        images[index], masks[index] = _render(split, kind, index, size, seed)
    names = tuple(f"{split}/{i:05d}" for i in range(len(kinds)))
    labels = np.array([kind != "healthy" for kind in kinds], dtype=bool)
    return Dataset(images, labels, masks, names, groups=names, kinds=tuple(kinds))


def _render(split: str, kind: str, index: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(images, masks) [N, size, size, 1] of the slices `index` of a split, all with a lesion of the same kind."""
    images = np.empty((len(index), size, size, 1), dtype=np.float32)
    masks = np.empty(images.shape, dtype=bool)
    step = max(1, _PIXELS_AT_ONCE // size**2)

    def fill(start: int) -> None:
        some = slice(start, start + step)
        image, mask = _draw(split, kind, index[some], size, seed)
        images[some], masks[some] = image.reshape(-1, size, size, 1), mask.reshape(-1, size, size, 1)

    # NumPy lets go of the interpreter while it computes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fill, range(0, len(index), step)):
            pass
    return images, masks


def _draw(split: str, kind: str, index: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(images, masks), each [N, size * size]: as `_render`, all at once."""
    streams = [np.random.default_rng((seed, _STREAMS[split], i)) for i in index]
    normals = np.stack([stream.standard_normal(brain.COUNT, dtype=np.float32) for stream in streams])
    noise = np.stack([stream.standard_normal((2, size * size), dtype=np.float32) for stream in streams], axis=1)
    subjects = brain.from_normals(normals)
    p, q = brain.coordinates(subjects, size)
    blend = brain.softness(size)
    if kind == "healthy":
        brightness, inside = brain.tissue(subjects, p, q, blend)
        mask = np.zeros_like(inside)
    else:
        # A lesion has numbers of its own, so that the brain around it is the one the slice would show without.
        streams = [np.random.default_rng((seed, _STREAMS[split], i, 1)) for i in index]
        uniforms = np.stack([stream.random(lesions.COUNT, dtype=np.float32) for stream in streams])
        lesion = lesions.from_uniforms(uniforms)
        came_from = lesions.push(lesion, p, q) if kind == "mass" else (p, q)
        brightness, inside = brain.tissue(subjects, *came_from, blend)
        brightness, mask = lesions.change(kind, lesion, p, q, brightness, blend)
    return _acquire(subjects, brightness, inside, noise, size), mask & inside


def _acquire(
    subjects: brain.Subjects, brightness: np.ndarray, inside: np.ndarray, noise: np.ndarray, size: int
) -> np.ndarray:
    """What a scanner makes of a slice: a smooth bias field, and the noise of a magnitude image (Rician)."""
    x, y = brain.grid(size)
    fields = np.stack([x, y, x * x, y * y, x * y, x * x * y])
    biased = brightness * np.exp(brain.combination(0.07 * subjects.bias, fields))
    real, imaginary = biased + _NOISE * noise[0], _NOISE * noise[1]
    return np.clip(np.sqrt(real * real + imaginary * imaginary), 0, 1) * inside
