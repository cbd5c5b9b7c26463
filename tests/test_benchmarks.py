"""The benchmarks in `scripts/`: contenders that fail, counts of work, and the driver that runs all of them."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
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


def test_the_driver_goes_on_after_failures_and_resumes(script, tmp_path, capsys):
    device = script("bench_device")

    def part(name: str, code: str, **settings) -> object:
        return device.Part(name, [sys.executable, "-c", code], **{"seconds": 60, **settings})

    rows = {"context": {"precision": "float32"}, "rows": [{"network": "conv", "contender": "jaxvae", "median_ms": 2.0}]}
    partial = f"open({str(tmp_path / 'half.part.json')!r}, 'w').write({json.dumps(rows)!r})"
    parts = [
        part("tests", f"open({str(tmp_path / 'calls')!r}, 'a').write('x'); print('3 passed')"),
        part("half", f"{partial}; raise SystemExit('no memory')", writes_rows=True),
        part("slow", "import time; print('begun', flush=True); time.sleep(60)", seconds=1),
        part("late", ""),
    ]
    env = device.environment_of("gpu", quick=True)
    for _ in range(2):
        failed = device.run_all(parts[:3], tmp_path, env, minutes=5)
        failed |= device.run_all(parts[3:], tmp_path, env, minutes=0)
        assert failed == {
            "half": "no memory",
            "slow": "stopped after 1 s: begun",
            "late": "out of time; the same command continues",
        }
    assert (tmp_path / "calls").read_text() == "x"
    assert "tests: finished before" in capsys.readouterr().out
    table = device.summary(device.contents_of(parts, tmp_path), failed)
    assert [(row["what"], row["contender"]) for row in table] == [
        ("tests", "3 passed"),
        ("training, conv, per step", "jaxvae"),
        ("half", "all"),
        ("slow", "all"),
        ("late", "all"),
    ]


def test_the_table_compares_with_the_best_pytorch(script):
    device = script("bench_device")

    def content(*rows: dict, **shared) -> dict:
        return {"context": {"precision": "tensorfloat32"}, "rows": [{**shared, **row} for row in rows]}

    ours, failed = {"contender": "jaxvae", "median_ms": 2.0, "of_ceiling": 0.5}, {"contender": "PyTorch, compiled"}
    peers = [{"contender": "PyTorch", "median_ms": 8.0}, {"contender": "PyTorch, CUDA graph", "median_ms": 3.0}]
    contents = {
        "scores": content(ours, *peers, {**failed, "failed": "no"}, batch=64),
        "train": content(ours, *peers, network="conv"),
        "sweep_conv": content({"contender": "side by side", "ms": 0.5, "runs": 16}, network="conv"),
    }
    rows = device.summary(contents, {})
    assert [row["times_pytorch"] for row in rows] == [1.5, 0.375, 1.0, None, 1.5, 0.375, 1.0, 6.0]
    assert rows[-1]["what"] == "population of 16, conv, per run and step"
    assert rows[0]["of_ceiling"] == 0.5


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
@pytest.mark.parametrize("quick", [False, True])
def test_the_parts_are_settings_that_the_benchmarks_know(script, monkeypatch, tmp_path, platform, quick):
    device = script("bench_device")
    parts = device.parts_of(platform, tmp_path, tmp_path, quick)
    assert len({part.name for part in parts}) == len(parts)
    ran: list = []
    for name in ("bench_scores", "bench_train", "bench_sweep"):
        monkeypatch.setattr(script(name), "main", lambda config: ran.append(config) or 0)
    for part in parts:
        if part.writes_rows:
            with pytest.raises(SystemExit, match="0"):
                exec(part.command[-1], {})
            assert ran[-1].json == tmp_path / f"{part.name}.part.json"
        else:
            assert all(Path(path).exists() for path in part.command if "tests/" in path)
