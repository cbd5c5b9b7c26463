"""How the commands speak of what they did."""


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "run"), counted(8, "run")
    ('1 run', '8 runs')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"
