"""The environment in which commands and experiments start JAX, with invented devices."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jaxvae.cli import accelerators

CACHE, FLAGS = "JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS"


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Install the plugin of a platform, and one device of it. JAX is not imported."""
    monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.setattr(accelerators, "DEVICES", {})

    def install(platform: str, *, plugin: str = "json") -> None:
        (tmp_path / f"{platform}0").touch()
        files = (str(tmp_path / f"{platform}[0-9]"),)
        monkeypatch.setitem(accelerators.DEVICES, platform, (("no_such_parent.plugin", plugin), files))

    return install


def set_up(tmp_path, **environment: str) -> dict[str, str]:
    environment = {"XDG_CACHE_HOME": str(tmp_path / "caches"), **environment}
    accelerators.set_up(environment)
    return environment


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_an_accelerator_gets_a_cache_and_no_flags(tmp_path, install, platform):
    install(platform)
    environment = set_up(tmp_path)
    assert environment[CACHE] == str(tmp_path / "caches" / "jaxvae" / "xla")
    assert (tmp_path / "caches" / "jaxvae" / "xla").is_dir()
    assert FLAGS not in environment


@pytest.mark.parametrize("value", ["", "--xla_gpu_deterministic_ops=true"])
def test_flags_and_cache_of_the_user_stay(tmp_path, install, value):
    """An empty folder switches the cache off."""
    install("cuda")
    environment = set_up(tmp_path, **{FLAGS: value, CACHE: value})
    assert (environment[FLAGS], environment[CACHE]) == (value, value)
    assert not (tmp_path / "caches").exists()


@pytest.mark.parametrize(
    "unused",
    [
        {"JAX_PLATFORMS": "cpu"},
        {"JAX_PLATFORMS": "cpu,cuda"},
        {"JAX_PLATFORM_NAME": "cpu"},
        {"CUDA_VISIBLE_DEVICES": ""},
    ],
)
def test_an_unused_gpu_changes_nothing(tmp_path, install, unused):
    install("cuda")
    assert not {FLAGS, CACHE} & set_up(tmp_path, **unused).keys()


def test_plugin_and_device_must_both_be_there(tmp_path, install):
    install("cuda", plugin="no_such_plugin")
    install("tpu")
    (tmp_path / "tpu0").unlink()
    assert not {FLAGS, CACHE} & set_up(tmp_path).keys()


@pytest.mark.parametrize("platforms", ["cuda", "gpu", "tpu,cuda", ""])
def test_the_platforms_of_the_user_select_the_gpu(tmp_path, install, platforms):
    install("cuda")
    assert CACHE in set_up(tmp_path, JAX_PLATFORMS=platforms)


def test_nothing_changes_after_jax_was_imported(tmp_path, monkeypatch, install):
    install("cuda")
    monkeypatch.setitem(sys.modules, "jax", sys)
    assert not {FLAGS, CACHE} & set_up(tmp_path).keys()


def test_the_oldest_programs_leave_a_large_cache(tmp_path, monkeypatch, install):
    install("tpu")
    monkeypatch.setattr(accelerators, "CACHE_BYTES", 25)
    folder = accelerators.cache_folder({"XDG_CACHE_HOME": str(tmp_path / "caches")})
    folder.mkdir(parents=True)
    for age, name in enumerate(("new", "old", "oldest")):
        (folder / f"{name}-cache").write_bytes(bytes(10))
        os.utime(folder / f"{name}-cache", (1e9 - age, 1e9 - age))
    set_up(tmp_path)
    assert sorted(file.name for file in folder.iterdir()) == ["new-cache", "old-cache"]


def test_a_folder_that_cannot_be_made_leaves_the_cache_off(tmp_path, install):
    install("cuda")
    (tmp_path / "caches").touch()
    assert not {FLAGS, CACHE} & set_up(tmp_path).keys()


def test_a_relative_folder_of_caches_is_ignored(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert accelerators.cache_folder({"XDG_CACHE_HOME": "caches"}) == tmp_path / ".cache" / "jaxvae" / "xla"


@pytest.mark.parametrize("entry", ["from jaxvae.cli import _run; _run(['report', 'none'])", "import experiments"])
def test_commands_and_experiments_set_jax_up(tmp_path, entry):
    """JAX reads the folder when it is imported."""
    (tmp_path / "gpu0").touch()
    code = f"""
from jaxvae.cli import accelerators
accelerators.DEVICES = {{"cuda": (("jax",), ({str(tmp_path / "gpu0")!r},))}}
try:
    {entry}
except Exception as error:
    print(error)
import jax
assert jax.devices()[0].platform == "cpu"
print(jax.config.jax_compilation_cache_dir)
"""
    kept = {name: value for name, value in os.environ.items() if name not in (CACHE, FLAGS, "JAX_PLATFORMS")}
    environment = {**kept, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(tmp_path / "jaxvae" / "xla")
