"""Fixtures that all tests share, and how JAX compiles for them."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Compiling takes most of the time of the suite. So XLA leaves LLVM's optimizations out, except for tests marked
# `optimized`, and all workers and commands of one run share what they compile. JAX reads these variables when it is
# imported, and processes that tests start inherit them. JAX_DISABLE_MOST_OPTIMIZATIONS=0 optimizes all tests.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxvae-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import hypothesis
import jax
import pytest

import jaxvae

QUICK = jax.config.read("jax_disable_most_optimizations")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The same examples in every run, and no more than the suite has time for.
hypothesis.settings.register_profile(
    "suite",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=40,
    # Each example overwrites the files of the one before, so one temporary folder serves all of them.
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

# Programs that tests start. Collecting doctests would import them, and give this process four devices.
collect_ignore = ["four_devices.py", "two_processes.py"]

_compilations: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, _, fun_name="", **__: (
        _compilations.append(fun_name) if name.endswith("backend_compile_duration") else None
    )
)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Compile tests marked `optimized` and their fixtures with all optimizations."""
    quick = QUICK and item.get_closest_marker("optimized") is None
    if jax.config.read("jax_disable_most_optimizations") != quick:
        jax.config.update("jax_disable_most_optimizations", quick)
        jax.clear_caches()


@pytest.fixture(autouse=True, scope="module")
def _cleared() -> Iterator[None]:
    """Drop the programs of a test module, which would add up to gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture
def compilations() -> list[str]:
    """A list that gets the name of each program that XLA compiles from now on, such as "jit(fit)"."""
    _compilations.clear()
    return _compilations


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real images, `$JAXVAE_DATA/data`. Skip the test if it is unset."""
    root = os.environ.get("JAXVAE_DATA")
    if not root:
        pytest.skip("JAXVAE_DATA is not set: it names the folder that holds data/ with real images")
    folder = Path(root).resolve() / "data"
    assert folder.is_dir(), f"JAXVAE_DATA={root} has no folder data/; unset it to skip the tests on real images"
    return folder


@pytest.fixture(scope="session", params=["dense", "conv"])
def vae(request) -> tuple[jaxvae.DenseVAE | jaxvae.ConvVAE, dict]:
    """(model, params), small, of both kinds; images are 16x24 with 2 channels."""
    shape = (16, 24, 2)
    models = {"dense": jaxvae.DenseVAE(shape, 5, 32), "conv": jaxvae.ConvVAE(shape, 5, (4, 8))}
    model = models[request.param]
    params = jax.jit(model.init)(jax.random.key(7), jax.numpy.zeros((1, *shape)))["params"]
    # Four times the initial weights, so that posteriors are far from the prior and formulas differ.
    return model, jax.tree.map(lambda leaf: 4 * leaf, params)


@pytest.fixture(scope="session")
def images() -> jax.Array:
    """[6, 16, 24, 2] in 0..1."""
    return jax.random.uniform(jax.random.key(1), (6, 16, 24, 2))
