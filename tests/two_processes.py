"""Run twice by test_sharding.py: one training spread over two processes.

`two_processes.py PORT PROCESS FOLDER`

Each has two devices. Both save one checkpoint together, which a single process can read.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

import jaxvae
from jaxvae import sharding
from jaxvae.runs import checkpoint

port, process, folder = sys.argv[1:]
number, _ = sharding.join(f"127.0.0.1:{port}/{process}/2")
model, config, hparams = jaxvae.DenseVAE((8, 8, 1), 4, 16), jaxvae.TrainConfig(batch_size=8), jaxvae.Hyperparams()
images = np.random.default_rng(0).random((24, 8, 8, 1), np.float32)
mesh = sharding.data_mesh()
state = sharding.replicate(jaxvae.init(model, config, hparams, jax.random.key(0)), mesh)
state, metrics = jaxvae.fit(model, config, hparams, state, sharding.replicate(images, mesh), steps=5, mesh=mesh)
checkpoint.save(Path(folder) / "checkpoints", state)
(Path(folder) / f"losses_{number}.json").write_text(json.dumps(np.asarray(metrics.loss).tolist()))
sharding.wait_for_all("end")
