"""Fuzzer: read damaged files of every format that jaxvae reads.

    python scripts/fuzz.py --seconds 60 --seed 0

Each input must end in one of two ways: `refused` (InputError with a message of one line) or `read` (finite numbers of
the right shape). Anything else is a fault: another exception, more than 10 seconds, more than 1 GB of memory, a program
run from a data file, a file written elsewhere, or other pixels from a truncated file. Faulty inputs are kept below
--keep. `python scripts/fuzz.py --only png --first 17` repeats input 17.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 10.0
LIMIT_BYTES = 1 << 30
BACKSTOP_BYTES = 16 << 30  # of address space, to protect the machine
RUNS_CODE = ("pickle.find_class", "os.system", "os.exec", "subprocess.Popen", "socket.connect")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after this time")
    parser.add_argument("--inputs", type=int, help="stop after this number of inputs per format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input of each format")
    parser.add_argument("--only", help="only formats whose names contain this")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"), help="folder that keeps faulty inputs")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        return _work(flags.seed, flags.worker)
    with tempfile.TemporaryDirectory() as scratch:
        return _fuzz(flags, Path(scratch))


def _fuzz(flags: argparse.Namespace, scratch: Path) -> int:
    worker = _Worker(flags.seed, scratch)
    names = [name for name in worker.formats if flags.only is None or flags.only in name]
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    end, number = time.monotonic() + flags.seconds, flags.first
    while time.monotonic() < end and number - flags.first != flags.inputs:
        for name in names:
            if time.monotonic() > end:
                break
            outcome, message = worker.tried(name, number)
            counts[name][outcome] += 1
            if outcome not in ("read", "refused"):
                print(f"{name} {number}: {outcome}: {message.strip().splitlines()[-1][:300]}", flush=True)
                kept = flags.keep / f"{name.replace(' ', '-')}-{flags.seed}-{number}"
                shutil.copytree(scratch / "input", kept, dirs_exist_ok=True)
                (kept / "fault.txt").write_text(message, errors="replace")
        number += 1
    worker.stop()
    print(f"\n{'format':<18}{'inputs':>8}{'refused':>9}{'read':>7}{'faults':>8}")
    faults = 0
    for name, found in {**counts, "all": sum(counts.values(), Counter())}.items():
        faults = found.total() - found["refused"] - found["read"]
        print(f"{name:<18}{found.total():>8}{found['refused']:>9}{found['read']:>7}{faults:>8}")
    return 1 if faults else 0


class _Worker:
    """A process that reads damaged files. It is started again if a file ends it."""

    def __init__(self, seed: int, scratch: Path) -> None:
        self._command = [sys.executable, __file__, "--worker", str(scratch), "--seed", str(seed)]
        self._start()

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0
        )
        self.formats: list[str] = json.loads(self._answer(120) or b"[]")

    def _answer(self, seconds: float) -> bytes:
        """Read one line; empty if none comes in time or the process has ended."""
        out = self._process.stdout
        assert out is not None
        return out.readline() if select.select([out], [], [], seconds)[0] else b""

    def tried(self, name: str, number: int) -> tuple[str, str]:
        """(outcome, message) of one input."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, number]).encode() + b"\n")
        if answer := self._answer(2 * LIMIT_SECONDS):
            outcome, message = json.loads(answer)
            if outcome == "memory":
                self._restart()
            return outcome, message
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._restart()
            return "hang", f"over {2 * LIMIT_SECONDS} s"
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
        self._restart()
        return "crash", f"the process ended with {code}: {''.join(last)}"

    def _restart(self) -> None:
        self.stop()
        self._start()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()


def _work(seed: int, scratch: Path) -> int:
    """Read the inputs that stdin names, and write the outcomes to stdout."""
    from fuzz_formats import formats

    answers, sys.stdout = sys.stdout, sys.stderr
    samples = scratch / "samples"
    shutil.rmtree(samples, ignore_errors=True)
    samples.mkdir()
    known = formats(samples)
    events = _watch(scratch)
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (BACKSTOP_BYTES, most))
    print(json.dumps(list(known)), file=answers, flush=True)
    for line in sys.stdin:
        name, number = json.loads(line)
        print(json.dumps(_try(known[name], name, seed, number, scratch / "input", events)), file=answers, flush=True)
    return 0


def _watch(scratch: Path) -> list[str]:
    """Actions that are forbidden to readers, appended as they happen."""
    events: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in RUNS_CODE:
            events.append(f"{event} {arguments!r:.200}")
        if event == "open" and isinstance(arguments[0], str) and isinstance(arguments[1], str):
            written = set(arguments[1]) & set("wax+")
            if written and not Path(arguments[0]).absolute().is_relative_to(scratch):
                events.append(f"opened for writing: {arguments[0]}")

    sys.addaudithook(hook)
    return events


def _damaged(form: Any, name: str, seed: int, number: int) -> tuple[dict[str, bytes], str, bool]:
    from fuzz_formats import damaged

    return damaged(random.Random(f"{seed} {name} {number}"), form)


def _try(form: Any, name: str, seed: int, number: int, folder: Path, events: list[str]) -> tuple[str, str]:
    """(outcome, message) of one input."""
    from jaxvae.errors import InputError

    files, what, must_be_same = _damaged(form, name, seed, number)
    try:
        good = _good(form, folder)
    except Exception as error:
        return "good sample", f"{error!r:.200}"
    _write(folder, files)
    del events[:]
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    outcome, message = "read", what
    try:
        found = form.read(folder)
        if must_be_same and not _same(found, good):
            outcome, message = "other values", f"{what}: read as other values than the good file"
    except InputError as error:
        outcome, message = "refused", str(error)
        if "\n" in message or len(message) > 2000:
            outcome, message = "long message", f"{what}: {message!r:.1000}"
    except BaseException as error:
        outcome, message = type(error).__name__, f"{what}\n{traceback.format_exc()}"
    seconds = time.monotonic() - start
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if grown > LIMIT_BYTES:
        return "memory", f"{what}: {grown / 1e9:.1f} GB"
    if seconds > LIMIT_SECONDS:
        return "slow", f"{what}: {seconds:.0f} s"
    return ("unsafe", f"{what}: {events[0]}") if events else (outcome, message)


def _good(form: Any, folder: Path) -> Any:
    """The content of the good sample, read once for each format."""
    if form.read not in _GOOD:
        _write(folder, form.files)
        _GOOD[form.read] = form.read(folder)
    return _GOOD[form.read]


_GOOD: dict[Any, Any] = {}


def _same(found: Any, good: Any) -> bool:
    import numpy as np

    if isinstance(found, dict):
        return found.keys() == good.keys() and all(_same(found[name], good[name]) for name in found)
    if isinstance(found, list | tuple):
        return len(found) == len(good) and all(map(_same, found, good))
    return np.array_equal(found, good)


def _write(folder: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())
