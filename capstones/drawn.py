"""What the demos' pictures are drawn with: blobs and smooth noise, in NumPy alone."""

from pathlib import Path

import numpy as np
from PIL import Image

from pathlab.files import make_folder


def blob(
    rng: np.random.Generator,
    size: int,
    radius: float,
    roughness: float = 0.1,
    center: tuple[float, float] | None = None,
) -> np.ndarray:
    """A filled closed curve with soft edges: float32 [size, size] in [0, 1].

    radius: in pixels, on average; roughness: standard deviation of the outline as a share of the
    radius; center: (y, x) in pixels, the middle of the picture if None.
    """
    y0, x0 = center or ((size - 1) / 2, (size - 1) / 2)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    angle, distance = np.arctan2(y - y0, x - x0), np.hypot(y - y0, x - x0)
    outline = np.ones_like(angle)
    for wave in (2, 3, 4, 5):
        outline += roughness * rng.normal() / 2 * np.sin(wave * angle + rng.uniform(0, 2 * np.pi))
    return 1 / (1 + np.exp(np.clip(2 * (distance - radius * outline.clip(0.3)), -50, 50)))


def noise(rng: np.random.Generator, size: int, period: float) -> np.ndarray:
    """Smooth noise, float32 [size, size], mean 0, standard deviation 1; period in pixels."""
    frequency = np.fft.fftfreq(size)
    radius = np.hypot(frequency[:, None], frequency[None]) * period
    spectrum = np.fft.fft2(rng.normal(size=(size, size))) * np.exp(-2 * radius**2)
    field = np.fft.ifft2(spectrum).real
    return ((field - field.mean()) / max(field.std(), 1e-6)).astype(np.float32)


def save(path: Path, picture: np.ndarray) -> None:
    """Write a picture, [H, W] or [H, W, 3] in [0, 1], as an 8-bit image; makes the folder."""
    make_folder(path.parent)
    Image.fromarray((picture.clip(0, 1) * 255).round().astype(np.uint8)).save(path)
