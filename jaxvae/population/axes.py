"""A population of runs: the seed, hyperparameters, images and latents of each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import jax
import numpy as np

from jaxvae.errors import ArgumentError, InputError
from jaxvae.train import Hyperparams
from jaxvae.types import Array

AXES = ("seed", "learning_rate", "beta", "log_scale", "hold_out", "latent_size")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Population:
    """Many runs as one program; R is their number."""

    hparams: Hyperparams  # [R] each
    seed: Array  # [R] uint32
    index: Array | None  # [R, n] int32, the training images of each run; None: all
    latent_mask: Array | None  # [R, Z] bool, the latents of each run; None: all
    image_count: int | None = field(default=None, metadata={"static": True})  # of the images that `index` selects from

    def __len__(self) -> int:
        return len(self.seed)

    def __getitem__(self, which: slice | np.ndarray) -> Population:
        """The selected runs."""
        return jax.tree.map(lambda leaf: leaf[which], self)


def grid(*, labels: np.ndarray | None = None, **axes: Iterable[float]) -> Population:
    """One run for each combination of the values of the axes, the last axis fastest.

    Args:
      labels: [N] int, the class of each image that `fit_many` will get; needed for hold_out.
      axes: the values of seed, learning_rate, beta, log_scale, hold_out (a class that is left out of training) and
        latent_size. The defaults are seed 0, those of `Hyperparams`, all images and all latents.

    Returns:
      R runs; R is the product of the numbers of values.

    Raises:
      InputError: an unknown or empty axis, a value out of range, or classes of different sizes.

    >>> population = grid(seed=range(3), learning_rate=[1e-3, 1e-4])
    >>> len(population), population.hparams.learning_rate.shape
    (6, (6,))
    """
    values = {name: _checked(name, values) for name, values in axes.items()}
    columns = dict(zip(values, zip(*itertools.product(*values.values()), strict=True), strict=True))
    return of_columns({**({} if columns else {"seed": [0]}), **columns}, labels)


def of_columns(
    columns: Mapping[str, Sequence[float]], labels: np.ndarray | None = None, *, latents: int | None = None
) -> Population:
    """A population of any runs, without the checks of `grid`.

    Args:
      columns: for each axis, the value of every run.
      labels: see `grid`.
      latents: the model's latent_size, if no run has as many latents.
    """
    count = len(next(iter(columns.values())))
    traced = {name: columns.get(name, [value] * count) for name, value in vars(Hyperparams()).items()}
    # `device_put` compiles nothing. `jnp.asarray` compiles a program per shape.
    hparams = Hyperparams(**{name: jax.device_put(np.array(values, np.float32)) for name, values in traced.items()})
    seed = jax.device_put(np.array(columns.get("seed", [0] * count), np.uint32))
    index = mask = None
    if "hold_out" in columns:
        index = jax.device_put(_all_but(labels, columns["hold_out"]))
    if "latent_size" in columns:
        sizes = np.array(columns["latent_size"], int)
        mask = jax.device_put(np.arange(latents or sizes.max()) < sizes[:, None])
    return Population(hparams, seed, index, mask, None if index is None or labels is None else len(labels))


def _checked(name: str, values: Iterable[float]) -> list[float]:
    """Check the values of one axis and return them as a list."""
    if name not in AXES:
        raise InputError(f"{name}: no such axis; the axes are {', '.join(AXES)}")
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise InputError(f"{name}={values!r}: is one value; give a list, [{values!r}]")
    found = list(values)
    if not found:
        raise InputError(f"{name}: no values; give at least one")
    whole = name in ("seed", "hold_out", "latent_size")
    least = {"seed": 0, "hold_out": 0, "latent_size": 1, "learning_rate": 0, "beta": 0}.get(name, -math.inf)
    for value in found:
        is_number = np.ndim(value) == 0 and np.issubdtype(np.asarray(value).dtype, np.number)
        if not (is_number and math.isfinite(value) and value >= least and (not whole or value == int(value))):
            kind = "a whole number" if whole else "a number"
            raise ArgumentError(name, value, f"give {kind}{f' of at least {least}' * (least > -math.inf)}")
        if name == "seed" and value >= 2**32:
            raise ArgumentError("seed", value, "give a whole number below 2^32")
    return found


def _all_but(labels: np.ndarray | None, hold_out: Iterable[float]) -> np.ndarray:
    """[R, n] int32: the indices of the images of all classes but one."""
    if labels is None:
        raise InputError("hold_out: needs the classes of the images; give `labels`")
    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    tables = {}
    for held_out in dict.fromkeys(int(value) for value in hold_out):
        if held_out not in classes:
            known = ", ".join(map(str, classes))
            raise ArgumentError("hold_out", held_out, f"no image has this class; choose from {known}")
        tables[held_out] = np.flatnonzero(labels != held_out).astype(np.int32)
    if len({len(table) for table in tables.values()}) > 1:
        sizes = ", ".join(f"{c}: {n}" for c, n in zip(classes, counts, strict=True))
        raise InputError(f"hold_out: the classes have different numbers of images ({sizes}); train each run alone")
    return np.stack([tables[int(held)] for held in hold_out])
