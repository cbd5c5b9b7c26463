"""Laws of every score of pixels, for the tests of each."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from image_score_laws import model_and_images
from jaxvae.objectives.elbo import gaussian_nll
from jaxvae.ops.forms import PLATFORMS
from jaxvae.scores import METHODS
from oracle import assert_close


def check_laws(module: ModuleType, kind: str, state: Any = None, dropout: float = 0.0, **settings: Any) -> None:
    """Finite float32 maps of every score, whatever the batch, under jit and under vmap over parameters."""
    model, params, images = model_and_images(kind)
    if dropout:
        model = model.clone(dropout=dropout)
    score = partial(module.score, model, log_scale=jnp.float32(-0.5), likelihood=gaussian_nll, state=state, **settings)
    maps = score(params, images)
    assert sorted(maps) == sorted(score.name for score in METHODS[module.__name__.rpartition(".")[2]].scores)
    alone, strangers = score(params, images[3:4]), score(params, images.at[:3].set(1.0)[::-1])
    both = jax.tree.map(lambda leaf: jnp.stack([0.5 * leaf, leaf]), params)
    mapped = jax.jit(jax.vmap(score, (0, None)))(both, images)
    for name, values in maps.items():
        assert values.shape == images.shape
        assert values.dtype == jnp.float32
        assert np.isfinite(values).all()
        assert_close(alone[name][0], values[3], 1e-4)
        assert_close(strangers[name][:2][::-1], values[3:], 1e-4)
        assert_close(mapped[name][1], values, 1e-4)
    if kind == "dense":
        blocks = score(params, jnp.concatenate([images] * (PLATFORMS["cpu"].block // 5 + 1)))
        raw = np.asarray(255 * images, np.uint8)
        found, expected = score(params, raw), score(params, raw / np.float32(255))
        for name, values in maps.items():
            assert_close(blocks[name][-5:], values, 1e-4)
            assert_close(found[name], expected[name])
