"""Compile programs of jaxvae for a TPU or an NVIDIA GPU without the device, and count what the compiler made.

    python scripts/compile_for.py score --platform tpu --batch 64 1024
    python scripts/compile_for.py fit --platform cuda --network conv dense --top 10
    python scripts/compile_for.py many --platform tpu --network dense --runs 64 --chips 1 4 --json rows.json

`score` is `score_batch` with all maps, `fit` trains one run, `many` trains a population. The table has one row per
program: per call for `score`, per training step for `fit` and `many`, and per device.

This needs XLA's compilers but neither a device nor a driver: `pip install '.[aot]'` in the checkout.

An estimate is no measurement. It adds up the operations. On a TPU an operation takes XLA's own number of cycles, or the
time of its bytes in HBM if that is longer. On a GPU it takes 1.8 us, and the time of its bytes or its products,
whichever is longer; the rates fit measurements on an H200. On a real GPU XLA also times kernels and may choose others.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import hlo
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxvae
from jaxvae import sharding
from jaxvae.ops.forms import PLATFORMS
from jaxvae.population.fit_many import _fit_many, side_by_side_on
from jaxvae.report import tables
from jaxvae.scores import MAPS

BATCH = {"conv": 64, "dense": 128}  # of training
# The table of scripts/README.md: batches, and runs of populations.
SCORED = {"tpu": (64, 128, 1024), "cuda": (1, 64, 1024, 16384)}
POPULATIONS = {"conv": 16, "dense": 64}
IMAGES = 2048  # of the training set
PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
# Otherwise libtpu asks the network for its host, prints warnings, and refuses to be loaded by two processes.
LIBTPU_SETTINGS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
INSTALL = "run pip install '.[aot]' in the checkout of jaxvae"


class Tpu(NamedTuple):
    """Published rates of a chip, of a core for v4."""

    clock: float  # Hz
    bandwidth: float  # bytes/s of HBM


class Gpu(NamedTuple):
    """What XLA needs to know of a card."""

    name: str
    cores: int
    bandwidth: int  # bytes/s, as published
    memory: int  # bytes


TPUS = {"v4": Tpu(1.05e9, 614e9), "v5e": Tpu(1.5e9, 819e9), "v5p": Tpu(1.75e9, 2765e9), "v6e": Tpu(1.75e9, 1640e9)}
GPUS = {
    "h200": Gpu("NVIDIA H200", 132, 4_800_000_000_000, 151_397_597_184),
    "h100": Gpu("NVIDIA H100 80GB HBM3", 132, 3_352_320_000_000, 84_942_979_072),
}
# From measurements on an H200: the least time of a kernel, the part of the published bandwidth that fusions reach, and
# the FLOP/s of TF32 convolutions.
LAUNCH_S, BANDWIDTH_SHARE, PRODUCT_RATE = 1.8e-6, 3.3 / 4.8, 2e14


@dataclass(frozen=True)
class Config:
    """Programs, device and output. Several values give several rows."""

    programs: tyro.conf.Positional[tuple[Literal["score", "fit", "many", "table"], ...]]
    """programs to compile; table: those of scripts/README.md"""
    platform: Literal["tpu", "cuda"] = "tpu"
    """whose compiler to use"""
    topology: str = "v5e:2x2"
    """TPUs: v5e:2x2, v6e:2x2, v4:2x2x1 or v5p:2x2x1"""
    gpu: Literal["h200", "h100"] = "h200"
    """card, with --platform cuda"""
    chips: tuple[int, ...] = (1,)
    """devices that share the work"""
    network: tuple[Literal["conv", "dense"], ...] = ("conv",)
    """conv: the brain network, 64x64x1; dense: the FashionMNIST network, 28x28x1"""
    batch: tuple[int, ...] = ()
    """images per batch; default: 1024 for score, 64 for training conv and 128 for dense"""
    runs: tuple[int, ...] = (16,)
    """runs of a population"""
    side_by_side: int | None = None
    """runs that each device trains at once; default: what the library chooses for the platform"""
    steps: int = 100
    """training steps per call"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """of the features of conv"""
    maps: tuple[str, ...] = ("rec_error", "elbo_grad", "kl_grad", "rec_grad", "combi")
    """maps to score"""
    buffers: tuple[str, ...] = ("CONVOLUTION",)
    """what the second count of launches puts into command buffers beside XLA's default; WHILE is another"""
    top: int = 0
    """show this many of the largest operations"""
    by: Literal["bytes", "hbm", "estimate"] = "estimate"
    """what makes an operation large"""
    json: Path | None = None
    """file for the rows"""
    hlo: Path | None = None
    """file for the optimised HLO of the only program"""
    read: Path | None = None
    """count a file of optimised HLO instead of compiling the only program"""


