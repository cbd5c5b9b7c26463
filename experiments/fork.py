"""A custom model, objective and score in one file, with all commands.

    python experiments/fork.py train RUN --data phantom --model linear --objective clipped --steps 2000
    python experiments/fork.py evaluate RUN --maps highest rec_error elbo_grad absolute
    python experiments/fork.py report RUN

The file adds a line to each of three tables, and then runs the command of jaxvae, which knows them by name. A run made
with this file is opened with this file.
"""

import math
import sys
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import jaxvae


class LinearVAE(nn.Module):
    """A VAE with one matrix for each half."""

    image_shape: tuple[int, int, int]
    latent_size: int = 16

    def setup(self) -> None:
        self.encoder, self.decoder = nn.Dense(2 * self.latent_size), nn.Dense(math.prod(self.image_shape))

    def encode(self, images: jax.Array) -> jaxvae.Posterior:
        mean, log_std = jnp.split(self.encoder(images.reshape(len(images), -1)), 2, axis=1)
        return jaxvae.Posterior(mean, log_std)

    def decode(self, latents: jax.Array) -> jax.Array:
        return self.decoder(latents).reshape(len(latents), *self.image_shape)


def clipped_terms(
    model: jaxvae.Model, params: Any, images: jax.Array, key: Any = None, *, log_scale: Any = 0.0
) -> jaxvae.ElboTerms:
    """The negative ELBO with at most 5 nats per pixel, so outliers count less."""
    terms = jaxvae.elbo_terms(model, params, images, key, log_scale=log_scale)
    return terms._replace(nll=jnp.minimum(terms.nll, 5.0))


@jax.jit(static_argnames=("model", "likelihood"))
def score(model: jaxvae.Model, params: Any, images: jax.Array, *, log_scale: Any, likelihood: Any, state: Any) -> Any:
    """The error of each pixel relative to healthy images, and the highest."""
    error = jnp.abs(images - jaxvae.reconstruct(model, params, images).mean) / state["mean_error"]
    return {"absolute": error, "highest": jnp.max(error, axis=(1, 2, 3))}


def fit(model: jaxvae.Model, params: Any, images: Any, *, log_scale: Any, likelihood: Any) -> dict[str, Any]:
    """The mean absolute error of each pixel of healthy images, [H, W, C]."""
    some = jnp.asarray(images[:1000])
    return {"mean_error": jnp.mean(jnp.abs(some - jaxvae.reconstruct(model, params, some).mean), axis=0) + 1e-3}


jaxvae.models.add(
    jaxvae.models.Network("linear", "LinearVAE", {}, latent_size=16, batch_size=64, learning_rate=1e-3, make=LinearVAE)
)
jaxvae.objectives.add(jaxvae.objectives.NamedObjective("clipped", summary="ELBO, clipped", terms=clipped_terms))
absolute = jaxvae.scores.Score("absolute", "Absolute error", "|x − x̂| / its healthy mean", "#cc79a7")
highest = jaxvae.scores.Score("highest", "Highest error", "max |x − x̂| / its healthy mean", "#cc79a7", of_images=True)
jaxvae.scores.add(jaxvae.scores.Method("absolute_error", (absolute, highest), needs=("latent",), score=score, fit=fit))

if __name__ == "__main__":
    from jaxvae.cli import main  # After the additions, whose names its flags take.

    sys.exit(main())
