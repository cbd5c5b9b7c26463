"""Laws of configurations: values survive JSON, and invalid ones are refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import jax.numpy as jnp
import pytest
from hypothesis import given

import jaxvae
from jaxvae import files
from jaxvae.data import kinds
from jaxvae.data.kinds import Source
from jaxvae.data.volumes import slices
from jaxvae.data.volumes.slices import Slicing
from jaxvae.errors import InputError
from jaxvae.runs.config import model_from_config, model_to_config, read_config
from jaxvae.train import Hyperparams, TrainConfig

SIZES = st.integers(1, 512)
POSITIVE = st.floats(1e-300, 1e300)
NORMALISE = st.sampled_from(("none", "zscore", "robust"))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
dense = st.builds(jaxvae.DenseVAE, st.tuples(SIZES, SIZES, SIZES), SIZES, SIZES)


@st.composite
def convolutional(draw: st.DrawFn) -> jaxvae.ConvVAE:
    features = tuple(draw(st.lists(SIZES, min_size=1, max_size=5)))
    height, width = (draw(st.integers(1, 8)) * 2 ** len(features) for _ in range(2))
    dtype = draw(st.sampled_from((jnp.float32, jnp.bfloat16, jnp.float16, "float32", "bfloat16")))
    return jaxvae.ConvVAE((height, width, draw(SIZES)), draw(SIZES), features, dtype)


@st.composite
def slicings(draw: st.DrawFn) -> Slicing:
    percentiles = draw(st.none() | st.lists(st.floats(0, 100), min_size=2, max_size=2, unique=True).map(sorted))
    return Slicing(
        size=draw(SIZES),
        normalise=draw(NORMALISE),
        percentiles=percentiles and (percentiles[0], percentiles[1]),
        clip=draw(st.none() | POSITIVE),
        smallest=draw(st.floats(0, 1)),
        neighbours=draw(st.integers(0, 9)),
    )


def through_json(value: Any) -> Any:
    """The value after writing and reading it as JSON."""
    return json.loads(json.dumps(value, allow_nan=False))


@given(dense | convolutional())
def test_every_model_survives_json(model):
    assert model_from_config(through_json(model_to_config(model))) == model


@given(
    st.builds(
        TrainConfig,
        SIZES,
        st.none() | POSITIVE,
        st.sampled_from(("constant", "cosine", "exponential", "step")),
        st.integers(0, 10**9),
        SIZES,
        POSITIVE,
    )
)
def test_every_training_configuration_survives_json(config):
    assert TrainConfig(**through_json(asdict(config))) == config


@given(st.builds(Hyperparams, POSITIVE, POSITIVE, st.floats(-50, 50)))
def test_all_hyperparameters_survive_json(hparams):
    assert Hyperparams(**through_json(asdict(hparams))) == hparams


@given(slicings())
def test_every_slicing_survives_json(slicing):
    assert slices.from_config(through_json(slices.to_config(slicing))) == slicing


@given(
    st.builds(
        Source,
        data=st.just("phantom"),
        size=st.none() | st.tuples(SIZES) | st.tuples(SIZES, SIZES),
        channels=st.none() | st.lists(st.integers(0, 15), min_size=1, max_size=4).map(tuple),
        normalise=NORMALISE,
        validation=st.floats(0, 0.9),
        split_seed=st.integers(0, 2**32 - 1),
    )
)
def test_every_source_survives_json(source):
    assert kinds.from_config(through_json(kinds.to_config(source))) == source


@given(st.lists(st.dictionaries(TEXT, JSON, max_size=4), max_size=4))
def test_every_record_survives_jsonl(tmp_path, records):
    files.write_lines(tmp_path / "a.jsonl", records[:2])
    files.append_lines(tmp_path / "a.jsonl", records[2:])
    assert files.read_lines(tmp_path / "a.jsonl") == records


@given(JSON | st.dictionaries(st.sampled_from(("name", "image_shape", "features", "dtype", "latent_size")), JSON))
def test_an_invalid_model_is_refused_in_one_line(config):
    for one in (config, {"name": "DenseVAE", "config": config}, {"name": "ConvVAE", "image_shape": config}):
        with pytest.raises(InputError) as refused:
            model_from_config(one)  # pyright: ignore[reportArgumentType]
        assert "\n" not in str(refused.value)


@given(JSON)
def test_an_invalid_config_json_is_refused_in_one_line(tmp_path, value):
    write = Path(tmp_path / "config.json").write_text
    write(json.dumps(value))
    with pytest.raises(InputError, match=r"config\.json: ") as refused:
        read_config(tmp_path)
    assert "\n" not in str(refused.value)
