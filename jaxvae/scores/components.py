"""PCA: the squared residual after projection on healthy principal components.

    (x - mean - U U' (x - mean))^2

The columns of U are the leading eigenvectors of the covariance of flattened healthy images. This is the linear
autoencoder with the least squared error (Baldi & Hornik 1989). As a detector of anomalies: Goldstein & Uchida 2016, A
comparative evaluation of unsupervised anomaly detection algorithms; theirs is one number per sample, this is one per
pixel.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvae.models.model import Model
from jaxvae.objectives.elbo import Likelihood
from jaxvae.ops.filters import flat, unit_range
from jaxvae.ops.spacing import evenly_spaced
from jaxvae.types import Array, Params


def fit(
    model: Model,
    params: Params,
    images: np.ndarray,
    *,
    log_scale: float | Array,
    likelihood: Likelihood,
    components: int = 64,
    most_images: int = 1000,
) -> dict[str, np.ndarray]:
    """The mean and the leading principal components of healthy images.

    The components are exact, from an eigendecomposition of the smaller of X X' and X' X.

    Args:
      model, params, log_scale, likelihood: unused.
      images: healthy images [N, H, W, C], uint8 or float; N of at least 1.
      components: their number. Those without variance, such as all of a single image, are zero.
      most_images: at most so many images are used, evenly spaced. The decomposition needs the cube of this number.

    Returns:
      mean [H W C], components [components, H W C], with rows of length 1 that are orthogonal, or 0.
    """
    from scipy import linalg

    index = evenly_spaced(len(images), most_images)
    values = unit_range(images[index]).reshape(len(index), -1).astype(np.float64)
    mean = values.mean(axis=0)
    values -= mean
    wide = values.shape[0] <= values.shape[1]
    products = values @ values.T if wide else values.T @ values
    count = min(components, len(products))
    variances, vectors = linalg.eigh(products, subset_by_index=(len(products) - count, len(products) - 1))
    # In a product, rounding is relative to the largest value.
    there = variances > 1e-10 * max(variances.max(), 1e-10)
    found = vectors[:, there].T @ values / np.sqrt(variances[there, None]) if wide else vectors[:, there].T
    kept = np.zeros((components, values.shape[1]))
    kept[: len(found)] = found[::-1]
    return {"mean": mean.astype(np.float32), "components": kept.astype(np.float32)}


@jax.jit(static_argnames=("model", "likelihood"))
def score(
    model: Model,
    params: Params,
    images: Array,
    *,
    log_scale: float | Array,
    likelihood: Likelihood,
    state: dict[str, Array],
) -> dict[str, Array]:
    """`pca`, [B, H, W, C].

    Args:
      model, params, log_scale, likelihood: unused.
      images: [B, H, W, C], uint8 or float.
      state: from `fit`.
    """
    components, exact = jnp.asarray(state["components"]), lax.Precision.HIGHEST
    centred = flat(unit_range(images)) - state["mean"][None]
    weights = jnp.matmul(centred, components.T, precision=exact)
    residual = centred - jnp.matmul(weights, components, precision=exact)
    return {"pca": jnp.square(residual).reshape(images.shape)}
