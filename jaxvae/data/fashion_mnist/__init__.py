"""FashionMNIST with one class held out."""

from jaxvae.data.fashion_mnist.hold_out import CLASSES as CLASSES
from jaxvae.data.fashion_mnist.hold_out import FILES as FILES
from jaxvae.data.fashion_mnist.hold_out import RECORDS as RECORDS
from jaxvae.data.fashion_mnist.hold_out import SHA256 as SHA256
from jaxvae.data.fashion_mnist.hold_out import URL as URL
from jaxvae.data.fashion_mnist.hold_out import download as download
from jaxvae.data.fashion_mnist.hold_out import load as load
from jaxvae.data.fashion_mnist.hold_out import read as read
from jaxvae.data.fashion_mnist.hold_out import read_idx as read_idx
