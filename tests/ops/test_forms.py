"""Every form of the table against float64, and how vmap batches it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracle
from convolution_cases import assert_second_derivatives, convolve, convolve_transposed, draw
from jaxvae.ops import smoothing
from jaxvae.ops.forms import PLATFORMS, Sizes, by_platform
from oracle import assert_close

pytestmark = pytest.mark.optimized

CHANNELS = [(1, 16), (3, 5), (20, 7), (8, 64)]  # fine and coarse
BATCHES = [1, 64, 1024]  # of the sizes that decide; the arrays are smaller


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(("fine", "coarse"), CHANNELS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-6), (jnp.bfloat16, 2e-2)])
def test_the_three_maps_match_float64(platform, fine, coarse, dtype, tolerance):
    images, kernel, features = draw(2, 6, 8, fine), draw(4, 4, fine, coarse, seed=1), draw(2, 3, 4, coarse, seed=2)
    images, kernel, features = (array.astype(dtype) for array in (images, kernel, features))
    itemsize = jnp.dtype(dtype).itemsize
    x, k, y = (np.asarray(array, np.float64) for array in (images, kernel, features))
    forward = np.stack([oracle.convolve(image, k) for image in x])
    pulled = np.stack([oracle.convolve_transposed(maps, k) for maps in y])
    # F is linear in the kernel, so W is F of each kernel element times the features.
    elements = np.eye(16 * fine).reshape(-1, 4, 4, fine, 1)
    met = [sum(np.einsum("hwi,hwo->o", oracle.convolve(a, e), b) for a, b in zip(x, y, strict=True)) for e in elements]
    for batch in BATCHES:
        forms = PLATFORMS[platform].convolutions(Sizes(batch, fine, coarse, batch * 12 * coarse, 8 * itemsize))
        assert_close(jax.jit(forms.forward)(images, kernel), forward, tolerance)
        assert_close(jax.jit(forms.input_pullback)(features, kernel), pulled, tolerance)
        assert_close(jax.jit(forms.weight_pullback)(images, features), np.reshape(met, kernel.shape), tolerance)


@pytest.mark.parametrize(("batch", "fine"), [(64, 1), (64, 20), (1024, 20)])
def test_populations_have_no_grouped_convolution_on_cuda(batch, fine):
    forms = PLATFORMS["cuda"].convolutions(Sizes(batch, fine, 5, batch * 60, 32))
    images, kernels, features = draw(3, 2, 8, 8, fine), draw(3, 4, 4, fine, 5, seed=1), draw(3, 2, 4, 4, 5, seed=2)
    for form, *arrays in (
        (forms.forward, images, kernels),
        (forms.input_pullback, features, kernels),
        (forms.weight_pullback, images, features),
    ):
        together, alone = jax.jit(jax.vmap(form)), jax.jit(form)
        assert "convolution" not in together.lower(*arrays).as_text()
        assert_close(together(*arrays), np.stack([alone(*each) for each in zip(*arrays, strict=True)]), 2e-6)


def test_a_shared_kernel_keeps_the_convolution_on_cuda():
    forward = jax.jit(PLATFORMS["cuda"].convolutions(Sizes(512, 20, 5, 512 * 60, 32)).forward)
    images, kernel = draw(3, 2, 8, 8, 20), draw(4, 4, 20, 5, seed=1)
    together = jax.jit(jax.vmap(forward, in_axes=(0, None)))
    assert "feature_group_count = 1 " in together.lower(images, kernel).as_text()
    assert_close(together(images, kernel), np.stack([forward(each, kernel) for each in images]))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_forms_choice_does_not_change_a_layer_on_cuda(dtype):
    images, kernel, features = draw(2, 8, 8, 1), draw(4, 4, 1, 5, seed=1), draw(2, 4, 4, 5, seed=2)
    images, kernel, features = (array.astype(dtype) for array in (images, kernel, features))
    bits = 8 * jnp.dtype(dtype).itemsize
    small, large = (PLATFORMS["cuda"].convolutions(Sizes(batch, 1, 5, batch * 80, bits)) for batch in (8, 66))
    assert small.forward(images, kernel).tolist() == large.forward(images, kernel).tolist()
    pulled = (jnp.float32(form.input_pullback(features, kernel)) for form in (small, large))
    np.testing.assert_allclose(*pulled, atol=0.02 if bits == 16 else 1e-6)


@pytest.mark.parametrize(("batch", "fine"), [(1, 20), (66, 1), (66, 20)])
def test_second_derivatives_do_not_depend_on_the_form(batch, fine):
    images, kernel = draw(batch, 4, 4, fine), draw(4, 4, fine, 3, seed=1)
    assert_second_derivatives(convolve, images, kernel)
    assert_second_derivatives(convolve_transposed, draw(batch, 2, 2, 3), kernel)


@pytest.mark.parametrize("shape", [(2, 5, 9, 1), (1, 12, 3, 2)])
def test_both_forms_of_smoothing_are_equal(shape):
    maps, weights = draw(*shape), np.array([0.1, 0.2, 0.4, 0.2, 0.1])
    assert_close(smoothing.by_products(maps, weights), smoothing.by_shifts(maps, weights))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_norm_is_that_of_all_leaves(platform):
    tree = {"a": draw(3, 4), "b": [draw(5, seed=1), draw(2, 1, 2, seed=2)]}
    expected = np.linalg.norm(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64))
    np.testing.assert_allclose(PLATFORMS[platform].norm(tree), expected, rtol=1e-6)


def test_programs_have_the_form_of_their_platform():
    @jax.jit
    def size_of_blocks(x):
        return by_platform(lambda platform: lambda x: x + (platform.block or 0), x)

    traced = size_of_blocks.trace(jnp.float32(0))
    texts = {name: traced.lower(lowering_platforms=(name,)).as_text() for name in PLATFORMS}
    assert "6.400000e+01" in texts["cpu"]
    assert "6.400000e+01" not in texts["cuda"] + texts["tpu"]
