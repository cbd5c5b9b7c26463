"""Several devices and processes give the results of one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxvae
from folders import write_benchmark
from jaxvae import sharding
from jaxvae.cli import main
from jaxvae.runs import checkpoint

AXES = ["--seed", "0", "1", "2", "--beta", "0.5", "1", "--runs-per-program", "2"]
FLAGS = ["--features", "4", "8", "--latent-size", "4", "--batch-size", "4", "--epochs", "1", *AXES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmark(tmp_path_factory.mktemp("data") / "blobs", train=12, test=4, size=32)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """The processes that a test starts; they are killed at its end."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def start(sweep: Path, folder: Path, *, port: int, process: int, flags: list[str]) -> subprocess.Popen[str]:
    """One of two processes, with two devices."""
    command = [sys.executable, "-m", "jaxvae", "sweep", str(sweep), "--data", str(folder), *flags]
    command += ["--distributed", f"127.0.0.1:{port}/{process}/2"]
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def read(sweep: Path) -> list[dict]:
    return [json.loads(line) for line in (sweep / "table.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_sweep_on_two_processes_equals_a_sweep_on_one(tmp_path, folder, started):
    port = free_port()
    started += [start(tmp_path / "two", folder, port=port, process=i, flags=FLAGS) for i in (0, 1)]
    (first, complaint), (second, _) = (process.communicate(timeout=240) for process in started)
    assert [process.returncode for process in started] == [0, 0], complaint[-2000:]
    assert "6 runs in 3 programs" in first
    # Only the first process reports the sweep. Gloo prints its own, broken lines.
    assert "runs" not in second
    assert main(["sweep", str(tmp_path / "one"), "--data", str(folder), *FLAGS]) == 0
    for got, expected in zip(read(tmp_path / "two"), read(tmp_path / "one"), strict=True):
        assert got.keys() == expected.keys()
        assert got["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert [got[name] for name in ("seed", "beta")] == [expected[name] for name in ("seed", "beta")]


@pytest.mark.slow
def test_four_devices_equal_one():
    """Run in another process, because the number of devices is set before JAX starts."""
    script = Path(__file__).with_name("four_devices.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [
        "4 devices, 6 runs: equal",
        "training: equal",
        "restored: equal",
        "scores: equal",
    ]


@pytest.mark.slow
def test_training_on_two_processes_equals_training_on_one(tmp_path, started):
    script, port = Path(__file__).with_name("two_processes.py"), free_port()
    commands = [[sys.executable, str(script), str(port), str(process), str(tmp_path)] for process in (0, 1)]
    started += [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for command in commands
    ]
    complaints = [process.communicate(timeout=240)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], complaints[0][-2000:]
    losses = [json.loads((tmp_path / f"losses_{process}.json").read_text()) for process in (0, 1)]
    # The same run in this process, on one device.
    model, config, hparams = jaxvae.DenseVAE((8, 8, 1), 4, 16), jaxvae.TrainConfig(batch_size=8), jaxvae.Hyperparams()
    images = np.random.default_rng(0).random((24, 8, 8, 1), np.float32)
    state = jaxvae.init(model, config, hparams, jax.random.key(0))
    state, metrics = jaxvae.fit(model, config, hparams, state, images, steps=5)
    for found in losses:
        np.testing.assert_allclose(found, metrics.loss, rtol=1e-5)
    restored = checkpoint.restore(tmp_path / "checkpoints", jaxvae.init(model, config, hparams, jax.random.key(1)))
    assert int(restored.step) == 5
    for got, expected in zip(jax.tree.leaves(restored.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert (jax.random.key_data(restored.key) == jax.random.key_data(state.key)).all()


@pytest.mark.slow
def test_a_lost_process_ends_the_job_within_40_seconds(tmp_path, folder, started):
    port, flags = free_port(), [*FLAGS, "--epochs", "100000"]
    started += [start(tmp_path / "sweep", folder, port=port, process=i, flags=flags) for i in (0, 1)]
    deadline = time.monotonic() + 120
    while not (tmp_path / "sweep" / "plan.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(5)
    started[1].send_signal(signal.SIGKILL)
    lost = time.monotonic()
    _, complaint = started[0].communicate(timeout=120)
    assert started[0].returncode != 0
    assert time.monotonic() - lost < 40
    assert complaint.strip()


@pytest.mark.parametrize("where", ["here", "host:1/2/2", "host/0/1", "host:1/-1/2"])
def test_a_wrong_address_is_refused(where):
    with pytest.raises(jaxvae.InputError, match=r"where=.*: must be off, auto or HOST:PORT/I/N"):
        sharding.join(where)


def test_auto_without_a_cluster_is_refused():
    with pytest.raises(jaxvae.InputError, match="where='auto': the processes could not connect"):
        sharding.join("auto")


def test_join_off_gives_a_single_process():
    assert sharding.join("off") == (0, 1)
    sharding.wait_for_all("nothing")
    assert sharding.run_mesh(1).shape == {"run": 1}
