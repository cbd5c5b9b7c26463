"""The table of forms: how each platform computes the same operation fastest.

`PLATFORMS` is the table. The forms of one operation give the same result to rounding.

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
    elements: int  # of [B, H/2, W/2, coarse]
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
    if sizes.elements < 2**16 or sizes.bits < 32:
        return Convolutions(plain.forward, pulled, plain.weight_pullback_transposed)
    # The additions after Winograd's products grow with the image. With few fine channels they cost more than they save.
    pulled = winograd.input_pullback if sizes.fine > 16 else pulled
    return Convolutions(winograd.forward, pulled, winograd.weight_pullback)


def _transposed_on_cpu(features: Array, kernel: Array, *, shape: tuple[int, ...], stride: int, padding: int) -> Array:
    if (stride, shape[1] % 2, shape[2] % 2) == (2, 0, 0):
        return plain.transposed_by_phases(features, kernel, shape, padding)
    return plain.transposed_with_flips(features, kernel, shape, stride, padding)


def _on_cuda(sizes: Sizes) -> Convolutions:
    products = Convolutions(patches.forward, patches.input_pullback, patches.weight_pullback)
    if sizes.fine <= 4:
        # A sum of products in float32 for each batch size, because TF32 rounds a matrix product differently.
        pulled = patches.input_pullback if sizes.batch < 32 else patches.input_pullback_in_planes
        own = elementwise.forward, pulled, patches.weight_pullback
    elif sizes.batch <= 64 and sizes.bits >= 32:
        # XLA launches the products of a program at once by default, but each convolution on its own.
        return products
    else:
        own = plain.forward, plain.input_pullback_by_phases, plain.weight_pullback_transposed
    return Convolutions(*map(_for_one_kernel, own, products))


def _on_tpu(_: Sizes) -> Convolutions:
    return Convolutions(plain.forward, plain.input_pullback, plain.weight_pullback)


def _for_one_kernel(form: Form, product: Form) -> Form:
    """`form`, but `product` for kernels that vmap batches. XLA would make a slow grouped convolution of `form`."""

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
    transposed: Callable[..., Array]  # I for other kernels, strides and paddings
    smooth: Callable[..., Array]  # maps and weights
    norm: Callable[[Any], Array]  # of all leaves of a tree
    stack_pullbacks: bool  # pull several cotangents back as one batch
    block: int | None  # images whose features fit the caches; None: all at once
    batch: int  # images that are scored at a time by default
    state_bytes: int  # of the runs that are trained side by side by default


# The measurements are in scripts/README.md and experiments/results/performance-log.md:
#
# - On a TPU, XLA broadcasts the saved signs over stacked pullbacks; on a GPU stacking costs nothing. Smoothing by
#   products is faster on a TPU. The norm of one array is one kernel instead of twelve on a GPU, and slower on a TPU.
# - A CPU's caches hold the features of 64 brain slices, and one run. Maps of more than 48 slices need blocks above
#   32 MiB, which glibc requests from the system again in every call: a sixth of the time.
# - A batch of 64 fills half of a TPU's registers, and one of 128 takes as long. Its vector memory is 128 MiB.
# - 1 GiB of states, such as 137 FashionMNIST networks, keeps an H200 busy.
PLATFORMS = {
    "cpu": Platform(
        convolutions=_on_cpu,
        transposed=_transposed_on_cpu,
        smooth=smoothing.by_shifts,
        norm=optax.tree.norm,
        stack_pullbacks=True,
        block=64,
        batch=48,
        state_bytes=0,
    ),
    "cuda": Platform(
        convolutions=_on_cuda,
        transposed=plain.transposed,
        smooth=smoothing.by_shifts,
        norm=_norm_of_one_array,
        stack_pullbacks=True,
        block=None,
        batch=256,
        state_bytes=2**30,
    ),
    "tpu": Platform(
        convolutions=_on_tpu,
        transposed=plain.transposed,
        smooth=smoothing.by_products,
        norm=optax.tree.norm,
        stack_pullbacks=False,
        block=None,
        batch=256,
        state_bytes=100 * 2**20,
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