@dataclass(frozen=True)
class Program:
    """One row."""

    kind: str
    network: str
    batch: int
    chips: int
    runs: int = 1
    side_by_side: int = 1
    steps: int = 1

    @property
    def name(self) -> str:
        parts = [f"{self.kind} {self.network}, batch {self.batch}"]
        if self.kind == "many":
            parts += [f"{self.runs} runs"]
        if self.kind == "many" and self.side_by_side * self.chips < self.runs:
            parts += [f"{self.side_by_side} side by side"]
        return ", ".join(parts + [f"{self.chips} chips"] * (self.chips > 1))


def programs_of(config: Config) -> list[Program]:
    """Every combination of the flags that a program takes."""
    rows = []
    for kind, network, chips in itertools.product(config.programs, config.network, config.chips):
        for batch in config.batch or (1024 if kind == "score" else BATCH[network],):
            row = Program(kind, network, batch, chips, steps=1 if kind == "score" else config.steps)
            rows += [_population(row, config, runs) for runs in config.runs] if kind == "many" else [row]
    return _table(config) if "table" in config.programs else rows


def _population(program: Program, config: Config, runs: int) -> Program:
    """The program with so many runs, and as many side by side as the library trains on the platform."""
    model, per_device = model_of(program.network, config), -(-runs // program.chips)
    chosen = side_by_side_on(PLATFORMS[config.platform], model, per_device)
    return replace(program, runs=runs, side_by_side=config.side_by_side or chosen)


def _table(config: Config) -> list[Program]:
    """The programs of the table in README."""
    populations = [
        _population(Program("many", network, BATCH[network], 1), config, runs) for network, runs in POPULATIONS.items()
    ]
    trained = [*(Program("fit", network, batch, 1) for network, batch in BATCH.items()), *populations]
    scored = [Program("score", "conv", batch, 1) for batch in SCORED[config.platform]]
    return scored + [replace(program, steps=config.steps) for program in trained]


def refuse_wrong_numbers(config: Config) -> None:
    """Raise InputError for numbers below 1, of which no program can be made."""
    numbers = {name: getattr(config, name) for name in ("chips", "batch", "runs")}
    numbers |= {"steps": (config.steps,), "side-by-side": (1 if config.side_by_side is None else config.side_by_side,)}
    for name, values in numbers.items():
        if min(values, default=1) < 1:
            raise jaxvae.InputError(f"--{name} {min(values)}: must be at least 1")


def complaint(config: Config, programs: list[Program]) -> str | None:
    """What is wrong with the flags or missing from the installation, in one line."""
    if not programs:
        return "PROGRAMS, --network, --chips, --runs: give at least one value of each"
    for program in programs:
        shared = program.runs if program.kind == "many" else program.batch
        if shared % program.chips:
            return f"--chips {program.chips}: must divide the {shared} of {program.name}"
    if unknown := set(config.maps) - set(MAPS):
        return f"--maps {' '.join(sorted(unknown))}: choose from {', '.join(MAPS)}"
    if config.platform == "tpu" and config.topology.split(":")[0] not in TPUS:
        return f"--topology {config.topology}: must begin with {', '.join(TPUS)}, as in v5e:2x2"
    if (config.hlo or config.read) and len(programs) > 1:
        return f"--hlo, --read: take one program, not {len(programs)}"
    if config.read:
        is_hlo = "\nENTRY " in config.read.read_text(errors="replace")
        return None if is_hlo else f"--read {config.read}: has no ENTRY computation; give the text of optimised HLO"
    if config.platform == "tpu" and not importlib.util.find_spec("libtpu"):
        return f"--platform tpu: libtpu is not installed; {INSTALL}"
    if config.platform == "cuda" and not any(importlib.util.find_spec(name) for name in PLUGINS):
        return f"--platform cuda: JAX's CUDA plugin is not installed; {INSTALL}"
    if config.platform == "cuda" and not _has_ptxas():  # Without it the compiler crashes.
        return f"--platform cuda: ptxas is not installed; {INSTALL}"
    return None


def _has_ptxas() -> bool:
    package = importlib.util.find_spec("nvidia")
    folders = list(package.submodule_search_locations or ()) if package else []
    return bool(shutil.which("ptxas")) or any(any(Path(folder).glob("*/bin/ptxas")) for folder in folders)


def devices_of(config: Config) -> Sequence[Any]:
    """Devices to compile for; nothing can be run on them."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # XLA describes only what it compiles.
    jax.config.update("jax_disable_most_optimizations", False)
    if config.platform == "tpu":
        for name, value in LIBTPU_SETTINGS.items():
            os.environ.setdefault(name, value)
        wanted = {"topology_name": config.topology}
    else:
        wanted = {"target_config": _card(GPUS[config.gpu]), "topology": f"1x1x{max(config.chips)}"}
    try:
        devices = topologies.get_topology_desc(platform=config.platform, **wanted).devices
    except RuntimeError as error:  # such as a topology that libtpu does not know
        raise jaxvae.InputError(f"--platform {config.platform}: {str(error).splitlines()[0]}") from error
    if max(config.chips) > len(devices):
        raise jaxvae.InputError(f"--chips {max(config.chips)}: {config.topology} has {len(devices)}")
    return devices


def _card(gpu: Gpu) -> str:
    """The card as XLA's GpuTargetConfigProto. Without the driver's version XLA makes fewer command buffers."""
    return f"""gpu_device_info {{
        cuda_compute_capability {{ major: 9 feature_extension: ACCELERATED_FEATURES }}
        core_count: {gpu.cores} fpus_per_core: 128 clock_rate_ghz: 1.98
        memory_bandwidth: {gpu.bandwidth} device_memory_size: {gpu.memory} l2_cache_size: 52428800
        threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
        shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
        registers_per_block_limit: 65536 registers_per_core_limit: 65536
        block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
        thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
        driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0"
        dnn_version: "9.10.0"
    }}
    platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} device_description_str: "{gpu.name}" """


def model_of(network: str, config: Config) -> Any:
    return jaxvae.DenseVAE((28, 28, 1)) if network == "dense" else jaxvae.ConvVAE((64, 64, 1), dtype=config.dtype)


def lowered(program: Program, config: Config, devices: Sequence[Any]) -> jax.stages.Lowered:
    """The program as JAX hands it to XLA, with shapes instead of arrays."""
    model = model_of(program.network, config)
    axis = sharding.RUN if program.kind == "many" else sharding.DATA
    mesh = Mesh(np.array(devices[: program.chips]), (axis,), axis_types=(AxisType.Auto,))
    whole, split = NamedSharding(mesh, PartitionSpec()), sharding.over(mesh)
    argument = mesh if program.chips > 1 else None

    def placed(tree: Any, place: NamedSharding, *leading: int) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*leading, *x.shape), x.dtype, sharding=place), tree)

    training = jaxvae.TrainConfig(batch_size=program.batch)
    state = jax.eval_shape(lambda: jaxvae.init(model, training, jaxvae.Hyperparams(), jax.random.key(0)))
    number = placed(jax.ShapeDtypeStruct((), jnp.float32), whole)
    image = jax.ShapeDtypeStruct(model.image_shape, jnp.float32)
    if program.kind == "score":
        images = placed(image, split, program.batch)
        params = placed(state.params, whole)
        return jaxvae.score_batch.lower(model, params, images, log_scale=number, maps=config.maps, mesh=argument)
    images = placed(image, whole, IMAGES)
    if program.kind == "fit":
        hparams, state = jaxvae.Hyperparams(number, number, number), placed(state, whole)
        return jaxvae.fit.lower(model, training, hparams, state, images, steps=program.steps, mesh=argument)
    population = placed(jax.eval_shape(lambda: jaxvae.grid(seed=range(program.runs))), split)
    start = placed((state.params, state.opt_state, state.key), split, program.runs)
    step, settings = placed(state.step, whole), {"objective": jaxvae.elbo_terms, "augment": None, "mesh": argument}
    settings |= {"steps": program.steps, "side_by_side": program.side_by_side}
    return _fit_many.lower(model, training, population, start, images, step, **settings)


def compiled(program: Program, config: Config, devices: Sequence[Any]) -> tuple[str, dict[str, float | None]]:
    """The optimised HLO, and what only the compiler knows: peak memory, and on CUDA the launches."""
    work, facts = lowered(program, config, devices), {}
    if config.platform == "tpu":
        executable = work.compile()
    else:
        with tempfile.TemporaryDirectory() as default, tempfile.TemporaryDirectory() as buffered:
            executable = work.compile(compiler_options={"xla_dump_to": default})
            kinds = re.findall(r"xla_gpu_enable_command_buffer: (\w+)", _dumped(default, "config.pbtxt"))
            more = ",".join(dict.fromkeys([*kinds, *config.buffers]))
            work.compile(compiler_options={"xla_dump_to": buffered, "xla_gpu_enable_command_buffer": more})
            facts = {"launches": _launches(program, default), "buffered_launches": _launches(program, buffered)}
    memory: Any = executable.memory_analysis()
    return executable.as_text() or "", {"peak_mb": memory.peak_memory_in_bytes / 1e6, **facts}


def _launches(program: Program, folder: str) -> float | None:
    """What the host starts per call or step; None if this version of XLA does not tell."""
    actions = _dumped(folder, "thunk_sequence_after_thunk_passes.txt")
    count, is_in_loop = hlo.host_launches(actions)
    turns = -(-program.runs // (program.side_by_side * program.chips))  # of runs that are trained in turn
    return count * (turns if is_in_loop else 1 / program.steps) if actions else None


def _dumped(folder: str, ending: str) -> str:
    """The largest of the files that XLA wrote under a name."""
    return max((file.read_text() for file in Path(folder).glob(f"*.{ending}")), key=len, default="")


def seconds(operation: hlo.Operation, config: Config) -> float:
    """The estimate for an operation, run once."""
    if config.platform == "tpu":
        tpu = TPUS[config.topology.split(":")[0]]
        return max(operation.cycles / tpu.clock, operation.hbm_bytes / tpu.bandwidth)
    rate = BANDWIDTH_SHARE * GPUS[config.gpu].bandwidth
    return LAUNCH_S + max(operation.bytes / rate, operation.flops / PRODUCT_RATE)


def row_of(program: Program, config: Config, text: str) -> tuple[dict[str, Any], list[hlo.Operation]]:
    """The counts of a program, and its operations."""
    module = hlo.parse(text)
    found = hlo.operations(module)
    usual = [each for each in found if not each.is_rare]
    kinds: Counter[str] = Counter()
    for each in usual:
        kinds[each.kind] += each.times
    row = {
        "program": program.name,
        **asdict(program),
        "kernels": sum(kinds.values()) / program.steps,
        "rare_kernels": len(found) - len(usual),
        "hbm_mb": sum(each.hbm_bytes * each.times for each in usual) / program.steps / 1e6,
        "all_mb": sum(each.bytes * each.times for each in usual) / program.steps / 1e6,
        "gflop": sum(each.flops * each.times for each in usual) / program.steps / 1e9,
        "collectives": sum(each.is_collective * each.times for each in usual) / program.steps,
        "grouped_convolutions": hlo.grouped_convolutions(module),
        "estimate_ms": 1e3 * sum(seconds(each, config) * each.times for each in usual) / program.steps,
        "kinds": {kind: count / program.steps for kind, count in kinds.most_common()},
    }
    return row, usual


def largest(operations: list[hlo.Operation], program: Program, config: Config) -> str:
    """The largest operations as a table, per call or training step."""

    def size(operation: hlo.Operation) -> float:
        return {"bytes": operation.bytes, "hbm": operation.hbm_bytes, "estimate": seconds(operation, config)}[config.by]

    total = sum(size(each) * each.times for each in operations) or 1
    rows = []
    for each in sorted(operations, key=lambda each: -size(each) * each.times)[: config.top]:
        times = each.times / program.steps
        rows.append(
            {
                "%": 100 * size(each) * each.times / total,
                "us": 1e6 * seconds(each, config) * times,
                "HBM MB": each.hbm_bytes * times / 1e6,
                "MB": each.bytes * times / 1e6,
                "GFLOP": each.flops * times / 1e9,
                "times": times,
                "kind": each.kind,
                "name": each.name,
                "result": each.result,
                "inputs": each.inputs,
                "source": each.source[-80:],
            }
        )
    return tables.markdown([{key: _short(value) for key, value in row.items()} for row in rows], list(rows[0]), best={})


def _short(value: Any) -> Any:
    """Numbers of ten and more without decimals."""
    return round(value) if isinstance(value, float) and (value.is_integer() or value >= 10) else value


def context_of(config: Config) -> dict[str, str]:
    """The device, and the versions of what decides the counts."""
    compilers = ("libtpu",) if config.platform == "tpu" else PLUGINS
    packages = ["jax", "flax", "optax", *(name for name in compilers if importlib.util.find_spec(name))]
    device = config.topology if config.platform == "tpu" else GPUS[config.gpu].name
    return {"compiled_for": device, "dtype": config.dtype, **{name: version(name) for name in packages}}


def main(config: Config) -> int:
    rows = []
    try:
        refuse_wrong_numbers(config)
        programs = programs_of(config)
        if wrong := complaint(config, programs):
            raise jaxvae.InputError(wrong)
        devices = () if config.read else devices_of(config)
        for program in programs:
            if config.read:
                text, facts = config.read.read_text(), {}
            else:
                print(f"compiling {program.name}", file=sys.stderr)
                text, facts = compiled(program, config, devices)
            row, found = row_of(program, config, text)
            rows.append(row | facts)
            if config.hlo:
                config.hlo.write_text(text)
            if config.top:
                print(f"{program.name}, the largest operations by {config.by}:\n\n{largest(found, program, config)}\n")
        show(rows, config)
    except (jaxvae.InputError, OSError) as error:
        print(f"compile_for: {error}", file=sys.stderr)
        return 2
    return 0


def show(rows: list[dict[str, Any]], config: Config) -> None:
    """Print the table, and write the rows to a file if there is one."""
    heads = {
        "program": "program",
        "kernels": "operations" if config.platform == "tpu" else "kernels",
        "hbm_mb": "HBM MB",
        "gflop": "GFLOP",
        "peak_mb": "peak MB",
        "launches": "host launches",
        "buffered_launches": f"with +{',+'.join(config.buffers)}",
        "collectives": "collectives",
        "grouped_convolutions": "grouped convolutions",
        "estimate_ms": "estimate, ms",
    }
    heads = {key: head for key, head in heads.items() if key in rows[0]}
    context = context_of(config)
    shown = [{key: row[key] if key == "estimate_ms" else _short(row[key]) for key in heads} for row in rows]
    print(tables.markdown(shown, heads, best={}))
    print(f"\n{json.dumps(context)}")
    print("Per call of score, per training step of fit and many. An estimate is no measurement.")
    if config.json:
        tables.write_json(config.json, rows, context)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
