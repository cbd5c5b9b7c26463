"""Scores that are fitted on healthy images: their states are kept in the run."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import jaxvae
from folders import write_benchmark
from jaxvae.runs import score_states
from jaxvae.scores import METHODS, SCORES, Method, Score


@pytest.fixture
def centred() -> Iterator[None]:
    """A method whose score is the distance to the mean of the healthy images."""

    def fit(model, params, images, *, log_scale, likelihood):
        assert images.dtype == np.float32
        return {"mean": {"image": images.mean(axis=0)}, "count": len(images)}

    def score(model, params, images, *, log_scale, likelihood, state):
        distance = jnp.abs(images - state["mean"]["image"][None])
        return {"distance": distance, "furthest": distance.max(axis=(1, 2, 3))}

    scores = (
        Score("distance", "Distance", "d", "#000000"),
        Score("furthest", "Furthest", "f", "#000000", of_images=True),
    )
    jaxvae.scores.add(Method("centred", scores, fitted=True, fit=fit, score=score))
    yield
    del METHODS["centred"], SCORES["distance"], SCORES["furthest"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitting")
    write_benchmark(folder / "images")
    settings = jaxvae.Settings(features=(4, 8), latent_size=4, batch_size=4, epochs=1)
    jaxvae.train_run(folder / "run", jaxvae.Source(str(folder / "images"), validation=0.25), settings)
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> jaxvae.Run:
    shutil.copytree(trained, tmp_path / "run")
    return jaxvae.load(tmp_path / "run")


def test_a_fitted_score_is_that_of_its_formula(centred: None, run: jaxvae.Run) -> None:
    with pytest.raises(jaxvae.InputError, match=r"distance, furthest is not fitted on healthy images; call"):
        run.score(np.zeros((1, *run.model.image_shape), np.float32), ["distance"])
    healthy = np.random.default_rng(0).random((5, *run.model.image_shape)).astype(np.float32)
    jaxvae.fit_scores(run, ["distance"], healthy)
    images = np.random.default_rng(1).random((3, *run.model.image_shape)).astype(np.float32)
    found = run.score(images, ["furthest", "distance", "rec_error"])
    expected = np.abs(images - healthy.mean(axis=0))
    np.testing.assert_allclose(found.maps["distance"], expected.mean(axis=3, keepdims=True), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.image_scores["furthest"], expected.max(axis=(1, 2, 3)), rtol=1e-5)
    assert list(found.maps) == ["distance", "rec_error"]


def test_states_survive_writing_and_reading(tmp_path: Path) -> None:
    state = {"a": np.arange(3), "deep": {"b": np.float32(2), "c": {"d": np.ones((2, 2))}}}
    score_states.write(tmp_path, 7, "atlas", state)
    found = score_states.read(tmp_path, 7, "atlas")
    assert found is not None
    assert found["deep"]["c"]["d"].tolist() == [[1, 1], [1, 1]]
    assert (found["a"].tolist(), float(found["deep"]["b"])) == ([0, 1, 2], 2.0)


@pytest.mark.parametrize("damage", ["another step", "cut", "missing"])
def test_a_state_that_does_not_belong_to_the_checkpoint_is_not_used(tmp_path: Path, damage: str) -> None:
    score_states.write(tmp_path, 7, "atlas", {"mean": np.ones(100)})
    path = tmp_path / "fitted" / "atlas.npz"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "missing":
        path.unlink()
    assert score_states.read(tmp_path, 8 if damage == "another step" else 7, "atlas") is None


def test_evaluation_fits_what_it_needs(centred: None, run: jaxvae.Run) -> None:
    evaluation = jaxvae.evaluate(run, maps=("distance", "furthest", "rec_error"), resamples=0)
    pixels, samples = ([row["score"] for row in evaluation[level]] for level in ("pixels", "samples"))
    assert {"distance", "rec_error"} <= {*pixels, *evaluation["thresholds"]}
    assert "furthest" in samples
    assert "furthest" not in pixels
    state = score_states.read_all(run.run_dir, run.step, ["distance"])["centred"]
    assert int(state["count"]) == run.config["images"]["train"]


def test_given_images_are_prepared_and_fit_again(centred: None, run: jaxvae.Run) -> None:
    shape = run.model.image_shape
    for value in (0.0, 1.0):
        jaxvae.fit_scores(run, ["distance"], np.full((2, *shape), value, np.float32))
        found = run.score(np.zeros((1, *shape), np.float32), ["distance"]).maps["distance"]
        assert found.mean() == value
    with pytest.raises(jaxvae.InputError, match=r"images\[0\]: the images are 9x9"):
        jaxvae.fit_scores(run, ["distance"], np.zeros((2, 9, 9, 1), np.float32))


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ([1.0], "centred: its fit gave list; return a dictionary of arrays"),
        ({"mean": "text"}, "centred: its fit gave mean of type <U4; return arrays of numbers"),
        ({"mean": np.array([np.nan])}, "centred: its fit gave NaN or infinity in mean"),
    ],
)
def test_a_wrong_state_is_refused_before_it_is_kept(
    centred: None, run: jaxvae.Run, state: object, problem: str
) -> None:
    METHODS["centred"] = dataclasses.replace(METHODS["centred"], fit=lambda *args, **kwargs: state)
    with pytest.raises(jaxvae.InputError, match=problem):
        jaxvae.fit_scores(run, ["distance"])
    assert not score_states.path_of(run.run_dir, "centred").exists()


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ({"distance": np.zeros((4, 8)), "furthest": np.zeros(4)}, r"distance: its score gave \[4, 8\]; must be \[B, H"),
        ({"other": np.zeros(4)}, "centred: its score gave other; must give distance"),
        (np.zeros(4), "centred: its score gave ndarray; return a dictionary"),
    ],
)
def test_a_wrong_score_is_refused(centred: None, run: jaxvae.Run, result: object, problem: str) -> None:
    method = METHODS["centred"]
    METHODS["centred"] = dataclasses.replace(method, fit=None, fitted=False, score=lambda *args, **kwargs: result)
    with pytest.raises(jaxvae.InputError, match=problem):
        run.score(np.zeros((4, *run.model.image_shape), np.float32), ["distance"])


def test_other_code_is_another_state(centred: None, run: jaxvae.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    jaxvae.fit_scores(run, ["distance"])
    before = score_states.map_digest(run.run_dir, "distance")
    assert score_states.read(run.run_dir, run.step, "centred") is not None
    score_states._read.cache_clear()
    monkeypatch.setattr(score_states, "code_digest", lambda method: "of another file")
    assert score_states.read(run.run_dir, run.step, "centred") is None
    assert score_states.map_digest(run.run_dir, "distance") != before
