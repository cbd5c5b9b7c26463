"""All scores of one batch, and of any number of images batch after batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxvae.models import Model
from jaxvae.objectives.elbo import Likelihood, gaussian_nll
from jaxvae.ops.filters import gaussian_smooth, unit_range
from jaxvae.scores import MAPS, PIXEL_SCORES
from jaxvae.scores.combine import combine
from jaxvae.scores.gradients import GRADIENTS, explain, in_blocks
from jaxvae.sharding import replicate, shared_out, spread
from jaxvae.types import Array, Params, PixelScores, SampleScores

# Images at a time. With 48 the brain network holds 25 to 28 MB of intermediate results, depending on the maps; for more
# than 32 MiB, as some maps of 64 images take, glibc asks the system anew in every call: a sixth of the time.
BATCH = 48


class BatchScores(NamedTuple):
    """Everything about a batch of images."""

    samples: SampleScores  # [B] each
    maps: dict[str, Array]  # [B, H, W, C] each, by the names asked for
    reconstructions: Array | None  # [B, H, W, C]


@jax.jit(static_argnames=("model", "likelihood", "maps", "reconstructions", "sigma", "window", "mesh"))
def score_batch(
    model: Model,
    params: Params,
    images: Array,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    maps: tuple[str, ...] = MAPS,
    reconstructions: bool = False,
    sigma: float = 3.0,
    window: int = 7,
    mesh: Mesh | None = None,
) -> BatchScores:
    """All scores of a batch in one program, smoothing and Combi included.

    Args:
      images: [B, H, W, C], uint8 (divided by 255) or float.
      likelihood: see `pixel_scores`; `combi_nll` is the Gaussian's whatever it is.
      maps: which of `MAPS` to compute; what is not asked for is not paid for. The three gradients come smoothed and
        rec_error as it is, as in the paper.
      reconstructions: return them too.
      sigma, window: of the smoothing, see `combine`.
      mesh: from `sharding.own_mesh`; each of its devices scores its share of the images, B being a multiple of them.
    Raises:
      ValueError: an unknown map.
    """
    _refuse_unknown(maps)
    used = {PIXEL_SCORES[name].gradient for name in maps}
    wanted = tuple(name for name in GRADIENTS if name in used)

    def finished(name: str, raw: PixelScores, log_scale: float | Array) -> Array:
        combination, gradient = PIXEL_SCORES[name].combination, PIXEL_SCORES[name].gradient
        if combination is not None:
            return combine(raw, sigma=sigma, window=window, log_scale=log_scale, **combination)
        values = getattr(raw, name)
        return values if gradient is None else gaussian_smooth(values, sigma=sigma, window=window)

    def score(params: Params, log_scale: float | Array, images: Array) -> BatchScores:
        def block(images: Array) -> BatchScores:
            raw, samples, means = explain(model, params, unit_range(images), None, log_scale, likelihood, wanted)
            found = {name: finished(name, raw, log_scale) for name in maps}
            return BatchScores(samples, found, means if reconstructions else None)

        return in_blocks(block, images)

    return shared_out(score, mesh, whole=(True, True, False))(params, log_scale, images)


def score_batches(
    model: Model,
    params: Params,
    images: np.ndarray | Array | Iterable[np.ndarray],
    *,
    log_scale: float = 0.0,
    likelihood: Likelihood = gaussian_nll,
    batch_size: int = BATCH,
    maps: Sequence[str] = MAPS,
    reconstructions: bool = False,
    sigma: float = 3.0,
    window: int = 7,
    mesh: Mesh | None = None,
) -> Iterator[BatchScores]:
    """Scores of any number of images, batch after batch, from one compiled program.

    The last batch is padded to the size of the others and cut again, so nothing is dropped and nothing recompiled. One
    batch is computed while the one before is fetched and the next one read.

    Args:
      images: [N, H, W, C], uint8 or float; a memory-mapped array is read batch by batch. Or a stream of such arrays,
        such as the slices of one volume after the other, of which batches are filled across arrays.
      batch_size: images at a time, on each device.
      likelihood, maps, reconstructions, sigma, window, mesh: see `score_batch`.
    Yields:
      The scores of the next images, in order: min(batch_size, what is left) of them, arrays on the host.
    Raises:
      ValueError: an unknown map, a batch_size below 1, arrays of different kinds in a stream, or a mesh of several
        processes.
    """
    maps = maps if isinstance(maps, str) else tuple(maps)
    _refuse_unknown(maps)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is no number of images; give 1 or more")
    devices = 1
    if mesh is not None:
        if mesh.is_multi_process:
            raise ValueError("mesh spans several processes; give the devices of this one, sharding.own_mesh()")
        params, devices = replicate(params, mesh), mesh.size
    if isinstance(images, np.ndarray | Array):
        # A few images are filled up to a power of two, so that not every number of them is a program of its own.
        each = -(-max(1, len(images)) // devices)
        size = devices * min(batch_size, 1 << (each - 1).bit_length())
        batches = (images[start : start + size] for start in range(0, len(images), size))
    else:
        size = devices * batch_size
        batches = _refilled(images, size)

    def score(batch: np.ndarray | Array) -> BatchScores:
        missing = size - len(batch)
        if missing:
            xp = jnp if isinstance(batch, Array) else np  # What lies on the device stays there.
            batch = xp.concatenate([batch, xp.repeat(batch[-1:], missing, axis=0)])
        return score_batch(
            model,
            params,
            jnp.asarray(batch) if mesh is None else spread(batch, mesh),
            log_scale=jnp.float32(log_scale),
            likelihood=likelihood,
            maps=tuple(maps),
            reconstructions=reconstructions,
            sigma=sigma,
            window=window,
            mesh=mesh,
        )

    return _one_ahead(score, batches)


def _one_ahead(
    score: Callable[[np.ndarray | Array], BatchScores], batches: Iterable[np.ndarray | Array]
) -> Iterator[BatchScores]:
    """The scores of each batch on the host, fetched while those of the next are computed."""
    pending: tuple[int, BatchScores] | None = None
    for batch in batches:
        scores = score(batch)
        if pending is not None:
            yield _fetch(*pending)
        pending = (len(batch), scores)
    if pending is not None:
        yield _fetch(*pending)


def _refuse_unknown(maps: Sequence[str]) -> None:
    if isinstance(maps, str):
        raise ValueError(f"maps={maps!r} is a name; give a tuple of them, ({maps!r},)")
    unknown = [name for name in maps if name not in MAPS]
    if unknown:
        raise ValueError(f"maps={unknown} are unknown; choose from {', '.join(MAPS)}")


def _refilled(arrays: Iterable[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
    """The images of all arrays, [n, H, W, C] each, `batch_size` at a time; the last ones are fewer."""
    waiting: list[np.ndarray] = []
    for array in arrays:
        if waiting and array.dtype != waiting[0].dtype:
            raise ValueError(f"images of {waiting[0].dtype} are followed by {array.dtype}; give all in one kind")
        waiting.append(array)
        if sum(map(len, waiting)) >= batch_size:
            joined = np.concatenate(waiting)
            full = len(joined) // batch_size * batch_size
            yield from np.split(joined[:full], full // batch_size)
            waiting = [joined[full:]]
    if sum(map(len, waiting)):
        yield np.concatenate(waiting)


def _fetch(count: int, scores: BatchScores) -> BatchScores:
    return jax.tree.map(lambda array: np.asarray(array)[:count], scores)
