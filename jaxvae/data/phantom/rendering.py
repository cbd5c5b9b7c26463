"""The embedded data set: synthetic brain slices with lesions and exact masks."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxvae.data.dataset import Dataset, Splits
from jaxvae.data.phantom import brain, drawn_lesions
from jaxvae.errors import ArgumentError, refuse_below_zero

_STREAMS = {"train": 0, "validation": 1, "test": 2}
# Arrays of this size stay in a core's cache; four times the size takes three times as long per slice.
_PIXELS_AT_ONCE = 2**15
_NOISE = 0.025


def slices(count: int, *, size: int = 64, seed: int = 0) -> np.ndarray:
    """Healthy slices, [count, size, size, 1] in 0..1, 0 outside the brain.

    Slice i depends only on (seed, i, size). Another size shows the same brain with other noise.

    Raises:
      InputError: a number is out of range.

    >>> slices(3, size=32).shape
    (3, 32, 32, 1)
    """
    _check(count=count, size=size, seed=seed)
    return _render("train", "healthy", np.arange(count), size, seed)[0]


def load(*, train: int = 2000, test: int = 400, size: int = 64, seed: int = 0, validation: float = 0.1) -> Splits:
    """Healthy slices to train on, and test slices, half of them with a lesion.

    Lesions are of four kinds in equal parts: `bright`, `dark`, `texture` (another pattern of equal mean brightness) and
    `mass` (as bright as tissue; it pushes its surroundings aside). `drawn_lesions.change` defines their masks; masks of
    healthy slices are empty. No two slices share a subject. A threshold on brightness does not find the lesions: fluid
    is brighter than bright lesions, and the background is darker than dark ones.

    Args:
      train: the number of slices to train on, the slices of `slices`.
      test: the number of test slices.
      size: height and width in pixels.
      seed: the seed of all brains.
      validation: the number of further healthy slices to validate on, as a fraction of `train`.

    Raises:
      InputError: a number is out of range.
    """
    _check(train=train, test=test, size=size, seed=seed)
    if not 0 <= validation <= 1:
        raise ArgumentError("validation", validation, "must be a fraction of the training slices, from 0 to 1")
    # Healthy slices alternate with lesions, so that the first test slices show every kind.
    kinds = [kind for sick in drawn_lesions.KINDS for kind in ("healthy", sick)]
    return Splits(
        train=_dataset("train", ["healthy"] * train, size, seed),
        validation=_dataset("validation", ["healthy"] * round(validation * train), size, seed),
        test=_dataset("test", [kinds[i % len(kinds)] for i in range(test)], size, seed),
    )


def _check(size: int, seed: int, **counts: int) -> None:
    for name, value in {**counts, "seed": seed}.items():
        refuse_below_zero(name, value)
    if size < 16:
        raise ArgumentError("size", size, "must be 16 pixels or more to show a brain")


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
    """(images, masks), both [N, size, size, 1], of the slices `index` of a split, all of one kind."""
    images = np.empty((len(index), size, size, 1), dtype=np.float32)
    masks = np.empty(images.shape, dtype=bool)
    step = max(1, _PIXELS_AT_ONCE // size**2)

    def fill(start: int) -> None:
        some = slice(start, start + step)
        image, mask = _draw(split, kind, index[some], size, seed)
        images[some], masks[some] = image.reshape(-1, size, size, 1), mask.reshape(-1, size, size, 1)

    # NumPy releases the interpreter lock while it computes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(0, len(index), step)))
    return images, masks


def _draw(split: str, kind: str, index: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(images, masks), both [N, size * size]: `_render` without splitting the slices into chunks."""
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
        # A lesion has a separate stream, so that the brain around it is the same as without it.
        streams = [np.random.default_rng((seed, _STREAMS[split], i, 1)) for i in index]
        uniforms = np.stack([stream.random(drawn_lesions.COUNT, dtype=np.float32) for stream in streams])
        lesion = drawn_lesions.from_uniforms(uniforms)
        came_from = drawn_lesions.push(lesion, p, q) if kind == "mass" else (p, q)
        brightness, inside = brain.tissue(subjects, *came_from, blend)
        brightness, mask = drawn_lesions.change(kind, lesion, p, q, brightness, blend)
    return _acquire(subjects.bias, brightness, inside, noise, size), mask & inside


def _acquire(bias: np.ndarray, brightness: np.ndarray, inside: np.ndarray, noise: np.ndarray, size: int) -> np.ndarray:
    """Simulate a scanner: add a smooth bias field and the Rician noise of a magnitude image."""
    x, y = brain.grid(size)
    fields = np.stack([x, y, x * x, y * y, x * y, x * x * y])
    biased = brightness * np.exp(brain.combination(0.07 * bias, fields))
    real, imaginary = biased + _NOISE * noise[0], _NOISE * noise[1]
    return np.clip(np.sqrt(real * real + imaginary * imaginary), 0, 1) * inside
