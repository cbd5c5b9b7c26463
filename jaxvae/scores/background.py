"""Likelihood ratio with a background model, one number per image.

    likelihood_ratio(x) = ELBO(x) - ELBO_background(x),    ELBO the negative one

The background model is trained on the same images after random pixels were replaced by random values. It learns what
all images share, such as a dark background. The difference is what only the images of the training set have.

Source: Ren et al. 2019. They replace pixels with a probability of 0.1 to 0.3, use PixelCNN++ and
regularise the background model's weights, with both strengths chosen on a second data set. Here the background model is
the same VAE, trained from new weights on the ELBO without regularisation, whatever objective the model was trained
with. The ELBO at z = mean approximates log p(x).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae import train
from jaxvae.errors import InputError
from jaxvae.models.model import Model
from jaxvae.objectives.elbo import Likelihood, elbo_terms, gaussian_nll
from jaxvae.scores.gradients import sample_scores
from jaxvae.types import Array, Key, Params

State = dict[str, Params]
PORTION = 50  # batches that are on the device at a time


def corrupt(
    key: Key, images: Array, strength: float | Array, low: float | Array = 0.0, high: float | Array = 1.0
) -> Array:
    """Replace values, each with probability `strength`, by uniform ones in low..high."""
    where, what = jax.random.split(key)
    # `bernoulli` and `uniform` take traced numbers, so another strength is the same program.
    replaced = jax.random.bernoulli(where, strength, images.shape)
    return jnp.where(replaced, jax.random.uniform(what, images.shape, images.dtype, low, high), images)


def fit(
    model: Model,
    params: Params,
    images: np.ndarray,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    strength: float = 0.2,
    steps: int = 2000,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> State:
    """Train the background model.

    Args:
      params: not used; the background model starts from new weights.
      images: healthy ones, [N, H, W, C], uint8 or float.
      log_scale, likelihood: those the model was trained with.
      strength: the probability that a value is replaced.
      steps, batch_size, learning_rate, seed: of the training. The batch has at most N images.

    Returns:
      {"params": the background model's parameters}.

    Raises:
      InputError: strength is not in 0..1.
    """
    if not 0 <= strength <= 1:
        raise InputError(f"strength={strength}: must be in 0..1")
    config = train.TrainConfig(batch_size=min(batch_size, len(images)))
    hparams = train.Hyperparams(learning_rate, 1.0, log_scale)
    state = train.init(model, config, hparams, train.run_key(seed))
    limits = (0.0, 1.0) if images.dtype == np.uint8 else (float(images.min()), float(images.max()))
    order, rng = np.empty(0, int), np.random.default_rng(seed)
    # In portions, so that the data set need not fit into the device's memory.
    for start in range(0, steps, PORTION):
        count = min(PORTION, steps - start)
        needed = count * config.batch_size
        while len(order) < needed:
            order = np.concatenate([order, rng.permutation(len(images))])
        portion, order = images[order[:needed]], order[needed:]
        state = _advance(model, config, hparams, state, portion, strength, limits, steps=count, likelihood=likelihood)
    return {"params": state.params}


@jax.jit(static_argnames=("model", "config", "steps", "likelihood"), donate_argnames="state")
def _advance(
    model: Model,
    config: train.TrainConfig,
    hparams: train.Hyperparams,
    state: train.TrainState,
    images: Array,
    strength: Array,
    limits: tuple[Array, Array],
    *,
    steps: int,
    likelihood: Likelihood,
) -> train.TrainState:
    """`steps` updates, one for each batch of the images."""
    objective = partial(elbo_terms, likelihood=likelihood)
    settings = {"objective": objective, "augment": lambda key, batch: corrupt(key, batch, strength, *limits)}
    return train.advance(model, config, hparams, state, images, steps=steps, **settings)[0]


@jax.jit(static_argnames=("model", "likelihood"))
def score(
    model: Model,
    params: Params,
    images: Array,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    state: State | None = None,
) -> dict[str, Array]:
    """The negative ELBO of each image minus that of the background model, in nats.

    Args:
      images: [B, H, W, C], uint8 (divided by 255) or float.
      log_scale, likelihood: see `elbo_terms`.
      state: from `fit`.

    Returns:
      {"likelihood_ratio": [B]}.

    Raises:
      InputError: there is no state.
    """
    if state is None:
        raise InputError("likelihood_ratio: needs a background model; call fit, and pass its state")
    own, background = (
        sample_scores(model, some, images, log_scale=log_scale, likelihood=likelihood).elbo
        for some in (params, state["params"])
    )
    return {"likelihood_ratio": own - background}
