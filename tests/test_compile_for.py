"""`scripts/compile_for.py` counts programs compiled without their device, and they keep their limits."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax import lax

SCRIPT = Path(__file__).parents[1] / "scripts" / "compile_for.py"


class Limit(NamedTuple):
    """What a program may need per call of score, or per training step of fit and many."""

    hbm_mb: float
    peak_mb: float
    collectives: int = 0


# TPU v5e, by the flags of compile_for.py, one limit per program. They are a little above what the programs reach with
# jax 0.10.2. Tighten a limit when a change of the library allows it.
LIMITS = {
    "score --batch 128": [Limit(hbm_mb=31, peak_mb=61)],
    "fit": [Limit(hbm_mb=2.8, peak_mb=166)],
    "many --runs 2": [Limit(hbm_mb=158, peak_mb=300)],
    "score fit many --network dense --runs 8 --chips 4": [
        Limit(hbm_mb=8.4, peak_mb=18),
        Limit(hbm_mb=0.25, peak_mb=68, collectives=1),
        Limit(hbm_mb=0.42, peak_mb=95),
    ],
}


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("libtpu"), reason="libtpu is not installed; pip install '.[aot-tpu]'")
@pytest.mark.parametrize("flags", LIMITS)
def test_programs_for_tpus_keep_their_limits(flags, tmp_path):
    command = [sys.executable, str(SCRIPT), *flags.split(), "--platform", "tpu", "--json", str(tmp_path / "rows.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    for row, limit in zip(rows, LIMITS[flags], strict=True):
        assert row["grouped_convolutions"] == 0, row["program"]
        assert row["collectives"] == limit.collectives, row["program"]
        assert row["hbm_mb"] <= limit.hbm_mb, row["program"]
        assert row["peak_mb"] <= limit.peak_mb, row["program"]


@pytest.fixture
def hlo(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("hlo")


@pytest.fixture
def compile_for(monkeypatch, hlo) -> Any:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("compile_for")


def counted(hlo: Any, function: Any, *arguments: Any) -> list[Any]:
    """The operations of a function, compiled for the CPU."""
    return hlo.operations(hlo.parse(jax.jit(function).lower(*arguments).compile().as_text()))


def test_a_matrix_product_has_two_flop_per_multiplication(hlo):
    operations = counted(hlo, jnp.dot, jnp.ones((48, 64)), jnp.ones((64, 80)))
    assert sum(each.flops for each in operations) == 2 * 48 * 64 * 80


@pytest.mark.parametrize(
    "window",
    [
        {"window_strides": (1, 1), "padding": "SAME"},
        {"window_strides": (2, 2), "padding": [(1, 1), (0, 2)]},
        {"window_strides": (1, 1), "padding": [(2, 2), (1, 3)], "lhs_dilation": (2, 2)},
        {"window_strides": (2, 1), "padding": "VALID", "rhs_dilation": (2, 3)},
    ],
)
def test_flop_of_a_convolution_leave_padding_out(hlo, window):
    images, kernel = jnp.ones((2, 3, 11, 9)), jnp.ones((5, 3, 4, 3))

    def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(images, kernel, **window)

    operations = counted(hlo, convolve, images, kernel)
    # With ones everywhere, each output is the number of its products.
    assert sum(each.flops for each in operations) == 2 * convolve(images, kernel).sum()


ELEMENTWISE = """
HloModule small

%fused (p.0: f32[8,128], p.1: f32[128]) -> f32[2,128] {
  %p.0 = f32[8,128]{1,0} parameter(0)
  %p.1 = f32[128]{0} parameter(1)
  %cut = f32[2,128]{1,0} slice(%p.0), slice={[0:2], [0:128]}
  %wide = f32[2,128]{1,0} broadcast(%p.1), dimensions={1}
  ROOT %sum = f32[2,128]{1,0} add(%cut, %wide)
}

