"""The `jaxvae` command. Flags are read before jax is imported, so that --help and typing errors answer at once."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Sequence

from jaxvae import __version__
from jaxvae.cli.demo import Demo
from jaxvae.cli.evaluate import Evaluate
from jaxvae.cli.prepare import Prepare
from jaxvae.cli.report import Report
from jaxvae.cli.score import Score
from jaxvae.cli.train import Train
from jaxvae.errors import InputError

COMMANDS = {
    "train": Train,
    "score": Score,
    "evaluate": Evaluate,
    "report": Report,
    "prepare": Prepare,
    "demo": Demo,
}
DESCRIPTION = """Train a variational auto-encoder on healthy images, then see, pixel by pixel, what in a new image does
not fit. Start with `jaxvae demo`, or with your own folder: `jaxvae train RUN --data FOLDER`, then
`jaxvae evaluate RUN`. What each command takes: `jaxvae COMMAND --help`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 on success, 2 with one line on stderr for anything the user can put right."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments in (["--version"], ["-V"]):
        print(f"jaxvae {__version__}")
        return 0
    # Orbax and absl report every save otherwise.
    os.environ.setdefault("ABSL_MIN_LOG_LEVEL", "1")
    try:
        command = _parse(arguments)
        command.execute()
    except InputError as error:
        print(f"jaxvae: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("jaxvae: interrupted", file=sys.stderr)
        return 130
    return 0


def _parse(arguments: list[str]) -> Train | Score | Evaluate | Report | Prepare | Demo:
    import tyro

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.extras.subcommand_cli_from_dict(
                COMMANDS,
                prog="jaxvae",
                description=" ".join(DESCRIPTION.split()),
                args=arguments or ["--help"],
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(_one_line(complaint.getvalue(), arguments)) from None


def _one_line(complaint: str, arguments: list[str]) -> str:
    """What the parser says in a frame of several lines, in one."""
    # The frame's text up to its first rule is the complaint itself; below a rule come hints.
    sections = re.split(r"│ ─+ │", complaint)
    text, *hints = [" ".join(re.sub(r"[│╭╮╰╯]|─.*", " ", section).split()) for section in sections]
    text = text.rstrip(".") or "the flags could not be read"
    alike = re.search(r"Perhaps you meant: (--[\w-]+)", " ".join(hints))
    known = re.search(r"(Available subcommands: (?:\w+, )*\w+)", " ".join(hints))
    hint = f"; did you mean {alike[1]}?" if alike else f"; {known[1].strip()}" if known else ""
    command = f"jaxvae {arguments[0]}" if arguments and arguments[0] in COMMANDS else "jaxvae"
    return f"{text}{hint}; see `{command} --help`".replace("?;", "?")
