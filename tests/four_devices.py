"""Run by test_sharding.py: results on four devices equal those on one device."""

from __future__ import annotations

import os
import tempfile

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

import jaxvae
from jaxvae.runs import checkpoint
from jaxvae.sharding import data_mesh, replicate, run_mesh, spread


def assert_close(got, expected):
    for spread_out, whole in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(spread_out, whole, rtol=1e-5, atol=1e-5)


# The runs of a population.

model, config = jaxvae.DenseVAE((8, 8, 1), 4, 16), jaxvae.TrainConfig(batch_size=4)
images = jax.random.uniform(jax.random.key(9), (12, 8, 8, 1))
runs = jaxvae.grid(seed=[0, 1, 2], latent_size=[2, 4])  # Six runs are no multiple of four devices.
compiled, shape = [], jax.ShapeDtypeStruct(images.shape, images.dtype)
jax.monitoring.register_event_duration_secs_listener(lambda _, __, fun_name="", **___: compiled.append(fun_name))
shapes = jaxvae.compile_fit_many(model, config, runs, shape, steps=5, mesh=run_mesh())
jaxvae.compile_score_many(model, shapes.params, shape, mesh=run_mesh())
large = {"jit(_init_many)", "jit(_fit_many)", "jit(_score_many)"}
assert large <= {*compiled}
compiled.clear()
states, metrics = jaxvae.fit_many(model, config, runs, images, steps=5, mesh=run_mesh())
jaxvae.score_many(model, states.params, images, mesh=run_mesh())
assert not large & {*compiled}
expected_states, expected = jaxvae.fit_many(model, config, runs, images, steps=5)
np.testing.assert_allclose(metrics.loss, expected.loss, rtol=1e-5)
assert_close(states.params, expected_states.params)
print(len(jax.devices()), "devices,", len(runs), "runs: equal")

# Training with the batch spread over devices: each has all parameters, and gradients are summed.
mesh, hparams = data_mesh(), jaxvae.Hyperparams()
conv = jaxvae.ConvVAE((16, 16, 1), 4, (8, 16))
pictures = jax.random.uniform(jax.random.key(9), (24, 16, 16, 1))
config = jaxvae.TrainConfig(batch_size=8)


def begin():
    return jaxvae.init(conv, config, hparams, jax.random.key(0))


one, alone = jaxvae.fit(conv, config, hparams, begin(), pictures, steps=5)
state, pictures_everywhere = replicate((begin(), pictures), mesh)
lowered = jaxvae.fit.lower(conv, config, hparams, state, pictures_everywhere, steps=5, mesh=mesh)
assert "all-reduce" in lowered.compile().as_text()
four, shared = jaxvae.fit(conv, config, hparams, state, pictures_everywhere, steps=5, mesh=mesh)
np.testing.assert_allclose(shared.loss, alone.loss, rtol=1e-5)
assert_close(four.params, one.params)
print("training: equal")

# A state saved from four devices is restored and trained further on one device and on two.
with tempfile.TemporaryDirectory() as folder:
    checkpoint.save(folder, four)
    two = data_mesh(jax.devices()[:2])
    for place, like in {None: begin(), two: replicate(begin(), two)}.items():
        there = checkpoint.restore(folder, like)
        assert {device for leaf in jax.tree.leaves(there.params) for device in leaf.devices()} == set(
            jax.devices()[: 1 if place is None else 2]
        )
        assert_close(there.params, four.params)
        images = pictures if place is None else replicate(pictures, place)
        _, more = jaxvae.fit(conv, config, hparams, there, images, steps=2, mesh=place)
        assert np.isfinite(more.loss).all()
    # Without shardings, a state is restored on the first device.
    there = checkpoint.restore(folder, jax.eval_shape(begin))
    assert {device for leaf in jax.tree.leaves(there.params) for device in leaf.devices()} == {jax.devices()[0]}
    assert_close(there.params, four.params)
print("restored: equal")

# Scoring with the batch spread over devices, which do not communicate.
scores = [
    list(
        jaxvae.score_batches(
            conv, one.params, np.asarray(pictures)[:22], batch_size=12 if place is None else 3, mesh=place
        )
    )
    for place in (None, mesh)
]
assert [len(batch.samples.elbo) for batch in scores[1]] == [12, 10]
assert_close(scores[1], scores[0])
lowered = jaxvae.score_batch.lower(conv, replicate(one.params, mesh), spread(pictures, mesh), mesh=mesh)
assert not any(word in lowered.compile().as_text() for word in ("all-reduce", "all-gather", "collective-permute"))
print("scores: equal")
