"""Synthetic T2-like brain slices with lesions and exact masks."""

from jaxvae.data.phantom.rendering import load as load
from jaxvae.data.phantom.rendering import slices as slices
