"""jaxvae in one sitting: data, a model, training, scores, a picture, a custom network and a custom likelihood.

    python experiments/quickstart.py      # under two minutes on two cores; writes quickstart.png

Each `# %%` starts a cell in editors that know them (VS Code, PyCharm, Spyder, Jupyter with jupytext).
"""

# %% Data: synthetic brain slices. Training images are healthy; half of the test images have a lesion and a mask.
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import jaxvae
from jaxvae.data import phantom

splits = phantom.load(train=1000, test=200, size=64, seed=0)
train_images, test = jnp.asarray(splits.train.images), splits.test  # [N, 64, 64, 1] in 0..1
masks = np.asarray(test.masks)  # [N, 64, 64, 1] bool
print(f"{len(train_images)} training images, {len(test)} test images, {test.labels.sum()} of them with a lesion")

# %% Model: the paper's convolutional VAE. `config` holds what changes shapes, `hparams` the numbers.
STEPS = 400
LOG_SCALE = -2.0  # natural logarithm of the decoder's standard deviation
model = jaxvae.ConvVAE(image_shape=(64, 64, 1), latent_size=64, features=(16, 32, 64, 128))
config = jaxvae.TrainConfig(batch_size=32, schedule="cosine", decay_steps=STEPS)
hparams = jaxvae.Hyperparams(learning_rate=1e-3, log_scale=LOG_SCALE)

# %% Training: `fit` runs all steps as one compiled program and returns the loss of each step.
state = jaxvae.init(model, config, hparams, jax.random.key(0))
state, metrics = jaxvae.fit(model, config, hparams, state, train_images, steps=STEPS)
print(f"loss {metrics.loss[0]:.0f} at the first step, {metrics.loss[-1]:.0f} at the last")

# %% Scores: every map and every image score in one program.
scores = jaxvae.score_batch(model, state.params, jnp.asarray(test.images), log_scale=LOG_SCALE, reconstructions=True)
for name, maps in scores.maps.items():
    dice, _ = jaxvae.best_dice(np.asarray(maps), masks)
    print(f"{name:>15}: pixel AUROC {jaxvae.auroc(np.asarray(maps), masks):.3f}, best Dice {dice:.3f}")
print(f"{'elbo':>15}: image AUROC {jaxvae.auroc(np.asarray(scores.samples.elbo), test.labels):.3f}")

# %% Picture: the test image with the largest lesion.
which = int(np.argmax(masks.sum(axis=(1, 2, 3))))
panels = {
    "image": test.images[which],
    "reconstruction": scores.reconstructions[which],
    "ELBO-Grad": scores.maps["elbo_grad"][which],
    "lesion": masks[which],
}
figure = Figure(figsize=(10, 3), layout="constrained")
for axes, (title, pixels) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
    axes.imshow(pixels[..., 0], cmap="inferno" if title == "ELBO-Grad" else "gray")
    axes.set(title=title, xticks=[], yticks=[])
figure.savefig("quickstart.png", dpi=150)


# %% A custom network: any Flax module with `image_shape`, `latent_size`, `encode` and `decode`.
class SmallVAE(nn.Module):
    image_shape: tuple[int, int, int] = (64, 64, 1)
    latent_size: int = 32

    def setup(self):
        self.heads, self.image = nn.Dense(2 * self.latent_size), nn.Dense(64 * 64)

    def encode(self, images):
        return jaxvae.Posterior(*jnp.split(self.heads(images.reshape(len(images), -1)), 2, axis=-1))

    def decode(self, latents):
        return self.image(latents).reshape(-1, 64, 64, 1)


# %% A custom likelihood: the negative log density per pixel. Training and every score accept it.
def laplace_nll(images, means, *, log_scale):
    return jnp.abs(images - means) * jnp.exp(-log_scale) + log_scale + jnp.log(2.0)


small = SmallVAE()
state = jaxvae.init(small, config, hparams, jax.random.key(0))
objective = functools.partial(jaxvae.elbo_terms, likelihood=laplace_nll)
state, metrics = jaxvae.fit(small, config, hparams, state, train_images, steps=STEPS, objective=objective)
maps = jaxvae.pixel_scores(small, state.params, jnp.asarray(test.images), log_scale=LOG_SCALE, likelihood=laplace_nll)
smooth = np.asarray(jaxvae.filters.gaussian_smooth(maps.elbo_grad, sigma=3.0, window=7))
print(f"custom network and likelihood: pixel AUROC of ELBO-Grad {jaxvae.auroc(smooth, masks):.3f}")
