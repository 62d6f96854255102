"""The patterns that tissues are drawn with: noise, cells, nuclei, stripes (NumPy only).

Everything is vectorised over n pictures and drawn from a generator that the caller passes.
"""

from typing import NamedTuple

import numpy as np

SIZE = 28  # pixels per side
LATTICE = 32  # cells per side before a cell pattern repeats; a picture never shows that many
JITTER = 0.7  # side of the square, in cells, in which a cell's centre lies

Array = np.ndarray
Number = float | Array  # one for all pictures, or one for each: float32 [n, 1, 1]
Rng = np.random.Generator


class Cells(NamedTuple):
    """A pattern of cells, as seen from each pixel. Every field is float32 [n, 28, 28]."""

    near: Array  # distance to the nearest cell centre, in cells
    far: Array  # distance to the second nearest centre, in cells
    mark: Array  # a number in [0, 1), the same for all pixels of one cell


def soft(x: Array) -> Array:
    """Soft step: 0 far below zero, 1 far above it (logistic function)."""
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def uniform(rng: Rng, n: int, low: float, high: float) -> Array:
    """One number per picture, float32 [n, 1, 1], uniform in [low, high)."""
    return (low + (high - low) * rng.random((n, 1, 1))).astype(np.float32)


def noise(rng: Rng, n: int, period: float, sharpness: float = 2.0) -> Array:
    """Band-limited noise, float32 [n, 28, 28], mean 0 and standard deviation 1 per picture.

    Random amplitudes in the frequency domain, weighted around one wave per `period` pixels; a
    larger `sharpness` keeps a narrower band.
    """
    fy, fx = np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None, :]
    octaves = np.log2(np.maximum(np.hypot(fy, fx), 0.5 / SIZE) * period)
    band = np.exp(-sharpness * octaves**2).astype(np.float32)
    band[0, 0] = 0  # no wave, no mean
    parts = rng.standard_normal((n, *band.shape, 2), dtype=np.float32)
    spectrum = parts.view(np.complex64)[..., 0] * band
    field = np.fft.irfft2(spectrum, s=(SIZE, SIZE)).astype(np.float32)
    return field / field.std(axis=(1, 2), keepdims=True)


def frame(rng: Rng, n: int, bend: float, bend_period: float = 28) -> tuple[Array, Array]:
    """Tissue coordinates u, v, float32 [n, 28, 28], in pixels at nominal magnification.

    Turned, magnified and shifted at random per picture, then bent by smooth noise of `bend` pixels.
    """
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) - (SIZE - 1) / 2
    angle = uniform(rng, n, 0, 2 * np.pi)
    scale = np.exp(uniform(rng, n, -0.25, 0.25))
    u = (np.cos(angle) * x + np.sin(angle) * y) * scale + uniform(rng, n, 0, 100)
    v = (np.cos(angle) * y - np.sin(angle) * x) * scale + uniform(rng, n, 0, 100)
    return u + bend * noise(rng, n, bend_period), v + bend * noise(rng, n, bend_period)


def cells(rng: Rng, u: Array, v: Array) -> Cells:
    """Cells around jittered lattice points, at coordinates u, v measured in cells (Worley 1996).

    Only the four lattice cells around a pixel are searched. That finds every centre closer than
    1 - JITTER / 2 cells along both axes, further than any nucleus reaches.
    """
    n = len(u)
    table = rng.random((n * LATTICE * LATTICE, 3), dtype=np.float32)
    centre_u, centre_v, mark = table.T.copy()
    picture = np.arange(n, dtype=np.int32)[:, None, None] * LATTICE
    near = np.full(u.shape, np.inf, np.float32)
    far, nearest = near, np.zeros(u.shape, np.int32)
    for step_u, step_v in ((0, 0), (0, 1), (1, 0), (1, 1)):
        cell_u = np.floor(u - 0.5).astype(np.int32) + step_u
        cell_v = np.floor(v - 0.5).astype(np.int32) + step_v
        index = (picture + cell_u % LATTICE) * LATTICE + cell_v % LATTICE
        to_u = u - cell_u - (1 - JITTER) / 2 - JITTER * centre_u[index]
        to_v = v - cell_v - (1 - JITTER) / 2 - JITTER * centre_v[index]
        distance = np.sqrt(to_u**2 + to_v**2)
        far = np.minimum(far, np.maximum(near, distance))
        nearest = np.where(distance < near, index, nearest)
        near = np.minimum(near, distance)
    return Cells(near, far, mark[nearest])


def nuclei(
    rng: Rng, u: Array, v: Array, spacing: Number, radius: float, share: Number, stretch: float = 1
) -> Array:
    """Soft-edged nuclei, float32 [n, 28, 28] in 0..1: one in a `share` of the cells.

    `spacing` and `radius` in pixels; `stretch` lengthens cells and nuclei along u.
    """
    found = cells(rng, u / (spacing * stretch), v / spacing)
    size = radius * (0.75 + 0.5 * found.mark / share)  # mark / share is in [0, 1) where one is
    return soft(3 * (size - spacing * found.near)) * (found.mark < share)


def stripes(v: Array, period: Number) -> Array:
    """Parallel stripes across v, float32 [n, 28, 28] in 0..1, `period` in pixels."""
    return 0.5 + 0.5 * np.sin(2 * np.pi * v / period)
