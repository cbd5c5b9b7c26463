"""Memory estimates compared with XLA's count of the compiled programs; memory limits of jobs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import jaxvae
from jaxvae.population import fit_many, score_many
from jaxvae.runs import capacity

DENSE, CONV = jaxvae.DenseVAE((28, 28, 1), 20, 200), jaxvae.ConvVAE((64, 64, 1), 16)


def held(compiled) -> int:
    """Bytes that a compiled program holds. Outputs in the place of an input count once."""
    counted = compiled.memory_analysis()
    assert counted is not None
    held = counted.argument_size_in_bytes + counted.temp_size_in_bytes
    return held + counted.output_size_in_bytes - counted.alias_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "runs", "together", "batch_size"),
    [(DENSE, 2, 1, 16), (DENSE, 6, 1, 16), (DENSE, 6, 6, 16), (CONV, 2, 1, 64), (CONV, 2, 2, 64)],
)
def test_the_estimate_is_slightly_above_xlas_count(model, runs, together, batch_size):
    config = jaxvae.TrainConfig(batch_size=batch_size)
    images = jnp.zeros((64, *model.image_shape), jnp.uint8)
    members = jaxvae.grid(seed=range(runs))
    states = fit_many.init_many(model, config, members)
    start = (states.params, states.opt_state, states.key)
    training = fit_many._fit_many.lower(
        model,
        config,
        members,
        start,
        images,
        jnp.int32(0),
        steps=3,
        mesh=None,
        objective=jaxvae.elbo_terms,
        augment=None,
        side_by_side=together,
    )
    scoring = score_many._score_many.lower(
        model,
        (states.params, None, jnp.zeros(runs)),
        jax.ShapeDtypeStruct((2000, *model.image_shape), jnp.uint8),
        batch_size=score_many.AT_ONCE,
        score=jaxvae.sample_scores,
        mesh=None,
    )
    moments = sum(leaf.nbytes for leaf in jax.tree.leaves(states.opt_state))
    most = max(held(training.compile()), held(scoring.compile()) + moments)
    expected = capacity.population_bytes(
        model, runs, side_by_side=together, batch_size=batch_size, scored=2000, image_bytes=images.nbytes
    )
    assert 0.95 * most < expected < 2 * most


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_parent_groups_apply(tmp_path, version):
    kinds = {1: "memory", 2: ""}[version]
    names = {1: ("limit_in_bytes", "usage_in_bytes", "total_"), 2: ("max", "current", "")}[version]
    for path, limit in {"": "max" if version == 2 else str(2**60), "job_7": "9000", "job_7/step_0": "max"}.items():
        folder = tmp_path / kinds / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"memory.{names[0]}").write_text(f"{limit}\n")
        (folder / f"memory.{names[1]}").write_text("5000\n")
        (folder / "memory.stat").write_text(f"{names[2]}inactive_file 300\nanon 4700\n")
    own = tmp_path / "own"
    own.write_text(f"3:cpuset:/\n4:{kinds}:/job_7/step_0\n")
    assert min(capacity._left_to_the_container(tmp_path, own)) == 9000 - 5000 + 300
    own.write_text("3:cpuset:/\n")
    assert capacity._left_to_the_container(tmp_path, own) == []
    assert capacity._left_to_the_container(tmp_path, tmp_path / "none") == []


def test_free_memory_is_plausible():
    free = capacity.free_bytes()
    assert free is None or 10**6 < free < 10**14
    assert jax.local_devices()
