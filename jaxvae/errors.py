"""The one exception a user can cause and repair, how it names commands, and how a lack of memory is known."""

import shlex


class InputError(ValueError):
    """Something the user gave is wrong: a file, a flag, a folder, a value in the data.

    Its message is one line that names the thing as the user typed it, says what was found, and the way out. The command
    prints that line and exits with code 2; anything else that is raised is a defect of jaxvae and keeps its traceback.
    """


class ArgumentError(InputError):
    """An argument that cannot be what it is, which the command knows as a flag.

    >>> str(ArgumentError("size", (8, 0), "both sides need at least 1 pixel"))
    'size=(8, 0): both sides need at least 1 pixel'
    """

    def __init__(self, name: str, value: object, problem: str) -> None:
        """`problem` names other arguments in backquotes."""
        super().__init__(f"{name}={value!r}: {problem}")
        self.name, self.value, self.problem = name, value, problem


def command(*words: object) -> str:
    """A command as one would type it, in backquotes.

    >>> command("evaluate", "my run", "OTHER")
    "`jaxvae evaluate 'my run' OTHER`"
    """
    return f"`{shlex.join(['jaxvae', *map(str, words)])}`"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python or XLA, which has no exception of its own for it, ran out of memory."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