ENTRY %main (a: f32[8,128], b: f32[128]) -> f32[2,128] {
  %a = f32[8,128]{1,0} parameter(0)
  %b = f32[128]{0:S(1)} parameter(1)
  ROOT %out = f32[2,128]{1,0} fusion(%a, %b), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"42"}
}
"""


def test_a_fusion_reads_only_what_its_result_needs(hlo):
    (fusion,) = hlo.operations(hlo.parse(ELEMENTWISE))
    rows, row = 4 * 2 * 128, 4 * 128
    assert fusion.bytes == rows + row + rows
    assert fusion.hbm_bytes == rows + rows  # b is in the memory of the core
    assert (fusion.kind, fusion.cycles, fusion.flops) == ("loop fusion", 42, 0)


PREFETCH = """
HloModule prefetch

ENTRY %main (a: f32[2,8,128]) -> f32[1,8,128] {
  %a = f32[2,8,128]{2,1,0} parameter(0)
  %start = ((f32[2,8,128]{2,1,0}), f32[1,8,128]{2,1,0:S(1)}, s32[]{:S(2)}) slice-start(%a), slice={[0:1]}
  ROOT %done = f32[1,8,128]{2,1,0:S(1)} slice-done(%start)
}
"""


def test_a_part_that_is_fetched_ahead_is_read(hlo):
    """A TPU copies a part of an array to the memory of its core beside other work."""
    (fetch,) = hlo.operations(hlo.parse(PREFETCH))
    part = 4 * 8 * 128
    assert (fetch.hbm_bytes, fetch.bytes) == (part, 2 * part)


LOOP = """
HloModule loop

