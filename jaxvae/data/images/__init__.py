"""Folders of image files."""

from jaxvae.data.images.loading import load as load
from jaxvae.data.images.loading import load_judged as load_judged
from jaxvae.data.images.loading import read_folder as read_folder
