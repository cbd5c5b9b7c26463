"""The axes of a sweep, and the settings of a run per combination."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jaxvae.data.kinds import Source
from jaxvae.errors import ArgumentError, refuse_unless_positive
from jaxvae.runs.settings import Recipe, Settings, network_of

# Axes along which the runs of one program may differ.
FREE = ("seed", "learning_rate", "beta", "log_scale", "latent_size")
# Axes that change shapes or data, so that each of their combinations needs its own program.
FIXED = ("size", "scaling", "hold_out", "width")


@dataclass(frozen=True)
class Axes:
    """The values of each setting, of which a sweep trains all combinations."""

    seed: tuple[int, ...] = (0, 1, 2)
    """axis: random seed of the initial weights, the order of the images and the noise"""
    learning_rate: tuple[float, ...] | None = None
    """axis: learning rate of Adam"""
    beta: tuple[float, ...] = (1.0,)
    """axis: weight of the KL term"""
    log_scale: tuple[float, ...] = (0.0,)
    """axis: natural logarithm of the decoder's standard deviation"""
    latent_size: tuple[int, ...] | None = None
    """axis: dimensions of the latent"""
    hold_out: tuple[int, ...] | None = None
    """axis, fashion_mnist only: the class 0..9 that is the anomaly"""
    scaling: tuple[int, ...] | None = None
    """axis, fashion_mnist only: how often each image is stacked (the paper's input scaling)"""
    size: tuple[int, ...] | None = None
    """axis: side of the square images in pixels, one size per value; each size is compiled separately"""
    width: tuple[float, ...] | None = None
    """axis: factor of the features or of the hidden size; each is compiled separately"""


def check(axes: Axes) -> None:
    """Raise ArgumentError if an axis is empty, repeats a value or is wrong."""
    for name, values in vars(axes).items():
        if values == ():
            raise ArgumentError(name, values, "give at least one")
        if values is not None and len(set(values)) < len(values):
            raise ArgumentError(name, values, "a value is there twice; give each once")
    for name in ("learning_rate", "scaling", "size", "width"):
        for value in getattr(axes, name) or ():
            refuse_unless_positive(name, value)
    for value in axes.hold_out or ():
        if not 0 <= value < 10:
            raise ArgumentError("hold_out", value, "must be a class of FashionMNIST, 0..9")


def split(axes: Axes, source: Source) -> tuple[Source, dict[str, tuple[Any, ...]]]:
    """The source with single-valued settings, and the axes of `FIXED`.

    >>> split(Axes(size=(32,), width=(1.0, 0.5)), Source())[1]
    {'width': (1.0, 0.5), 'hold_out': (None,)}
    """
    given = {name: values for name in FIXED if (values := getattr(axes, name))}
    single = {name: given.pop(name)[0] for name in list(given) if name != "width" and len(given[name]) == 1}
    source = source_of(source, single)
    return source, {**given, "hold_out": given.get("hold_out", (source.hold_out,))}


def source_of(source: Source, fixed: Mapping[str, Any]) -> Source:
    """The source of a program whose values of the axes of `FIXED` are given."""
    own = {name: fixed[name] for name in ("scaling", "hold_out") if name in fixed}
    return replace(source, **own, **({"size": (fixed["size"],)} if "size" in fixed else {}))


def settings_of(recipe: Recipe, source: Source, row: Mapping[str, Any]) -> Settings:
    """The settings of a run whose values are in `row`, else their defaults."""
    width, own = row.get("width", 1), {name: row[name] for name in FREE if name in row}
    defaults, scaled = network_of(recipe, source).settings, {}
    if "features" in defaults:
        scaled["features"] = tuple(_scaled(width, count) for count in recipe.features or defaults["features"])
    if "hidden_size" in defaults:
        scaled["hidden_size"] = _scaled(width, recipe.hidden_size or defaults["hidden_size"])
    return Settings(**{**vars(recipe), **scaled, **own})


def _scaled(width: float, count: int) -> int:
    return max(1, round(width * count))
