"""The file format of tensorflow-datasets that works without TensorFlow and keeps every example."""

from typing import Any

from jaxvae.errors import ArgumentError

FORMAT = "array_record"


def checked(file_format: Any) -> str:
    """The name of the file format that a builder is given, None for its default. Refuses all but array_record.

    >>> checked(None)
    'array_record'
    """
    name = FORMAT if file_format is None else getattr(file_format, "value", file_format)
    if name != FORMAT:
        problem = f"tensorflow-datasets 4.9.10 loses examples of parquet, others need TensorFlow; use {FORMAT}"
        raise ArgumentError("file_format", name, problem)
    return FORMAT
