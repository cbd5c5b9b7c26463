"""Augmentation of batches on the device: geometry, brightness and noise."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvae.errors import ArgumentError
from jaxvae.types import Array, Key


@dataclass(frozen=True)
class Augmentation:
    """The ranges of random changes, for the argument `augment` of `jaxvae.fit`.

    Each image has its own draws, uniform in these ranges. The defaults are those for brains in Zimmerer et al. 2019.
    Their script has elastic deformation switched off; ours moves pixels as far as theirs would, by 0.8 pixels (root
    mean square) along each axis. Their script uses its noise variances as standard deviations and adds a second noise,
    up to 0.2; the sum is about the noise here. Their clipping of z-scored images to +-1.5 is left out.

    Args:
      mirror: probability of a left-right mirror; 0 is off.
      rotation: the largest angle in either direction, in radians; 0 is off.
      scale: factor of the distance from the centre where a pixel is looked up. Above 1, the content gets smaller and
        more of the border shows. (1, 1) is off.
      elastic: the largest displacement of a pixel along each axis, in pixels, before rotation and scaling; 0 is off.
      elastic_spacing: distance between the randomly moved knots, in pixels; larger is smoother.
      brightness: factor of all values of an image; (1, 1) is off.
      noise_variance: of Gaussian noise, in the squared unit of the images; in the paper, of z-scored images. (0, 0) is
        off.

    Raises:
      InputError: a value out of range, by the name of its field.

    >>> import jax, jax.numpy as jnp
    >>> mirror = Augmentation(1.0, rotation=0, scale=(1, 1), elastic=0, brightness=(2, 2), noise_variance=(0, 0))
    >>> mirror(jax.random.key(0), jnp.arange(4.0).reshape(1, 1, 4, 1)).ravel().tolist()
    [6.0, 4.0, 2.0, 0.0]
    """

    mirror: float = 0.5
    rotation: float = 0.1
    scale: tuple[float, float] = (0.9, 1.2)
    elastic: float = 3.0
    elastic_spacing: float = 20.0
    brightness: tuple[float, float] = (0.95, 1.1)
    noise_variance: tuple[float, float] = (0.0, 0.05)

    def __post_init__(self) -> None:
        if not 0 <= self.mirror <= 1:
            raise ArgumentError("mirror", self.mirror, "must be a probability, 0..1; 0 switches it off")
        if not 0 <= self.rotation <= math.pi:
            raise ArgumentError("rotation", self.rotation, "must be in 0..pi radians; 0 switches it off")
        for name, off in (("scale", 1.0), ("brightness", 1.0), ("noise_variance", 0.0)):
            low, high = getattr(self, name)
            if not (min(off, 1e-6) <= low <= high < math.inf):
                problem = f"must be (low, high), both {'above' if off else 'not below'} 0; {(off, off)} switches it off"
                raise ArgumentError(name, (low, high), problem)
        if not 0 < self.elastic_spacing < math.inf:
            raise ArgumentError("elastic_spacing", self.elastic_spacing, "must be above 0 pixels")
        # Below this bound the image cannot fold over itself (Choi & Lee 2000, "Injectivity conditions of 2D and 3D
        # uniform cubic B-spline functions").
        most = self.elastic_spacing / 2.0464
        if not 0 <= self.elastic <= most:
            limit = f"since more could fold the image with elastic_spacing={self.elastic_spacing}; 0 switches it off"
            raise ArgumentError("elastic", self.elastic, f"must be in 0..{most:.4g} pixels, {limit}")

    def __call__(self, key: Key, images: Array) -> Array:
        """Change each float32 image of [B, H, W, C] at random; its channels differ in the noise only.

        Pixels beyond the border repeat it. The key is consumed; the same key gives the same images. If everything is
        switched off, the images stay the same bit for bit.
        """
        place_key, brightness_key, variance_key, noise_key = jax.random.split(key, 4)
        one_each = (len(images), 1, 1, 1)
        if self.mirror > 0 or self.rotation > 0 or self.scale != (1, 1) or self.elastic > 0:
            images = warp(images, *places(place_key, images.shape, self))
        if self.brightness != (1, 1):
            images = images * _uniform(brightness_key, one_each, self.brightness)
        if self.noise_variance != (0, 0):
            std = jnp.sqrt(_uniform(variance_key, one_each, self.noise_variance))
            images = images + std * jax.random.normal(noise_key, images.shape)
        return images


def places(key: Key, shape: tuple[int, ...], augmentation: Augmentation) -> tuple[Array, Array]:
    """The place in the old image of each pixel of the new image.

    A pixel is moved by the elastic field, then rotated, scaled and mirrored around the centre. This gives one pair of
    coordinates, so the image is interpolated once.

    Args:
      key: consumed.
      shape: of the images, (B, H, W, C).

    Returns:
      Rows and columns, [B, H, W] each, in pixels.
    """
    mirror_key, rotation_key, scale_key, elastic_key = jax.random.split(key, 4)
    count, height, width, _ = shape
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    y, x = jnp.arange(height)[None, :, None] - centre_y, jnp.arange(width)[None, None, :] - centre_x
    if augmentation.elastic > 0:
        move = elastic_field(elastic_key, shape, amplitude=augmentation.elastic, spacing=augmentation.elastic_spacing)
        y, x = y + move[0], x + move[1]
    angle = _uniform(rotation_key, (count, 1, 1), (-augmentation.rotation, augmentation.rotation))
    scale = _uniform(scale_key, (count, 1, 1), augmentation.scale)
    sign = jnp.where(jax.random.bernoulli(mirror_key, augmentation.mirror, (count, 1, 1)), -1.0, 1.0)
    cos, sin = scale * jnp.cos(angle), scale * jnp.sin(angle)
    return cos * y - sin * x + centre_y, sign * (sin * y + cos * x) + centre_x


def elastic_field(key: Key, shape: tuple[int, ...], *, amplitude: float, spacing: float) -> Array:
    """Smooth random displacements, from a coarse grid of knots and cubic B-splines.

    Args:
      key: consumed.
      shape: of the images, (B, H, W, C).
      amplitude: the largest displacement in pixels, since the splines are non-negative and sum to 1.
      spacing: of the grid, in pixels.

    Returns:
      [2, B, H, W], along rows and along columns.

    Reference: Rueckert et al. 1999, free-form deformations.
    """
    count, height, width, _ = shape
    rows, columns = (jnp.asarray(_cubic_splines(size, spacing), jnp.float32) for size in (height, width))
    knots = _uniform(key, (2, count, rows.shape[1], columns.shape[1]), (-amplitude, amplitude))
    # Full precision, because a GPU would otherwise round to ten bits. The products are small.
    field = jnp.einsum("hk,nbkl->nbhl", rows, knots, precision=lax.Precision.HIGHEST)
    return jnp.einsum("wl,nbhl->nbhw", columns, field, precision=lax.Precision.HIGHEST)


def warp(images: Array, rows: Array, columns: Array) -> Array:
    """Bilinear interpolation of images at other places; the border repeats.

    Equals `scipy.ndimage.map_coordinates(order=1, mode="nearest")`.

    Args:
      images: [B, H, W, C].
      rows, columns: [B, h, w], in pixels; (0, 0) is the centre of the first pixel.

    Returns:
      [B, h, w, C]; bit for bit the pixels at whole coordinates.
    """
    count, height, width, channels = images.shape
    top, bottom, down = _neighbours(rows, height)
    left, right, across = _neighbours(columns, width)
    pixels = images.reshape(count, height * width, channels)

    # Four look-ups of single pixels. On a CPU they are ten times faster than one look-up of 2 x 2 blocks, and fifty
    # times faster than products with dense interpolation matrices.
    def at(row: Array, column: Array) -> Array:
        index = (row * width + column).reshape(count, -1, 1)
        return jnp.take_along_axis(pixels, index, axis=1, mode="promise_in_bounds").reshape(*rows.shape, channels)

    upper = at(top, left) * (1 - across) + at(top, right) * across
    lower = at(bottom, left) * (1 - across) + at(bottom, right) * across
    return upper * (1 - down) + lower * down


def _neighbours(places: Array, size: int) -> tuple[Array, Array, Array]:
    """The pixels before and after each place, int32, and the fraction, [B, h, w, 1]."""
    places = jnp.clip(places, 0, size - 1)
    before = jnp.floor(places).astype(jnp.int32)
    return before, jnp.minimum(before + 1, size - 1), (places - before)[..., None]


def _uniform(key: Key, shape: tuple[int, ...], limits: tuple[float, float]) -> Array:
    return jax.random.uniform(key, shape, minval=limits[0], maxval=limits[1])


def _cubic_splines(size: int, spacing: float) -> np.ndarray:
    """[size, knots]: the weight of each knot at each pixel; rows sum to 1."""
    # Four knots have a weight at every pixel, so one knot is before the first pixel and two are after the last.
    knots = np.arange(-1, math.floor((size - 1) / spacing) + 3)
    distance = np.abs(np.subtract.outer(np.arange(size) / spacing, knots))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far)
