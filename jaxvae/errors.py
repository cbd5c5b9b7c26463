"""The one exception a user can cause and repair."""


class InputError(ValueError):
    """Something the user gave is wrong: a file, a flag, a folder, a value in the data.

    Its message is one line that names the thing as the user typed it, says what was found, and the way out. The command
    prints that line and exits with code 2; anything else that is raised is a defect of jaxvae and keeps its traceback.
    """
