"""All scores of a batch, and of any number of images."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxvae.errors import InputError
from jaxvae.models.model import Model
from jaxvae.objectives.elbo import Likelihood, gaussian_nll
from jaxvae.ops.filters import gaussian_smooth, unit_range
from jaxvae.ops.forms import platform_here
from jaxvae.scores import (
    IMAGE_SCORES,
    MAPS,
    METHODS,
    PIXEL_SCORES,
    SCORES,
    Method,
    known_maps,
    of_whole_images,
    per_pixel,
)
from jaxvae.scores.combine import combine
from jaxvae.scores.gradients import GRADIENTS, explain, in_blocks
from jaxvae.sharding import replicate, shared_out, spread
from jaxvae.types import Array, Params, PixelScores, SampleScores


class BatchScores(NamedTuple):
    """All scores of one batch."""

    samples: SampleScores  # [B] each
    maps: dict[str, Array]  # [B, H, W, C] each, by name
    reconstructions: Array | None  # [B, H, W, C]
    others: dict[str, Array] = {}  # noqa: RUF012  # [B] each, by name: the image scores of methods

    @property
    def image_scores(self) -> dict[str, Array]:
        """All scores of whole images by name, [B] each."""
        return {**self.samples._asdict(), **self.others}


@dataclass(frozen=True)
class Scores:
    """Scores of N images, on the host."""

    maps: dict[str, np.ndarray]  # [N, H, W, 1] each, the mean over the channels
    image_scores: dict[str, np.ndarray]  # [N] each: elbo, kl, nll, and those of methods
    reconstructions: np.ndarray  # [N, H, W, C]; [0, H, W, C] unless requested


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
    """Compute all scores of a batch in one program, including smoothing and Combi.

    The three gradients are smoothed and rec_error is not, as in the paper.

    Args:
      images: [B, H, W, C], uint8 (divided by 255) or float.
      likelihood: see `pixel_scores`; `combi_nll` always uses the Gaussian.
      maps: names from `scores.MAPS`; the program computes nothing that they do not need.
      reconstructions: return the reconstructions too.
      sigma, window: of the smoothing, see `combine`.
      mesh: from `sharding.own_mesh`; each device scores an equal share of the images. B must be a multiple of its size.

    Raises:
      ValueError: an unknown map, or one of a method, whose program is its own.
    """
    _check_names(maps, MAPS)
    needed = {PIXEL_SCORES[name].gradient for name in maps}
    wanted = tuple(name for name in GRADIENTS if name in needed)

    def finished(name: str, raw: PixelScores, log_scale: float | Array) -> Array:
        combination, gradient = PIXEL_SCORES[name].combination, PIXEL_SCORES[name].gradient
        if combination is not None:
            return combine(raw, sigma=sigma, window=window, log_scale=log_scale, **combination)
        values = getattr(raw, name)
        return values if gradient is None else gaussian_smooth(values, sigma=sigma, window=window)

    def score(params: Params, log_scale: float | Array, images: Array) -> BatchScores:
        def block(images: Array) -> BatchScores:
            raw, samples, output = explain(model, params, unit_range(images), None, log_scale, likelihood, wanted)
            scale = log_scale if output.log_scale is None else output.log_scale
            found = {name: finished(name, raw, scale) for name in maps}
            return BatchScores(samples, found, output.mean if reconstructions else None)

        return in_blocks(block, images)

    return shared_out(score, mesh, whole=(True, True, False))(params, log_scale, images)


def score_batches(
    model: Model,
    params: Params,
    images: np.ndarray | Array | Iterable[np.ndarray],
    *,
    log_scale: float = 0.0,
    likelihood: Likelihood = gaussian_nll,
    batch_size: int | None = None,
    maps: Sequence[str] = MAPS,
    reconstructions: bool = False,
    sigma: float = 3.0,
    window: int = 7,
    mesh: Mesh | None = None,
    states: Mapping[str, Any] | None = None,
) -> Iterator[BatchScores]:
    """Score any number of images batch by batch, with a program for each method.

    The last batch is padded to the size of the others, and the scores of the padding are dropped. While one batch is
    computed, the scores of the batch before are fetched and the next images are read.

    Args:
      images: [N, H, W, C], uint8 or float; a memory-mapped array is read batch by batch. Or an iterable of such arrays,
        such as the slices of each volume; batches are filled across arrays.
      batch_size: images at a time, per device; None: 48 on a CPU, 256 on an accelerator.
      maps: names of `scores.known_maps`: those of `score_batch`, and the scores of methods.
      likelihood, reconstructions, sigma, window, mesh: see `score_batch`.
      states: by method, what its `fit` returned, for those that need it.

    Yields:
      The scores of the next `batch_size` images (fewer in the last batch), in order, as arrays on the host.

    Raises:
      ValueError: an unknown map, a batch_size below 1, arrays of different dtypes, a mesh of several processes, or a
        method without its state.
    """
    maps = maps if isinstance(maps, str) else tuple(maps)
    _check_names(maps, known_maps())
    states = states or {}
    methods = _methods_of(maps, states)
    of_batch = tuple(name for name in maps if name in MAPS)
    batch_size = platform_here().batch if batch_size is None else batch_size
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    if mesh is not None:
        if mesh.is_multi_process:
            raise ValueError("mesh: spans several processes; give the devices of this one, sharding.own_mesh()")
        params = replicate(params, mesh)
    size, batches = _batches(images, batch_size, mesh)
    settings: dict[str, Any] = {"log_scale": jnp.float32(log_scale), "likelihood": likelihood}
    of_maps = {"maps": of_batch, "reconstructions": reconstructions, "sigma": sigma, "window": window, "mesh": mesh}

    def score(batch: np.ndarray | Array) -> BatchScores:
        batch = _filled(batch, size)
        placed: Any = jnp.asarray(batch) if mesh is None else spread(batch, mesh)
        scores = score_batch(model, params, placed, **settings, **of_maps)
        if not methods:
            return scores
        return _with_methods(scores, maps, methods, states, (model, params, unit_range(placed)), settings)

    return _one_ahead(score, batches)


def _filled(batch: np.ndarray | Array, size: int) -> np.ndarray | Array:
    """The batch, with its last image repeated up to `size` images."""
    if len(batch) == size:
        return batch
    xp = jnp if isinstance(batch, Array) else np  # Arrays on the device stay there.
    return xp.concatenate([batch, xp.repeat(batch[-1:], size - len(batch), axis=0)])


def _with_methods(
    scores: BatchScores,
    maps: Sequence[str],
    methods: Mapping[str, Method],
    states: Mapping[str, Any],
    arguments: tuple[Model, Params, Array],
    settings: Mapping[str, Any],
) -> BatchScores:
    """The scores of a batch with those of methods, in the order of `maps`."""
    found = dict(scores.maps)
    for name, method in methods.items():
        result = method.function("score")(*arguments, **settings, state=states.get(name))
        found |= _checked(method, result, arguments[-1])
    others = {name: found[name] for name in of_whole_images(maps)}
    return scores._replace(maps={name: found[name] for name in per_pixel(maps)}, others=others)


def compile_score_batches(
    model: Model,
    params: Any,
    images: jax.ShapeDtypeStruct,
    *,
    batch_size: int | None = None,
    maps: tuple[str, ...] = MAPS,
    mesh: Mesh | None = None,
) -> None:
    """Compile the program of `score_batches` with its default settings. It computes nothing.

    Args:
      params: their shapes and dtypes.
      images: shape and dtype of all images.
      batch_size, maps, mesh: see `score_batches`.
    """
    size = _size(images.shape[0], platform_here().batch if batch_size is None else batch_size, mesh)
    batch = jax.ShapeDtypeStruct((size, *images.shape[1:]), images.dtype)
    if mesh is not None:
        params, batch = replicate(params, mesh), spread(batch, mesh)
    # JAX finds the program only if the call names the same arguments.
    settings: dict[str, Any] = {"likelihood": gaussian_nll, "reconstructions": False, "sigma": 3.0, "window": 7}
    log_scale: Any = jax.ShapeDtypeStruct((), jnp.float32)
    score_batch.lower(model, params, batch, log_scale=log_scale, maps=maps, mesh=mesh, **settings).compile()


def score_images(
    model: Model,
    params: Params,
    images: np.ndarray,
    *,
    maps: Sequence[str] = MAPS,
    reconstructions: bool = False,
    progress: Callable[[int], Any] | None = None,
    **settings: Any,
) -> Scores:
    """Score any number of images into arrays on the host.

    Args:
      images: [N, H, W, C], uint8 or float.
      maps: see `score_batches`.
      reconstructions: see `score_batch`.
      progress: called with the number of images in each batch that is done.
      settings: log_scale, likelihood, batch_size, sigma, window, mesh and states of `score_batches`.
    """
    _check_names(maps, known_maps())
    image_scores = {name: np.empty(len(images), np.float32) for name in (*IMAGE_SCORES, *of_whole_images(maps))}
    averaged = {name: np.empty((*images.shape[:3], 1), np.float32) for name in per_pixel(maps)}
    means = np.empty(images.shape if reconstructions else (0, *images.shape[1:]), np.float32)
    start = 0
    for batch in score_batches(model, params, images, maps=maps, reconstructions=reconstructions, **settings):
        part = slice(start, start + len(batch.samples.elbo))
        for name, values in batch.image_scores.items():
            image_scores[name][part] = values
        for name, values in batch.maps.items():
            np.mean(values, axis=-1, keepdims=True, out=averaged[name][part])
        if batch.reconstructions is not None:
            means[part] = batch.reconstructions
        if progress is not None:
            progress(part.stop - start)
        start = part.stop
    return Scores(averaged, image_scores, means)


def _methods_of(maps: Sequence[str], states: Mapping[str, Any]) -> dict[str, Method]:
    """The methods of these scores. Raises ValueError if one lacks its state."""
    methods = {name: METHODS[name] for one in maps if (name := SCORES[one].method)}
    if missing := [name for name, method in methods.items() if method.fitted and name not in states]:
        raise ValueError(f"maps: {missing[0]} is not fitted; give states={{{missing[0]!r}: its fit of healthy images}}")
    return methods


def _checked(method: Method, result: Any, images: Array) -> dict[str, Array]:
    """The scores of a method. Raises InputError if their names or shapes are not those of its entry."""
    if not isinstance(result, Mapping):
        raise InputError(f"{method.name}: its score gave {type(result).__name__}; return a dictionary of arrays")
    for score in method.scores:
        if score.name not in result:
            raise InputError(f"{method.name}: its score gave {', '.join(result)}; must give {score.name}")
        found, wanted = list(jnp.shape(result[score.name])), list(images.shape[: 1 if score.of_images else 4])
        if found != wanted:
            meant = "[B]" if score.of_images else "[B, H, W, C]"
            raise InputError(f"{score.name}: its score gave {found}; must be {meant}, {wanted}")
    return {score.name: result[score.name] for score in method.scores}


def _check_names(maps: Sequence[str], known: Sequence[str]) -> None:
    if isinstance(maps, str):
        raise ValueError(f"maps={maps!r}: is one name; give a tuple, ({maps!r},)")
    unknown = [name for name in maps if name not in known]
    if unknown:
        raise ValueError(f"maps={unknown}: unknown; choose from {', '.join(known)}")


def _batches(
    images: np.ndarray | Array | Iterable[np.ndarray], batch_size: int, mesh: Mesh | None
) -> tuple[int, Iterable[np.ndarray | Array]]:
    """The images per batch on all devices, and the batches; the last can be smaller."""
    if not isinstance(images, np.ndarray | Array):
        size = batch_size * (1 if mesh is None else mesh.size)
        return size, _refilled(images, size)
    size = _size(len(images), batch_size, mesh)
    return size, (images[start : start + size] for start in range(0, len(images), size))


def _size(count: int, batch_size: int, mesh: Mesh | None) -> int:
    """The images per batch of so many. A few are padded to a power of two, so that few programs serve all numbers."""
    devices = 1 if mesh is None else mesh.size
    each = -(-max(1, count) // devices)
    return devices * min(batch_size, 1 << (each - 1).bit_length())


def _refilled(arrays: Iterable[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
    """The images of arrays [n, H, W, C] in batches; the last can be smaller."""
    waiting: list[np.ndarray] = []
    for array in arrays:
        if waiting and array.dtype != waiting[0].dtype:
            raise ValueError(f"images: {array.dtype} follows {waiting[0].dtype}; give all images in one dtype")
        waiting.append(array)
        if sum(map(len, waiting)) >= batch_size:
            joined = np.concatenate(waiting)
            full = len(joined) // batch_size * batch_size
            yield from np.split(joined[:full], full // batch_size)
            waiting = [joined[full:]]
    if sum(map(len, waiting)):
        yield np.concatenate(waiting)


def _one_ahead(score: Callable[[Any], BatchScores], batches: Iterable[np.ndarray | Array]) -> Iterator[BatchScores]:
    """The scores of each batch on the host, fetched while the next is computed."""
    count, pending = 0, None
    for batch in chain(batches, [None]):
        scores = None if batch is None else score(batch)
        if pending is not None:
            yield jax.tree.map(lambda array, count=count: np.asarray(array)[:count], pending)
        count, pending = 0 if batch is None else len(batch), scores
