"""The precision of products, on devices that need not be there."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from jaxvae.machine import machine, product_precision

DEVICES = {
    "cpu": SimpleNamespace(platform="cpu"),
    "V100": SimpleNamespace(platform="gpu", compute_capability="7.0"),
    "H200": SimpleNamespace(platform="gpu", compute_capability="9.0"),
    "B200": SimpleNamespace(platform="gpu", compute_capability="10.0"),
    "MI300": SimpleNamespace(platform="gpu", compute_capability="gfx942"),
    "TPU": SimpleNamespace(platform="tpu"),
}


@pytest.mark.parametrize(
    ("setting", "on_cuda", "on_tpu"),
    [
        (None, "tensorfloat32", "bfloat16"),
        ("bfloat16", "tensorfloat32", "bfloat16"),
        ("tensorfloat32", "tensorfloat32", "bfloat16_3x"),
        ("float32", "float32", "float32"),
    ],
)
def test_the_default_is_resolved_for_each_device(setting, on_cuda, on_tpu):
    expected = dict.fromkeys(DEVICES, "float32") | {"H200": on_cuda, "B200": on_cuda, "TPU": on_tpu}
    with jax.default_matmul_precision(setting):
        assert {name: product_precision(device=device) for name, device in DEVICES.items()} == expected
        assert {product_precision(jnp.bfloat16, device) for device in DEVICES.values()} == {"bfloat16"}
        assert machine()["precision"] == product_precision()


def test_an_algorithm_is_named_unless_the_device_ignores_it():
    with jax.default_matmul_precision("BF16_BF16_F32_X6"):
        assert product_precision(device=DEVICES["H200"]) == "BF16_BF16_F32_X6"
        assert product_precision(device=DEVICES["cpu"]) == "float32"
