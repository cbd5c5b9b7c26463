"""`jaxvae prepare`: fetch a data set once, so that training finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from jaxvae.cli.source import FASHION_MNIST
from jaxvae.errors import InputError


@dataclass(frozen=True)
class Prepare:
    """Download a data set into a folder."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="fashion_mnist:DIR")]
    """the data set, and the folder to put it in"""

    def execute(self) -> None:
        if not self.data.startswith(FASHION_MNIST):
            raise InputError(f"{self.data}: only fashion_mnist:DIR is downloaded; other data are read where they lie")
        from jaxvae.data import fashion_mnist

        directory = self.data.removeprefix(FASHION_MNIST)
        fashion_mnist.download(directory)
        print(f"{directory}: FashionMNIST is there; next: `jaxvae train RUN --data {self.data} --hold-out 8`")
