"""Folders of image files as data sets."""

from jaxvae.data.images.loading import load as load
from jaxvae.data.images.loading import load_test as load_test
from jaxvae.data.images.loading import read_folder as read_folder
