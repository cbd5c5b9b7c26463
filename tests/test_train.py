"""Training: the program, exact continuation, and Adam against optax."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxvae
from jaxvae.train import epoch_order, learning_rate

MODEL = jaxvae.DenseVAE((8, 8, 1), 3, 16)
CONFIG = jaxvae.TrainConfig(batch_size=4)
HPARAMS = jaxvae.Hyperparams(learning_rate=1e-2)


def data(count=10):
    return jax.random.uniform(jax.random.key(9), (count, 8, 8, 1))


def start(config=CONFIG, seed=0):
    return jaxvae.init(MODEL, config, HPARAMS, jax.random.key(seed))


def equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def test_the_elbo_improves(vae, images):
    model, _ = vae
    hparams = jaxvae.Hyperparams(learning_rate=3e-3)
    state = jaxvae.init(model, CONFIG, hparams, jax.random.key(0))
    _, metrics = jaxvae.fit(model, CONFIG, hparams, state, images, steps=60)
    assert metrics.loss[-10:].mean() < metrics.loss[:10].mean() - 5
    np.testing.assert_allclose(metrics.loss, metrics.kl + metrics.nll, rtol=1e-5)


@pytest.mark.optimized
def test_fit_in_parts_equals_fit_at_once_bit_for_bit():
    whole, whole_metrics = jaxvae.fit(MODEL, CONFIG, HPARAMS, start(), data(), steps=9)
    state, first = jaxvae.fit(MODEL, CONFIG, HPARAMS, start(), data(), steps=3)
    state, second = jaxvae.fit(MODEL, CONFIG, HPARAMS, state, data(), steps=6)
    equal(state, whole)
    np.testing.assert_array_equal(np.concatenate([first.loss, second.loss]), whole_metrics.loss)


def test_fit_equals_single_steps_over_the_order_of_each_epoch():
    images, state = data(), start()
    fitted, metrics = jaxvae.fit(MODEL, CONFIG, HPARAMS, start(), images, steps=5)
    losses = []
    for number in range(5):
        epoch, position = divmod(number, 2)  # Ten images make two batches of four; two are dropped.
        order = epoch_order(state.key, jnp.int32(epoch), len(images))
        batch = images[order[4 * position : 4 * position + 4]]
        state, step_metrics = jaxvae.train_step(MODEL, CONFIG, HPARAMS, state, batch)
        losses.append(step_metrics.loss)
    np.testing.assert_allclose(metrics.loss, losses, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(fitted.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_each_epoch_has_another_permutation():
    key = jax.random.key(0)
    orders = [np.asarray(epoch_order(key, jnp.int32(epoch), 50)) for epoch in range(3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(50))
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[1], orders[2])


def test_the_update_is_optax_adam():
    state, images = start(), data(4)
    params, key = state.params, state.key
    transform = optax.adam(1e-2)
    opt_state = transform.init(params)

    def loss(params, key):
        return jaxvae.negative_elbo(jaxvae.elbo_terms(MODEL, params, images, key), beta=1.0).mean()

    @jax.jit
    def update(params, opt_state, number):
        _, z_key = jax.random.split(jax.random.fold_in(key, number))
        updates, opt_state = transform.update(jax.grad(loss)(params, z_key), opt_state)
        return optax.apply_updates(params, updates), opt_state

    for number in range(3):
        params, opt_state = update(params, opt_state, number)
    for _ in range(3):
        state, _ = jaxvae.train_step(MODEL, CONFIG, HPARAMS, state, images)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_vmapped_runs_equal_single_runs():
    hparams = jaxvae.Hyperparams(jnp.array([1e-2, 1e-3]), jnp.array([1.0, 4.0]), jnp.array([0.0, -1.0]))
    start_many = jax.jit(jax.vmap(lambda seed: jaxvae.init(MODEL, CONFIG, HPARAMS, jax.random.key(seed))))
    states = start_many(jnp.arange(2))
    population, metrics = jax.vmap(
        lambda h, s: jaxvae.fit(MODEL, CONFIG, h, s, data(), steps=5)
    )(hparams, states)  # fmt: skip
    for r in range(2):
        single = jax.tree.map(lambda leaf, r=r: leaf[r], hparams)
        state, single_metrics = jaxvae.fit(MODEL, CONFIG, single, start(seed=r), data(), steps=5)
        np.testing.assert_allclose(metrics.loss[r], single_metrics.loss, rtol=1e-5)
        leaves = zip(jax.tree.leaves(population.params), jax.tree.leaves(state.params), strict=True)
        for many, one in leaves:
            np.testing.assert_allclose(many[r], one, atol=1e-5)


def test_other_hyperparameters_do_not_compile_again(compilations):
    images = data()
    state, _ = jaxvae.fit(MODEL, CONFIG, HPARAMS, start(), images, steps=2)
    jax.block_until_ready(state)
    other = jaxvae.Hyperparams(learning_rate=3e-4, beta=2.0, log_scale=-1.0)
    compilations.clear()
    jaxvae.fit(jaxvae.DenseVAE((8, 8, 1), 3, 16), jaxvae.TrainConfig(batch_size=4), other, state, images, steps=2)
    assert compilations == []


@pytest.mark.parametrize("kind", ["step", "fit"])
def test_training_compiles_once_and_donates_its_state(kind, compilations):
    images = data(4)
    hparams = jax.device_put(jaxvae.Hyperparams(1e-2, 1.0, 0.0))

    def advance(state):
        if kind == "step":
            return jaxvae.train_step(MODEL, CONFIG, hparams, state, images)
        return jaxvae.fit(MODEL, CONFIG, hparams, state, images, steps=3)

    state, metrics = advance(start())
    jax.block_until_ready((state, metrics))
    compilations.clear()
    before = state
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            state, metrics = advance(state)
    assert compilations == []
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))
    assert not images.is_deleted()


def test_the_program_does_not_call_the_host():
    text = jaxvae.fit.lower(MODEL, CONFIG, HPARAMS, start(), data(), steps=4).compile().as_text()
    assert "input_output_alias" in text
    for word in ("callback", "infeed", "outfeed"):
        assert word not in text


def test_gradients_are_clipped_to_the_norm():
    # Adam cancels a common factor, so look at its first moment: 0.1 of the gradient after one step.
    clipped = jaxvae.TrainConfig(batch_size=4, clip_norm=0.5)
    state, metrics = jaxvae.train_step(MODEL, clipped, HPARAMS, start(clipped), data(4))
    assert metrics.grad_norm > 0.5
    moment = next(
        part.mu for part in jax.tree.leaves(state.opt_state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(part, "mu")
    )
    np.testing.assert_allclose(optax.tree.norm(moment), 0.1 * 0.5, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (jaxvae.TrainConfig(), {0: 1, 10**6: 1}),
        (jaxvae.TrainConfig(schedule="cosine", decay_steps=100), {0: 1, 50: 0.5, 100: 0, 200: 0}),
        (jaxvae.TrainConfig(schedule="step", decay_steps=10), {0: 1, 9: 1, 10: 0.1, 25: 0.01}),
        (jaxvae.TrainConfig(schedule="exponential", decay_steps=10, decay_rate=0.25), {0: 1, 5: 0.5, 10: 0.25}),
        (jaxvae.TrainConfig(warmup_steps=4), {0: 0.25, 1: 0.5, 3: 1, 9: 1}),
        (jaxvae.TrainConfig(schedule="step", warmup_steps=5, decay_steps=10), {0: 0.2, 14: 1, 15: 0.1}),
    ],
)
def test_schedules_scale_the_learning_rate(config, expected):
    for step, factor in expected.items():
        rate = learning_rate(config, jaxvae.Hyperparams(learning_rate=0.5), jnp.int32(step))
        np.testing.assert_allclose(rate, 0.5 * factor, atol=1e-7, err_msg=f"step {step}")


def test_augmentation_and_objective_are_arguments():
    def black(key, images):
        return jnp.zeros_like(images)

    def only_kl(model, params, images, key=None, *, log_scale=0.0):
        terms = jaxvae.elbo_terms(model, params, images, key, log_scale=log_scale)
        return terms._replace(nll=jnp.zeros_like(terms.nll))

    _, metrics = jaxvae.train_step(MODEL, CONFIG, HPARAMS, start(), data(4), objective=only_kl, augment=black)
    expected = jaxvae.gaussian_kl(jaxvae.encode(MODEL, start().params, jnp.zeros((4, 8, 8, 1)))).mean()
    np.testing.assert_allclose(metrics.loss, expected, rtol=1e-5)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="batch_size=4: must be at most 3"):
        jaxvae.fit(MODEL, CONFIG, HPARAMS, start(), data(3), steps=1)
    with pytest.raises(ValueError, match="schedule='linear': unknown"):
        jaxvae.TrainConfig(schedule="linear")  # pyright: ignore[reportArgumentType]
    out_of_range = {"batch_size": 0, "decay_steps": 0, "warmup_steps": -1, "clip_norm": 0.0, "decay_rate": -1.0}
    for name, value in [*out_of_range.items(), ("batch_size", 4.5), ("decay_rate", None)]:
        with pytest.raises(ValueError, match=f"{name}={value}: must be"):
            jaxvae.TrainConfig(**{name: value})


def test_the_derivative_through_training_equals_differences():
    """Zeros in the images make some gradients and second moments of Adam 0."""
    images = data().at[:, :4].set(0)

    @jax.jit
    def last_loss(rate):
        state = jaxvae.init(MODEL, CONFIG, HPARAMS, jax.random.key(0))
        hparams = jaxvae.Hyperparams(learning_rate=rate)
        return jaxvae.fit(MODEL, CONFIG, hparams, state, images, steps=4)[1].loss[-1]

    rate, step = 1e-2, 3e-4
    expected = (last_loss(rate + step) - last_loss(rate - step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.grad(last_loss))(rate), expected, rtol=0.05)


@pytest.mark.optimized
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="reads a program for CPUs")
@pytest.mark.parametrize("model", [MODEL, jaxvae.ConvVAE((8, 8, 1), 32, (16, 32))], ids=["dense", "conv"])
def test_no_kernel_is_copied_before_its_update(model):
    state = jaxvae.init(model, CONFIG, HPARAMS, jax.random.key(0))
    program = jaxvae.fit.lower(model, CONFIG, HPARAMS, state, data(), steps=3).compile().as_text()
    kernels = {f"f32[{','.join(map(str, leaf.shape))}]" for leaf in jax.tree.leaves(state.params) if leaf.ndim > 1}
    copied = [line for line in program.splitlines() if " copy(%get-tuple-element" in line]
    assert not [line for line in copied for kernel in kernels if f"= {kernel}" in line]


def test_a_nan_gradient_makes_all_weights_nan():
    images = data().at[:].set(jnp.nan)
    state, metrics = jaxvae.train_step(MODEL, CONFIG, HPARAMS, start(), images[:4])
    assert jnp.isnan(metrics.grad_norm)
    assert all(jnp.isnan(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_wrong_numbers_of_steps_are_refused():
    for steps in (-1, 1.5):
        with pytest.raises(ValueError, match=f"steps={steps}: must be"):
            jaxvae.fit(MODEL, CONFIG, HPARAMS, start(), data(), steps=steps)


@pytest.mark.parametrize(
    ("terms", "problem"),
    [
        (lambda kl, nll: jnp.mean(nll), "objective: gives .*; return jaxvae.ElboTerms"),
        (lambda kl, nll: jaxvae.ElboTerms(kl, jnp.mean(nll, axis=0)), r"objective: gives kl \[4\] and nll \[8, 8, 1\]"),
        (lambda kl, nll: jaxvae.ElboTerms(jnp.mean(kl), nll), r"objective: gives kl \[\] and nll \[4, 8, 8, 1\]"),
    ],
)
def test_an_objective_of_wrong_shapes_is_refused(terms, problem) -> None:
    def objective(model, params, images, key=None, *, log_scale=0.0):
        return terms(*jaxvae.elbo_terms(model, params, images, key, log_scale=log_scale))

    model, config = jaxvae.DenseVAE((8, 8, 1), 2, 4), jaxvae.TrainConfig(batch_size=4)
    state = jaxvae.init(model, config, jaxvae.Hyperparams(), jax.random.key(0))
    with pytest.raises(jaxvae.InputError, match=problem):
        jaxvae.train_step(model, config, jaxvae.Hyperparams(), state, jnp.zeros((4, 8, 8, 1)), objective=objective)
