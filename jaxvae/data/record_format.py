"""array_record, the one file format of tensorflow-datasets that jaxvae uses.

It works without TensorFlow and keeps every example.
"""

from typing import Any

from jaxvae.errors import ArgumentError

FORMAT = "array_record"


def checked(file_format: Any) -> str:
    """The name of a builder's file format. Refuses all but array_record.

    >>> checked(None)
    'array_record'
    """
    name = FORMAT if file_format is None else getattr(file_format, "value", file_format)
    if name != FORMAT:
        problem = f"tensorflow-datasets 4.9.10 loses examples of parquet, others need TensorFlow; use {FORMAT}"
        raise ArgumentError("file_format", name, problem)
    return FORMAT
