"""How JAX starts on an accelerator: with a folder of compiled programs.

The commands and the experiments call `set_up` before they import JAX. The library never does, because the environment
belongs to the program that uses it.
"""

import contextlib
import os
import sys
from collections.abc import MutableMapping
from glob import glob
from importlib.util import find_spec
from pathlib import Path

# JAX finds a device by its plugin and by one of these files. On a CPU it does not know the flags of all platforms.
DEVICES = {
    "cuda": (("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12"), ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")),
    "tpu": (("libtpu",), ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")),
}
# JAX's own limit needs filelock, and JAX 0.10 keeps nothing more once a process was killed while it wrote a program.
CACHE_BYTES = 2 << 30


def set_up(environment: MutableMapping[str, str] = os.environ) -> None:
    """Choose the compilation cache, where the user has not. Once JAX is imported, it does nothing.

    On an accelerator, compiled programs are kept in `cache_folder`, the newest 2 GiB of them. CPUs keep none: there,
    some machines reject programs of their own kind.
    """
    if "jax" in sys.modules:  # It has read its variables, and other programs would inherit them.
        return
    if not _uses_accelerator(environment) or "JAX_COMPILATION_CACHE_DIR" in environment:
        return
    # If the folder could not be written, JAX would warn about each program.
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: the user has no home.
        folder = cache_folder(environment)
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
            # JAX leaves out what compiles within a second, and a command has many such programs.
            environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
            _delete_oldest(folder)


def cache_folder(environment: MutableMapping[str, str] = os.environ) -> Path:
    """jaxvae/xla in the user's folder of caches, $XDG_CACHE_HOME or ~/.cache. It can be deleted at any time."""
    caches = Path(environment.get("XDG_CACHE_HOME", ""))
    return (caches if caches.is_absolute() else Path.home() / ".cache") / "jaxvae" / "xla"


def _delete_oldest(folder: Path) -> None:
    """Delete the oldest programs if all together have more than `CACHE_BYTES`."""
    found = [(file.stat(), file) for file in folder.glob("*-cache")]
    left = CACHE_BYTES
    for stat, file in sorted(found, key=lambda it: it[0].st_mtime, reverse=True):
        left -= stat.st_size
        if left < 0:
            file.unlink(missing_ok=True)


def _uses_accelerator(environment: MutableMapping[str, str]) -> bool:
    """Whether JAX will use a GPU or a TPU."""
    if environment.get("JAX_PLATFORM_NAME", "").lower() == "cpu":
        return False
    wanted = environment.get("JAX_PLATFORMS") or ",".join(DEVICES)
    hidden = environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    for platform in wanted.replace("gpu", "cuda").split(","):
        if platform == "cpu":
            return False
        plugins, files = DEVICES.get(platform, ((), ()))
        if any(map(_is_installed, plugins)) and any(map(glob, files)) and not (platform == "cuda" and hidden):
            return True
    return False


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of its parent
        return False
