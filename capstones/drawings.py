"""The small data sets of the demos, drawn in NumPy: each in its system's documented layout."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from capstones.folder import write_table
from pathlab.files import make_folder

CELL_LINES = ("A-431", "A549", "HEK 293", "HeLa", "MCF7", "PC-3", "RT4", "U-2 OS", "U-251 MG")
NUCLEUS, CYTOPLASM, BACKGROUND = 255, 128, 0  # in a mask of `cervical`

# The pictures of a sample by their path, in [0, 1], and its row in the table, if it has one.
Sample = tuple[dict[str, np.ndarray], dict | None]


def draw_multimodal(folder: Path, n: int = 120, size: int = 96, seed: int = 0) -> None:
    """Pairs of BF/ and FL/; every third is in test/, without a label.

    A cancerous cell is larger and its outline rougher in bright field; in fluorescence its nucleus
    fills more of the cell. Either picture alone leaves doubt.
    """
    rng = np.random.default_rng(seed)

    def samples() -> Iterator[Sample]:
        for i in range(n):
            sick = int(rng.random() < 0.4)
            radius = size * (0.24 + 0.05 * sick + 0.03 * rng.normal())
            center = _near_middle(rng, size, 0.08)
            cell = blob(rng, size, radius, 0.08 + 0.12 * sick, center)
            share = 0.42 + 0.12 * sick + 0.06 * rng.normal()
            nucleus = blob(rng, size, radius * share, 0.1, center) * cell
            grain = 0.03 * noise(rng, size, 3) + 0.04 * noise(rng, size, 30)
            bright = 0.72 - 0.18 * cell - 0.1 * nucleus + grain * (0.5 + cell)
            glow = 0.35 * cell * (1 + 0.3 * noise(rng, size, 5)) + 0.02 * rng.normal()
            colours = np.stack([0.2 * glow, glow, 0.1 * glow + 0.7 * nucleus], axis=-1)
            name, test = f"cell_{i:04}", i % 3 == 2
            where = "test/" if test else ""
            gray = np.repeat(bright[..., None], 3, axis=-1)
            pictures = {f"{where}BF/{name}.png": gray, f"{where}FL/{name}.png": colours}
            yield pictures, None if test else {"name": name, "diagnosis": sick}

    _write(folder, "train.csv", samples())


def draw_cell_lines(folder: Path, n: int = 270, size: int = 64, seed: int = 0) -> None:
    """Cells of nine lines in three channels; the last sixth is in test/, without labels.

    Lines differ in the size of the nucleus (three steps) and in the coarseness of the microtubules
    and the brightness of the ER (three steps), which single cells scatter around.
    """
    rng = np.random.default_rng(seed)

    def samples() -> Iterator[Sample]:
        for i in range(n):
            line = i % len(CELL_LINES)
            name, test = f"cell_{i:04}", i >= n * 5 // 6
            where = "test/images" if test else "images"
            channels = zip(("nucleus", "microtubules", "er"), _stains(rng, line, size), strict=True)
            pictures = {f"{where}/{name}_{channel}.png": picture for channel, picture in channels}
            yield pictures, None if test else {"id": name, "cell_line": CELL_LINES[line]}

    _write(folder, "train.csv", samples())


def _stains(rng: np.random.Generator, line: int, size: int) -> list[np.ndarray]:
    """Nucleus, microtubules and ER of a cell, float32 [S, S] each."""
    row, column = divmod(line, 3)
    center = _near_middle(rng, size, 0.06)
    radius = size * (0.36 + 0.03 * rng.normal())
    cell = blob(rng, size, radius, 0.15, center)
    nucleus = blob(rng, size, radius * (0.3 + 0.15 * row + 0.03 * rng.normal()), 0.1, center) * cell
    cytoplasm = cell * (1 - 0.8 * nucleus)
    threads = np.abs(noise(rng, size, 3 * 2**column))
    brightness = 0.25 + 0.25 * column + 0.05 * rng.normal()
    er = brightness * (1 + 0.25 * noise(rng, size, 8))
    background = 0.04 + 0.02 * noise(rng, size, 2)
    stain = 0.65 + 0.1 * rng.normal()
    return [
        background + stain * nucleus * (1 + 0.1 * noise(rng, size, 6)),
        background + stain * cytoplasm * (1 - threads).clip(0, 1),
        background + cytoplasm * er,
    ]


def draw_cervical(folder: Path, n: int = 150, size: int = 64, seed: int = 0) -> None:
    """Images and masks of cells of five stages.

    From stage to stage the nucleus fills more of the cell and its outline is rougher. Some images
    show dirt of a nucleus's colour outside the cell, which belongs to no mask.
    """
    rng = np.random.default_rng(seed)

    def samples() -> Iterator[Sample]:
        for i in range(n):
            stage = i % 5
            center = _near_middle(rng, size, 0.05)
            radius = size * (0.34 + 0.02 * rng.normal())
            share = 0.25 + 0.11 * stage + 0.02 * rng.normal()
            cell = blob(rng, size, radius, 0.1, center)
            nucleus = cell * blob(rng, size, radius * share, 0.06 + 0.04 * stage, center)
            dirt = blob(rng, size, size * 0.04, 0.2, tuple(rng.uniform(0, size, 2)))
            dirt = dirt * (1 - cell) * (rng.random() < 0.5)
            light = 0.02 * noise(rng, size, 2) + 0.04 * noise(rng, size, 25)
            picture = np.array([0.93, 0.91, 0.94]) + light[..., None]
            for what, colour in ((cell, (0.62, 0.72, 0.80)), (nucleus + dirt, (0.33, 0.24, 0.48))):
                texture = np.array(colour) + 0.04 * noise(rng, size, 4)[..., None]
                picture = picture * (1 - what[..., None]) + texture * what[..., None]
            mask = np.where(nucleus > 0.5, NUCLEUS, np.where(cell > 0.5, CYTOPLASM, BACKGROUND))
            name = f"cell_{i:04}.png"
            pictures = {f"images/{name}": picture, f"masks/{name}": mask / 255}
            yield pictures, {"image": name, "label": stage}

    _write(folder, "labels.csv", samples())


def draw_spines(folder: Path, n: int = 260, size: int = 64, seed: int = 0) -> None:
    """Gray images in order of their split: 60 % train, 20 % val, 20 % test."""
    rng = np.random.default_rng(seed)

    def samples() -> Iterator[Sample]:
        for i in range(n):
            sick = bool(rng.random() < 0.4)
            name, part = f"spine_{i:04}.png", "train" if i < n * 0.6 else "val"
            label = ("No finding", "Pathology")[sick]
            row = {"image": name, "label": label, "split": part if i < n * 0.8 else "test"}
            yield {f"images/{name}": draw_spine(rng, size, sick)}, row

    _write(folder, "labels.csv", samples())


def draw_spine(rng: np.random.Generator, size: int, sick: bool) -> np.ndarray:
    """float32 [S, S] in [0, 1]: six bright vertebrae on a slightly bent line, over soft tissue.

    In a sick spine one vertebra is flat and dense, a compression fracture.
    """
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    middle = 0.5 + 0.05 * rng.normal() + 0.06 * rng.normal() * np.sin(np.pi * y)
    body = 0.25 * np.exp(-(((x - middle) / 0.3) ** 2))
    picture = 0.12 + body + 0.03 * noise(rng, size, size / 4)
    picture += 0.02 * noise(rng, size, 2)
    centers = np.linspace(0.1, 0.9, 6) + 0.012 * rng.normal(size=6)
    broken = rng.integers(1, 5) if sick else -1
    for i, center in enumerate(centers):
        height = 0.055 * (1 + 0.06 * rng.normal())
        density = 0.33 * (1 + 0.1 * rng.normal())
        if i == broken:
            height, density = height * rng.uniform(0.45, 0.75), density * rng.uniform(1.0, 1.4)
        # A box with round corners: the fourth power of the distances.
        distance = ((x - middle) / 0.13) ** 4 + ((y - center) / height) ** 4
        picture += density / (1 + np.exp(np.clip(6 * (distance - 1), -50, 50)))
    return picture


def blob(
    rng: np.random.Generator,
    size: int,
    radius: float,
    roughness: float = 0.1,
    center: tuple[float, ...] | None = None,
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


def _near_middle(rng: np.random.Generator, size: int, scatter: float) -> tuple[float, ...]:
    return tuple(size / 2 + size * scatter * rng.normal(size=2))


def _write(folder: Path, table: str, samples: Iterator[Sample]) -> None:
    rows = []
    for pictures, row in samples:
        for path, picture in pictures.items():
            save(folder / path, picture)
        rows += [row] if row else []
    write_table(folder / table, pd.DataFrame(rows))
