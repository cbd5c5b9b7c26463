"""The table of forms: how each platform computes the same operation fastest.

`PLATFORMS` is the table. The forms of one operation give the same result to rounding. Figures beside an entry are
measured on the named device, or are estimates of `scripts/compile_for.py` where it says so. The rest of the
measurements is in experiments/results/performance-log.md and scripts/README.md.

The convolutions' forms are F, I and W of `jaxvae.ops.convolutions`:

    plain           XLA's own convolutions
    patches         matrix products with patches of pixels
    elementwise     F as a sum of products
    winograd        nine matrix products instead of sixteen
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.custom_batching import custom_vmap

from jaxvae.ops import elementwise, patches, plain, smoothing, winograd
from jaxvae.types import Array

Result = TypeVar("Result")
Form = Callable[[Array, Array], Array]


class Sizes(NamedTuple):
    """The sizes that decide on the form of a convolution."""

    batch: int
    fine: int
    coarse: int
    features: int  # elements of [B, H/2, W/2, coarse]
    bits: int  # of each element


class Convolutions(NamedTuple):
    """The form of each map."""

    forward: Form  # F of images and kernel
    input_pullback: Form  # I of features and kernel
    weight_pullback: Form  # W of images and features


def _on_cpu(sizes: Sizes) -> Convolutions:
    overlap = 4 * sizes.fine <= sizes.coarse
    pulled = patches.input_pullback if overlap else plain.input_pullback_by_phases
    if sizes.fine <= 4:
        return Convolutions(patches.forward, pulled, patches.weight_pullback)
    # Winograd's form rounds sums before it multiplies them. In 16 bits, scores would depend on the batch size.
    if sizes.features < 2**16 or sizes.bits < 32:
        return Convolutions(plain.forward, pulled, plain.weight_pullback_transposed)
    # The additions after Winograd's products grow with the image. With few fine channels they cost more than they save.
    pulled = winograd.input_pullback if sizes.fine > 16 else pulled
    return Convolutions(winograd.forward, pulled, winograd.weight_pullback)


def _on_cuda(sizes: Sizes) -> Convolutions:
    products = Convolutions(patches.forward, patches.input_pullback, patches.weight_pullback)
    # By default XLA launches all products of a program at once, but each convolution on its own. Products of a batch of
    # 1 take 0.167 ms on an H200, the forms below 0.234 with the flag that launches them at once, and 0.404 without.
    # For 64 images that is 0.354, 0.304 and 0.408 ms; for 1024 images 3.46 and 1.59.
    if sizes.batch < 32 or (sizes.batch <= 64 and sizes.fine > 4):
        return products
    if sizes.fine <= 4:
        own = elementwise.forward, patches.input_pullback_in_planes, patches.weight_pullback
    else:
        own = plain.forward, plain.input_pullback_by_phases, plain.weight_pullback_transposed
    return Convolutions(*map(_for_one_kernel, own, products))


def _on_tpu(_: Sizes) -> Convolutions:
    # Estimates for a v5e: 0.89 ms for the scores of 64 images, 1.41 with the CPU's forms and 2.71 with products.
    return Convolutions(plain.forward, plain.input_pullback, plain.weight_pullback)


def _for_one_kernel(form: Form, product: Form) -> Form:
    """`form`, but `product` for kernels that vmap batches. XLA would make a grouped convolution of `form`.

    16 brain networks side by side take 0.267 ms per run and step on an H200, and 0.401 with grouped convolutions.
    """

    @custom_vmap
    def apply(first: Array, second: Array) -> Array:
        return form(first, second)

    @apply.def_vmap
    def _batched(size: int, batched: list[bool], first: Array, second: Array) -> tuple[Array, bool]:
        # The second array is a kernel, or features that give one kernel each.
        axes = tuple(0 if it else None for it in batched)
        return jax.vmap(product if batched[1] else form, in_axes=axes)(first, second), True

    return apply


def _norm_of_one_array(tree: Any) -> Array:
    """The norm of all leaves in one kernel; XLA does not write the array."""
    return jnp.linalg.norm(jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]))


class Platform(NamedTuple):
    """The forms of one platform."""

    convolutions: Callable[[Sizes], Convolutions]
    smooth: Callable[..., Array]  # maps and weights
    norm: Callable[[Any], Array]  # of all leaves of a tree
    stack_pullbacks: bool  # pull several cotangents back as one batch
    block: int | None  # images whose features fit the caches; None: all at once
    batch: int  # images that are scored at a time by default
    side_by_side: int  # bytes of the states that are trained side by side by default; at least one run is


# Estimates for a v5e and 1024 images: two pullbacks take 4.95 ms, stacked ones 11.6, because XLA broadcasts the saved
# signs over both. Smoothing by products takes 3.68 instead of 4.95. On an H200, stacking costs nothing.
# On a CPU, 256 images at once took a fifth longer than four blocks of 64.
# The norm of one array takes 12 kernels less per step of the FashionMNIST network on CUDA, and is slower on a TPU.
#
# On a CPU, the features of 48 brain slices need 25 to 28 MB. Some maps of 64 need more than 32 MiB, which glibc
# requests from the system again in every call: a sixth of the time. On a TPU a batch of 64 fills half of each register,
# and one of 128 takes as long.
#
# A CPU's caches hold one run. The vector memory of a v5e, 128 MiB, holds the states of 8 FashionMNIST networks or 2
# brain networks. Estimates for 64 FashionMNIST networks: 2.12 ms per step by eights, 3.15 all at once, 4.36 in turn. 64
# FashionMNIST networks keep an H200 busy: 0.0125 ms per run and step, and 0.0117 for 256.
PLATFORMS = {
    "cpu": Platform(
        convolutions=_on_cpu,
        smooth=smoothing.by_shifts,
        norm=optax.tree.norm,
        stack_pullbacks=True,
        block=64,
        batch=48,
        side_by_side=0,
    ),
    "cuda": Platform(
        convolutions=_on_cuda,
        smooth=smoothing.by_shifts,
        norm=_norm_of_one_array,
        stack_pullbacks=True,
        block=None,
        batch=256,
        side_by_side=2**30,
    ),
    "tpu": Platform(
        convolutions=_on_tpu,
        smooth=smoothing.by_products,
        norm=optax.tree.norm,
        stack_pullbacks=False,
        block=None,
        batch=256,
        side_by_side=100 * 2**20,
    ),
}


def name_here() -> str:
    """The name of the platform of JAX's default device, as in `PLATFORMS`."""
    name = jax.default_backend()
    return {"gpu": "cuda"}.get(name, name)


def platform_here() -> Platform:
    """The platform of JAX's default device."""
    return PLATFORMS.get(name_here(), PLATFORMS["tpu"])


def by_platform(form: Callable[[Platform], Callable[..., Result]], *arrays: Any, **settings: Any) -> Result:
    """The result of `form(platform)(*arrays, **settings)`, for the platform that the program is compiled for."""
    forms = {name: form(platform) for name, platform in PLATFORMS.items()}
    # JAX traces each form that it is given. Other platforms have the form that most of these have.
    default = max(reversed(forms.values()), key=list(forms.values()).count)
    others = {name: partial(other, **settings) for name, other in forms.items() if other is not default}
    if not others:
        return default(*arrays, **settings)
    return lax.platform_dependent(*arrays, **others, default=partial(default, **settings))
