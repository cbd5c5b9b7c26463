"""The one exception a user can cause and repair, and how a lack of memory is known."""


class InputError(ValueError):
    """Something the user gave is wrong: a file, a flag, a folder, a value in the data.

    Its message is one line that names the thing as the user typed it, says what was found, and the way out. The command
    prints that line and exits with code 2; anything else that is raised is a defect of jaxvae and keeps its traceback.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python or XLA, which has no exception of its own for it, ran out of memory."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
