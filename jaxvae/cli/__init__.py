"""The `jaxvae` command.

Flags are parsed before jax is imported, so that --help and typing errors answer at once.
"""

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
from dataclasses import fields, is_dataclass
from typing import get_args

from jaxvae import __version__
from jaxvae.cli import accelerators
from jaxvae.cli.complaints import as_typed, one_line
from jaxvae.cli.demo import Demo
from jaxvae.cli.evaluate import Evaluate
from jaxvae.cli.export import Export
from jaxvae.cli.flags import flag
from jaxvae.cli.prepare import Prepare
from jaxvae.cli.report import Report
from jaxvae.cli.score import Score
from jaxvae.cli.sweep import Sweep
from jaxvae.cli.train import Train, repeated
from jaxvae.errors import InputError, cannot_be_written, did_you_mean, is_out_of_memory, system_error

Command = Train | Score | Evaluate | Sweep | Report | Prepare | Export | Demo
COMMANDS: dict[str, type[Command]] = {kind.__name__.lower(): kind for kind in get_args(Command)}
_TILDE = re.compile(r"\A((?:--[\w-]+=)?(?:fashion_mnist:)?)(~.*)", re.DOTALL)
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again.
SYSTEM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
HELP = """usage: jaxvae COMMAND [...]

Train a variational auto-encoder on healthy images, then compute for every
pixel of a new image how anomalous it is.

{commands}

Start with `jaxvae demo`, or with a folder of images:
`jaxvae train RUN --data FOLDER`, then `jaxvae evaluate RUN`.
`jaxvae COMMAND --help` lists the flags of a command, `jaxvae --version` shows
the version."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
      0 on success; 2 with one line on stderr for anything the user can fix; `STOPPED` if a signal stopped training and
      the same command can continue it; 130 after Ctrl-C.
    """
    _make_quiet()
    try:
        finished = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except InputError as error:
        return _failed(as_typed(error, set().union(*map(_arguments_of, COMMANDS.values()))))
    except BrokenPipeError:
        # The reader of our output (`| head`) has ended.
        _drop_output()
        return 1
    except Exception as error:
        if system_error(error) in SYSTEM_ERRORS:
            place = getattr(error, "filename", None) or "the output"
            code = _failed(cannot_be_written(place, error))
            _drop_output()
            return code
        if platforms := _missing_platforms():
            way_out = 'install JAX for it, as with `pip install "jax[cuda13]"`, or set another'
            return _failed(f"JAX_PLATFORMS={platforms}: JAX finds no such device here; {way_out}")
        if not is_out_of_memory(error):
            raise
        reason = next(iter(str(error).splitlines()), "all of it is in use")
        return _failed(f"out of memory ({reason}); give a smaller --batch-size, or use smaller images")
    except KeyboardInterrupt:
        print("jaxvae: interrupted", file=sys.stderr)
        return 130
    return 0 if finished else STOPPED


def _failed(message: object) -> int:
    print(f"jaxvae: {message}", file=sys.stderr)
    return 2


def _make_quiet() -> None:
    """Hide logs and warnings of other libraries, and make every file name printable."""
    # Orbax logs every save, and every file it cannot read in hundreds of lines. Our errors say what matters.
    os.environ.setdefault("ABSL_MIN_LOG_LEVEL", "1")
    for logger in ("absl", "asyncio", "nibabel.global", "tifffile"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    # Reads of a damaged checkpoint may end after the event loop that waited for them.
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = lambda it: str(it.exc_value) == "Event loop is closed" or sys.__unraisablehook__(it)
    # Hide warnings about large images, missing glyphs, and damaged programs in the cache, which are compiled again.
    cache = "Error (reading|writing) persistent compilation cache"
    for message in ("Image size .* exceeds limit", "Glyph .* missing from", cache):
        warnings.filterwarnings("ignore", message)
    # A file name can hold bytes that are not text.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Drop output that cannot be written, since Python would try to write it again when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _missing_platforms() -> str | None:
    """The JAX_PLATFORMS of the environment, if this machine has no such device."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        import jax

        try:
            jax.devices()
        except (RuntimeError, AssertionError):  # AssertionError: no plugin for the platform
            return platforms
    return None


def _run(arguments: list[str]) -> bool:
    """Run one command. Returns False if it was interrupted and can be continued."""
    if not arguments or arguments[0] in ("-h", "--help"):
        summaries = {name: str(kind.__doc__).splitlines()[0] for name, kind in COMMANDS.items()}
        print(HELP.format(commands="\n".join(f"  {name:<10}{summary}" for name, summary in summaries.items())))
    elif "--version" in arguments:
        print(f"jaxvae {__version__}")
    elif command := _parse(*arguments):
        accelerators.set_up()
        return command.execute() is not False
    return True


def _parse(name: str, *arguments: str) -> Command | None:
    """The command with its flags, or None if its help was printed."""
    import tyro

    if name not in COMMANDS:
        raise InputError(_see(f"{name}: no such command{did_you_mean(name, COMMANDS)}", "jaxvae --help"))
    command, complaint = COMMANDS[name], io.StringIO()
    # Shells leave `~` alone in `--data=~/images` and `fashion_mnist:~/images`.
    arguments = tuple(_TILDE.sub(lambda found: found[1] + os.path.expanduser(found[2]), word) for word in arguments)
    try:
        _check_words(name, arguments)
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                command,
                prog=f"jaxvae {name}",
                args=arguments,
                default=repeated(arguments) if command is Train else None,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            return None
        known = [*map(flag, _arguments_of(command)), "--help"]
        raise InputError(_see(one_line(complaint.getvalue(), arguments, known), f"jaxvae {name} --help")) from None


def _check_words(name: str, arguments: Sequence[str]) -> None:
    """Raise InputError for unknown flags, flags that are given twice, and empty words."""
    arguments_of = _arguments_of(COMMANDS[name])
    known = {*map(flag, arguments_of), "--help"}
    typed = [flag(word[2:].partition("=")[0]) for word in arguments if word.startswith("--") and word != "--"]
    for one in typed:
        if one not in known and "tyro" not in one:
            raise InputError(_see(f"{one}: no such flag{did_you_mean(one, known)}", f"jaxvae {name} --help"))
    for argument, takes_several in arguments_of.items():
        # A flag with one value may be repeated: the last one counts. Repeating a list would lose its first values.
        if takes_several and (times := typed.count(flag(argument))) > 1:
            raise InputError(f"{flag(argument)}: is given {times} times; give it once, with all its values")
    for word, after in zip(arguments, (*arguments[1:], "--"), strict=False):
        if word == "--maps" and after.startswith("--"):
            raise InputError("--maps without a name: name at least one map, such as elbo_grad")
    for before, word in zip(("jaxvae", *arguments), arguments, strict=False):
        if word == "":
            raise InputError(f"{before} '': is empty; give it a value")


def _arguments_of(command: type[Command]) -> dict[str, bool]:
    """The arguments of a command, those of its nested records too, and whether they take several values."""
    nested = [(it, it.default_factory) for it in fields(command)]
    own = [part for it, kind in nested for part in (fields(kind) if is_dataclass(kind) else [it])]
    return {field.name: "tuple[" in str(field.type) for field in own}


def _see(complaint: str, command: str) -> str:
    return f"{complaint}{'' if complaint.endswith('?') else ';'} see `{command}`"
