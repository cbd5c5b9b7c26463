"""The `jaxvae` command. Flags are read before jax is imported, so that --help and typing errors answer at once."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from jaxvae import __version__
from jaxvae.cli.complaints import as_typed, did_you_mean, one_line
from jaxvae.cli.demo import Demo
from jaxvae.cli.evaluate import Evaluate
from jaxvae.cli.prepare import Prepare
from jaxvae.cli.recipe import Recipe
from jaxvae.cli.report import Report
from jaxvae.cli.score import Score
from jaxvae.cli.source import Source
from jaxvae.cli.sweep import Sweep
from jaxvae.cli.train import Train, repeated
from jaxvae.cli.words import flag
from jaxvae.errors import InputError, cannot_be_written, is_out_of_memory, system_error

Command = Train | Score | Evaluate | Sweep | Report | Prepare | Demo
COMMANDS: dict[str, type[Command]] = {
    "train": Train,
    "score": Score,
    "evaluate": Evaluate,
    "sweep": Sweep,
    "report": Report,
    "prepare": Prepare,
    "demo": Demo,
}
_TILDE = re.compile(r"((?:--[\w-]+=)?(?:fashion_mnist:)?)(~.*)", re.DOTALL)
STOPPED = 75  # As sysexits.h has it: a failure that is none if one tries again.
HELP = """usage: jaxvae COMMAND [...]

Train a variational auto-encoder on healthy images, then see, pixel by pixel,
what in a new image does not fit.

{commands}

Start with `jaxvae demo`, or with a folder of your own:
`jaxvae train RUN --data FOLDER`, then `jaxvae evaluate RUN`.
`jaxvae COMMAND --help` says what a command takes, `jaxvae --version` which
version this is."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
      0 on success, 2 with one line on stderr for anything the user can put right, `STOPPED` for a training that a
      signal has stopped and the same command goes on with, 130 after Ctrl-C.
    """
    # Orbax tells of every save, and of every file it could not read in hundreds of lines; what matters of it we say.
    os.environ.setdefault("ABSL_MIN_LOG_LEVEL", "1")
    for logger in ("absl", "asyncio", "nibabel.global", "tifffile"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    # Reads that a damaged checkpoint has broken off may end after the loop that waited for them.
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _but_of_closed_loops
    # Of large images, and of letters that a figure's font lacks, nobody has to be warned.
    for message in ("Image size .* exceeds limit", "Glyph .* missing from"):
        warnings.filterwarnings("ignore", message)
    # A file's name need not be text, and a message that names it has to be printed all the same.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        finished = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except InputError as error:
        print(f"jaxvae: {as_typed(error, set().union(*map(_arguments_of, COMMANDS.values())))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; there is nobody left to tell.
        _drop_output()
        return 1
    except Exception as error:
        if system_error(error) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE):
            place = getattr(error, "filename", None) or "the output"
            print(f"jaxvae: {cannot_be_written(place, error)}", file=sys.stderr)
            _drop_output()
            return 2
        if platforms := _missing_platforms():
            way_out = 'install JAX for it, as with `pip install "jax[cuda13]"`, or set another'
            print(f"jaxvae: JAX_PLATFORMS={platforms}: JAX finds no such device here; {way_out}", file=sys.stderr)
            return 2
        if not is_out_of_memory(error):
            raise
        reason = next(iter(str(error).splitlines()), "no more can be had")
        print(f"jaxvae: out of memory ({reason}); train on fewer or smaller images at a time", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxvae: interrupted", file=sys.stderr)
        return 130
    return 0 if finished else STOPPED


def _drop_output() -> None:
    """Drop what stdout cannot take, since Python would try to write it once more when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _but_of_closed_loops(raised: sys.UnraisableHookArgs) -> None:
    if str(raised.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(raised)


def _missing_platforms() -> str | None:
    """What the environment asks JAX to compute on, if there is no such device."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        import jax

        try:
            jax.devices()
        except (RuntimeError, AssertionError):  # The latter where nothing for the platform is installed
            return platforms
    return None


def _run(arguments: list[str]) -> bool:
    """Whether nothing is left to do."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP.format(commands="\n".join(f"  {name:<10}{_summary(kind)}" for name, kind in COMMANDS.items())))
    elif "--version" in arguments:
        print(f"jaxvae {__version__}")
    elif command := _parse(*arguments):
        return command.execute() is not False
    return True


def _summary(command: type[Command]) -> str:
    return str(command.__doc__).splitlines()[0]


def _parse(name: str, *arguments: str) -> Command | None:
    """The command with its flags; none where its help was asked for, and printed."""
    import tyro

    if name not in COMMANDS:
        raise InputError(_see(f"{name}: no such command{did_you_mean(name, COMMANDS)}", "jaxvae --help"))
    command, arguments = COMMANDS[name], tuple(map(_at_home, arguments))
    complaint = io.StringIO()
    try:
        _check_words(name, arguments)
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                command,
                prog=f"jaxvae {name}",
                args=arguments,
                default=_repeated(arguments) if command is Train else None,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            return None
        raise InputError(_see(one_line(complaint.getvalue(), arguments), f"jaxvae {name} --help")) from None


def _repeated(arguments: Sequence[str]) -> Train | None:
    """The flags of the run that `--config` names, as defaults of the others."""
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    if "--config" not in words[:-1]:
        return None
    return repeated(Path(words[words.index("--config") + 1]), [word for word in words if word.startswith("--")])


def _at_home(word: str) -> str:
    """A word with the home folder for `~`, where shells leave it: `--data=~/images`, `fashion_mnist:~/images`."""
    found = _TILDE.fullmatch(word)
    return found[1] + os.path.expanduser(found[2]) if found else word


def _check_words(name: str, arguments: Sequence[str]) -> None:
    """Refuses what tyro lets pass, or says otherwise: unknown flags, those that are given twice, and empty words."""
    arguments_of = _arguments_of(COMMANDS[name])
    known = {*map(flag, arguments_of), "--help"}
    typed = [flag(word[2:].partition("=")[0]) for word in arguments if word.startswith("--") and word != "--"]
    for one in typed:
        if one not in known and "tyro" not in one:
            raise InputError(_see(f"{one}: no such flag{did_you_mean(one, known)}", f"jaxvae {name} --help"))
    for argument, takes_several in arguments_of.items():
        # Of a flag with one value the last counts, as elsewhere; of one with several, others would be lost.
        if takes_several and (times := typed.count(flag(argument))) > 1:
            raise InputError(f"{flag(argument)}: is given {times} times; give it once, with all its values")
    for before, word in zip(("jaxvae", *arguments), arguments, strict=False):
        if word == "":
            raise InputError(f"{before} '': is empty; give it a value")


def _arguments_of(command: type[Command]) -> dict[str, bool]:
    """Its arguments, those of the records within it too, and whether they take several values."""
    nested = {"source": Source, "recipe": Recipe}
    own = [part for it in fields(command) for part in (fields(nested[it.name]) if it.name in nested else [it])]
    return {field.name: "tuple[" in str(field.type) for field in own}


def _see(complaint: str, command: str) -> str:
    return f"{complaint}{'' if complaint.endswith('?') else ';'} see `{command}`"
