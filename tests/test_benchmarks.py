"""The benchmarks in `scripts/`: contenders that fail, and counts of work."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import jax
import pytest

import jaxvae
from jaxvae.models.model import param_shapes

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def script(monkeypatch):
    """A function that imports a script. The hardware's rates are invented, because it takes seconds to time them."""
    monkeypatch.syspath_prepend(SCRIPTS)
    ceilings = importlib.import_module("ceilings")
    monkeypatch.setattr(ceilings, "measured", lambda precision: ceilings.Ceilings(1e11, 1e10))
    return importlib.import_module


def fail(*_: object) -> None:
    raise RuntimeError("out of memory,\n  24 GiB")


def test_a_contender_that_fails_leaves_the_race(script):
    timing = script("timing")
    called = []

    def third_call() -> None:
        called.append(len(called))
        if len(called) > 2:
            fail()

    def check(name: str, run: object) -> None:
        if name == "wrong":
            raise ValueError("a map differs")

    makers = {
        "made": lambda: sum,
        "not made": fail,
        "first call": lambda: fail,
        "later call": lambda: third_call,
        "wrong": lambda: lambda: None,
        "good": lambda: lambda: None,
    }
    makers["made"] = lambda: lambda: None
    results = timing.race(makers, rounds=2, turn_s=1e-4, check=check)
    assert list(results) == list(makers)
    reasons = {name: result.reason for name, result in results.items() if isinstance(result, timing.Failure)}
    memory = "RuntimeError: out of memory, 24 GiB"
    assert reasons == {
        "not made": memory,
        "first call": memory,
        "later call": memory,
        "wrong": "ValueError: a map differs",
    }
    assert all(results[name].minimum <= results[name].median for name in ("made", "good"))


def test_reasons_are_one_short_line(script):
    reason = script("timing").reason_of(ValueError("word " * 100))
    assert reason.startswith("ValueError: word word")
    assert len(reason) == 140


@pytest.mark.parametrize(
    "model",
    [jaxvae.ConvVAE((64, 64, 1)), jaxvae.ConvVAE((32, 16, 3), 7, (4, 6)), jaxvae.DenseVAE((28, 28, 1))],
    ids=lambda model: type(model).__name__,
)
def test_counted_layers_have_all_parameters(script, model):
    ceilings = script("ceilings")
    layers = [layer for part in ceilings.layers_of(model) for layer in part]
    assert sum(layer.parameters for layer in layers) == sum(leaf.size for leaf in jax.tree.leaves(param_shapes(model)))
    flops = sum(layer.flops for layer in layers)
    assert 2.5 * 10 * flops < ceilings.work_of_step(model, 10).flops < 3 * 10 * flops


def test_a_peer_that_fails_is_a_row_of_its_benchmark(script, monkeypatch, tmp_path, capsys):
    bench = script("bench_train")
    monkeypatch.setattr(bench, "torch_facts", lambda wanted: {})
    monkeypatch.setattr(bench, "torch_makers", lambda *_, **__: {"PyTorch": fail})
    config = bench.Config(networks=("dense",), steps=1, rounds=1, json=tmp_path / "rows.json")
    assert bench.main(config) == 0
    ours, peer = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert ours["contender"] == "jaxvae"
    assert ours["median_ms"] > 0
    assert peer == {"network": "dense", "contender": "PyTorch", "failed": "RuntimeError: out of memory, 24 GiB"}
    assert "RuntimeError: out of memory, 24 GiB" in capsys.readouterr().out


def test_a_benchmark_fails_if_jaxvae_does(script, monkeypatch, capsys):
    bench = script("bench_train")
    monkeypatch.setattr(bench, "jax_contender", fail)
    assert bench.main(bench.Config(networks=("dense",), rounds=1, torch=False)) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "RuntimeError: out of memory, 24 GiB"


def test_populations_continue_from_their_states(script, monkeypatch, tmp_path):
    bench = script("bench_sweep")
    monkeypatch.setattr(bench, "IMAGES", 128)
    monkeypatch.setattr(bench, "BATCH", {"dense": 128})
    config = bench.Config(networks=("dense",), runs=(2,), steps=1, rounds=1, torch=False, json=tmp_path / "rows.json")
    assert bench.main(dataclasses.replace(config, ways=("side by side", "single runs"))) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["contender"] for row in rows] == ["side by side", "single runs"]
    assert all(row["ms"] > 0 for row in rows)
