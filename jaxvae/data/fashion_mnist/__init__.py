"""FashionMNIST with one class held out."""

from jaxvae.data.fashion_mnist.downloading import download as download
from jaxvae.data.fashion_mnist.hold_out import CLASSES as CLASSES
from jaxvae.data.fashion_mnist.hold_out import load as load
from jaxvae.data.fashion_mnist.hold_out import read as read
from jaxvae.data.fashion_mnist.idx_files import read_idx as read_idx