%body (s: (s32[], f32[6,256])) -> (s32[], f32[6,256]) {
  %s = (s32[], f32[6,256]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = f32[6,256]{1,0} get-tuple-element(%s), index=1
  %row = f32[1,256]{1,0} dynamic-slice(%x, %i, %i), dynamic_slice_sizes={1,256}
  %new = f32[1,256]{1,0} all-reduce(%row), to_apply=%add
  %y = f32[6,256]{1,0} dynamic-update-slice(%x, %new, %i, %i)
  ROOT %t = (s32[], f32[6,256]{1,0}) tuple(%i, %y)
}

%condition (c: (s32[], f32[6,256])) -> pred[] {
  %c = (s32[], f32[6,256]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%c), index=0
  %end = s32[] constant(6)
  ROOT %less = pred[] compare(%n, %end), direction=LT
}

ENTRY %main (a: (s32[], f32[6,256])) -> (s32[], f32[6,256]) {
  %a = (s32[], f32[6,256]{1,0}) parameter(0)
  ROOT %while = (s32[], f32[6,256]{1,0}) while(%a), condition=%condition, body=%body
}
"""


def test_a_loop_runs_as_often_as_its_condition_says(hlo):
    operations = {each.kind: each for each in hlo.operations(hlo.parse(LOOP))}
    assert {kind: each.times for kind, each in operations.items()} == {
        "dynamic-slice": 6,
        "all-reduce": 6,
        "dynamic-update-slice": 6,
    }
    assert [kind for kind, each in operations.items() if each.is_collective] == ["all-reduce"]
    # An update in place reads and writes the row, not the array; and two indices are read.
    assert operations["dynamic-update-slice"].bytes == 2 * 4 * 256 + 2 * 4
    assert operations["dynamic-slice"].bytes == 2 * 4 * 256 + 2 * 4


def test_loops_of_jax_are_counted(hlo):
    def function(x: jax.Array) -> jax.Array:
        return lax.fori_loop(0, 7, lambda _, x: x @ x, x)

    flops = sum(each.times * each.flops for each in counted(hlo, function, jnp.ones((32, 32))))
    assert flops == 7 * 2 * 32**3


def test_branches_are_rare(hlo):
    def function(yes: jax.Array, x: jax.Array) -> jax.Array:
        return lax.cond(yes, lambda: x @ x, lambda: x.T)

    operations = counted(hlo, function, jnp.array(True), jnp.ones((32, 32)))
    assert sum(each.flops for each in operations if each.is_rare) == 2 * 32**3
    assert not any(each.flops for each in operations if not each.is_rare)


def test_grouped_convolutions_are_found(hlo):
    line = "  ROOT %c = f32[1,8,8,32] convolution(%a, %k), window={size=1x1}, dim_labels=b01f_01io->b01f"
    head = "ENTRY %main () -> f32[1,8,8,32] {\n"
    for groups, expected in {"": 0, ", feature_group_count=1": 0, ", feature_group_count=16": 1}.items():
        assert hlo.grouped_convolutions(hlo.parse(f"{head}{line}{groups}\n}}\n")) == expected
    assert hlo.grouped_convolutions(hlo.parse(f"{head}{line}, batch_group_count=2\n}}\n")) == 1


THUNKS = """\
000: kCommandBuffer [source | next=003 (1)]
    001: kCopy         [source | sink] kCopy
    002: kCustomKernel [source | sink] loop_add_fusion grid: [1, 1, 1]
003: kWhile         [prev=000 (1) | next=000 (1)]
condition:
    004: kCustomKernel [source | sink] loop_compare_fusion grid: [1, 1, 1]
  body:
    005: kConvolution  [source | next=006 (1)] kConvolution
    000: kCommandBuffer [source | next=009 (1)]
        006: kCustomKernel [source | sink] loop_add_fusion grid: [1, 1, 1]
        007: kCustomKernel [source | sink] loop_add_fusion grid: [1, 1, 1]
    009: kConvolution  [prev=006 (1) | sink] kConvolution
010: kCopy [prev=003 (1) | sink] kCopy
"""


def test_launches_are_those_of_a_turn_of_the_loop(hlo):
    assert hlo.host_launches(THUNKS) == (3, True)


def test_a_loop_in_a_command_buffer_is_one_launch(hlo):
    lines = THUNKS.splitlines()
    inside = "\n".join([lines[0], *("    " + line if line != "condition:" else line for line in lines[3:])])
    assert hlo.host_launches(inside) == (1, False)


def test_a_file_of_hlo_is_counted_without_a_compiler(compile_for, tmp_path, capsys):
    file = tmp_path / "small.hlo"
    file.write_text(ELEMENTWISE)
    assert compile_for.main(compile_for.Config(("score",), read=file, top=3, json=tmp_path / "rows.json")) == 0
    printed = capsys.readouterr().out
    assert "| score conv, batch 1024 |          1 |" in printed
    assert "An estimate is no measurement." in printed
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert row["estimate_ms"] == pytest.approx(1e3 * 42 / 1.5e9)


@pytest.mark.parametrize("flag", ["runs", "chips", "batch"])
def test_numbers_below_one_are_refused_in_one_line(compile_for, capsys, flag):
    assert compile_for.main(compile_for.Config(("many",), **{flag: (0,)})) == 2
    assert capsys.readouterr().err == f"compile_for: --{flag} 0: must be at least 1\n"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"platform": "tpu"}, "--platform tpu: libtpu is not installed; run pip install '.[aot]' in the checkout"),
        ({"platform": "cuda"}, "--platform cuda: JAX's CUDA plugin is not installed; run pip install"),
        ({"chips": (3,)}, "--chips 3: must divide the 1024 of score conv, batch 1024, 3 chips"),
        ({"topology": "v1"}, "--topology v1: must begin with v4, v5e, v5p, v6e"),
        ({"maps": ("nonsense",)}, "--maps nonsense: choose from rec_error,"),
        ({"batch": (1, 2), "hlo": Path("x")}, "--hlo, --read: take one program, not 2"),
        ({"read": SCRIPT}, "compile_for.py: has no ENTRY computation"),
    ],
)
def test_flags_and_missing_packages_are_refused_in_one_line(compile_for, monkeypatch, capsys, settings, expected):
    monkeypatch.setattr(compile_for.importlib.util, "find_spec", lambda name: None)
    assert compile_for.main(compile_for.Config(("score",), **settings)) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert message.count("\n") == 1


def test_every_program_is_traced_with_shapes_alone(compile_for):
    config = compile_for.Config(("score", "fit", "many"), network=("dense",), steps=2)
    programs = compile_for.programs_of(config)
    assert [program.name for program in programs] == [
        "score dense, batch 1024",
        "fit dense, batch 128",
        "many dense, batch 128, 16 runs, 8 side by side",
    ]
    for program in programs:
        compile_for.lowered(program, config, jax.devices())
