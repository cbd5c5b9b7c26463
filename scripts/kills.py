"""What the scripts that kill jaxvae share: a command is killed at random moments until it has ended often enough."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def survive(
    command: Callable[[Path], list[str]],
    place: Path,
    *,
    kills: int,
    seed: int,
    progress: Callable[[Path], str],
    compare: Callable[[Path, Path], str],
) -> None:
    """Runs a command undisturbed, then kills it (SIGKILL) so often at random moments, started again each time.

    Whenever it comes to its end what it made is compared and a new one is begun; after the last kill it is left to end.

    Args:
      command: the arguments of `jaxvae` that make a folder.
      place: an empty folder for both.
      seed: decides the moments, evenly between the start and the time that an undisturbed one takes.
      progress: in words, what there is of a folder.
      compare: of (folder, undisturbed), in words what is equal; exits where something differs.
    """
    moments = random.Random(seed)
    undisturbed, folder = place / "undisturbed", place / "folder"
    started = time.perf_counter()
    _finished(command(undisturbed), timeout=None)
    seconds = time.perf_counter() - started
    print(f"undisturbed: {progress(undisturbed)} in {seconds:.1f} s", flush=True)
    done = ends = 0
    while done < kills or folder.exists():
        timeout = moments.uniform(0, seconds) if done < kills else None
        if not _finished(command(folder), timeout):
            done += 1
            print(f"kill {done} after {timeout:.1f} s, with {progress(folder)}", flush=True)
            continue
        ends += 1
        print(f"end {ends}: {compare(folder, undisturbed)}", flush=True)
        shutil.rmtree(folder)
    print(f"{done} kills, {ends} ends: every one is bit for bit that of the undisturbed one")


def _finished(arguments: list[str], timeout: float | None) -> bool:
    """Whether it came to its end in time; if not, it was killed."""
    command = [sys.executable, "-m", "jaxvae", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:  # `run` has killed it
        return False
    if done.returncode != 0 or done.stderr:
        sys.exit(f"failed with exit code {done.returncode}:\n{done.stderr}")
    return True
