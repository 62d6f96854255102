"""Draws small H&E-like tissue pictures: the offline stand-in for PathMNIST.

Nine tissues, named and numbered as in PathMNIST, as uint8 [N, 28, 28, 3] pictures. Each tissue is
a function that returns two stain maps, hematoxylin (nuclei, blue-purple) and eosin (the rest,
pink); one renderer turns stain maps into colour. Stain strength, hue, light, magnification and
orientation vary from picture to picture, so that the colour averages of a picture say little
about its label and the texture says nearly all.

NumPy only, vectorised over pictures. The same arguments give the same bytes on one installation;
another processor or NumPy version may round a pixel differently.
"""

from collections.abc import Callable, Sequence

import numpy as np

from pathlab.data.patterns import (
    SIZE,
    Array,
    Rng,
    cells,
    frame,
    noise,
    nuclei,
    soft,
    stripes,
    uniform,
)

VERSION = 1  # raise it when a drawing changes: caches carry it in their name

CHUNK = 1000  # pictures drawn at once; part of the result, since all draws come from one stream

# Optical density of (red, green, blue) per unit of hematoxylin and of eosin: the reference matrix
# in common use with the stain normalisation of Macenko et al. (2009), which PathMNIST's source
# images went through.
STAIN_VECTORS = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]], np.float32)

HUE_SPREAD = 0.06  # standard deviation added to each entry of the two stain vectors
EVEN_MEAN = 0.75  # 0 keeps a tissue's own mean stain, 1 replaces it by the shared draw
EVEN_CONTRAST = 0.9  # the same for the contrast of a stain
SHARED_MEAN = 0.30  # median of the shared draw of the mean of a stain, in optical density
MEAN_SPREAD = 0.33  # standard deviation of its logarithm
SHARED_CONTRAST = 0.5  # median of the shared draw of the standard deviation / mean of a stain
CONTRAST_SPREAD = 0.45  # standard deviation of its logarithm
MOST_CONTRAST = 4.0  # a tissue's own contrast rises at most so many times: bare glass stays even
MIXED_SHARE = 0.15  # share of pictures with a piece of another picture at the border
LAMP = (0.8, 1.0)  # light through bare glass, as a share of full white
BLUR = 0.08  # largest weight of a neighbouring pixel in the optical blur
NOISE = 5.0  # largest standard deviation of the sensor noise, in grey levels

Seed = int | Sequence[int] | np.random.SeedSequence  # what np.random.default_rng takes
Progress = Callable[[int], object]
Stains = tuple[Array, Array]  # hematoxylin and eosin, float32 [n, 28, 28], 0 or more


# ---------------------------------------------------------------- tissues


def adipose(rng: Rng, n: int) -> Stains:
    """Large empty cells with thin pink walls; a few flat nuclei in the walls."""
    u, v = frame(rng, n, bend=0.8)
    spacing = uniform(rng, n, 7, 11)
    found = cells(rng, u / spacing, v / spacing)
    wall = np.exp(-(((found.far - found.near) * spacing / uniform(rng, n, 1.0, 1.6)) ** 2))
    flat = wall * nuclei(rng, u, v, 3.5, 1.5, 0.15)
    return 0.01 + 0.03 * wall + 0.2 * flat, 0.015 + 0.3 * wall


def background(rng: Rng, n: int) -> Stains:
    """Almost bare glass: slow shading, dust, now and then the faint edge of something."""
    u, v = frame(rng, n, bend=2)
    dust = nuclei(rng, u, v, 6, 0.7, uniform(rng, n, 0.02, 0.2))
    edge = soft(2 * (u - u.mean(axis=(1, 2), keepdims=True))) * uniform(rng, n, -2, 1).clip(0)
    glass = 0.003 * (1 + 0.05 * noise(rng, n, 28).clip(-2, 2) + 0.15 * edge)
    return glass + 0.01 * dust, glass


def debris(rng: Rng, n: int) -> Stains:
    """Necrosis: ragged clumps without order, granules of broken nuclei."""
    u, v = frame(rng, n, bend=1.2, bend_period=8)
    clump = soft(2.5 * noise(rng, n, 10, 0.5))
    granules = nuclei(rng, u, v, 2.6, 0.9, 0.4)
    ragged = 1 + 0.35 * noise(rng, n, 3.5).clip(-2, 2)
    return (0.05 + 0.2 * clump) * ragged + 0.4 * clump * granules, (0.1 + 0.5 * clump) * ragged


def lymphocytes(rng: Rng, n: int) -> Stains:
    """Crowded small round dark nuclei with hardly any cytoplasm."""
    u, v = frame(rng, n, bend=0.5)
    dark = nuclei(rng, u, v, uniform(rng, n, 3.0, 3.8), 1.35, uniform(rng, n, 0.75, 1.0))
    return 0.12 + 0.8 * dark, 0.3 + 0.15 * dark + 0.05 * noise(rng, n, 8).clip(-2, 2)


def mucus(rng: Rng, n: int) -> Stains:
    """Pale smooth pools drawn out into long flowing strands."""
    _, v = frame(rng, n, bend=3)
    strand = stripes(v + noise(rng, n, 12), uniform(rng, n, 5, 10))
    pool = 0.5 + 0.15 * noise(rng, n, 20).clip(-2, 2)
    return 0.05 + 0.05 * pool + 0.05 * strand, 0.03 + 0.03 * pool + 0.02 * strand


def smooth_muscle(rng: Rng, n: int) -> Stains:
    """Parallel pink fibres; few long nuclei, all along the fibres."""
    u, v = frame(rng, n, bend=0.8)
    fibre = stripes(v, uniform(rng, n, 3.0, 4.5)) * (1 + 0.3 * noise(rng, n, 8).clip(-2, 2))
    long = nuclei(rng, u, v, 3.0, 1.0, 0.2, stretch=2.5)
    return 0.12 + 0.6 * long, 0.35 + 0.3 * fibre


def normal_mucosa(rng: Rng, n: int) -> Stains:
    """Round glands: a ring of nuclei around pale goblet cells, set in thin stroma."""
    u, v = frame(rng, n, bend=0.7)
    spacing = uniform(rng, n, 10, 13)
    radius = cells(rng, u / spacing, v / spacing).near * spacing
    outer = uniform(rng, n, 4.2, 5.2)
    ring = np.exp(-(((radius - outer) / 0.9) ** 2))
    inside = soft(2 * (outer - radius))
    dark = nuclei(rng, u, v, 2.6, 1.1, 0.8)
    goblet = stripes(radius, 2.6)
    return (
        ring * (0.25 + 0.5 * dark) + 0.1 * inside + 0.3 * dark * (1 - inside) * (1 - ring),
        0.45 * (1 - inside) + inside * (0.12 + 0.1 * goblet) + 0.15 * ring,
    )


def stroma(rng: Rng, n: int) -> Stains:
    """Wavy loose collagen; scattered spindle nuclei in unrelated directions."""
    _, v = frame(rng, n, bend=2.0, bend_period=16)
    fibre = stripes(v, uniform(rng, n, 4.5, 7)) * (1 + 0.3 * noise(rng, n, 6).clip(-2, 2))
    share = uniform(rng, n, 0.15, 0.3)
    spindle = nuclei(rng, *frame(rng, n, bend=0.5), 3.6, 1.0, share, stretch=2)
    other = nuclei(rng, *frame(rng, n, bend=0.5), 3.6, 1.0, share, stretch=1.5)
    return 0.1 + 0.6 * np.maximum(spindle, other), 0.2 + 0.4 * fibre


def adenocarcinoma(rng: Rng, n: int) -> Stains:
    """Large crowded irregular nuclei, coarse inside, around irregular lumens."""
    u, v = frame(rng, n, bend=0.8, bend_period=8)
    large = nuclei(rng, u, v, uniform(rng, n, 4.6, 5.8), 2.0, 0.95, stretch=1.3)
    coarse = 1 + 0.25 * noise(rng, n, 3.5).clip(-2, 2)
    tissue = soft(5 * (uniform(rng, n, 0.8, 2.2) - noise(rng, n, 18)))
    return tissue * (0.2 + 0.5 * large * coarse), tissue * (0.35 + 0.1 * large) + 0.02


TISSUES = {
    "adipose": adipose,
    "background": background,
    "debris": debris,
    "lymphocytes": lymphocytes,
    "mucus": mucus,
    "smooth muscle": smooth_muscle,
    "normal colon mucosa": normal_mucosa,
    "cancer-associated stroma": stroma,
    "colorectal adenocarcinoma epithelium": adenocarcinoma,
}
CLASS_NAMES = tuple(TISSUES)  # a label is the position of its name


# ---------------------------------------------------------------- from stain maps to pictures


def even_out(rng: Rng, stain: Array) -> Array:
    """Move mean and contrast of a stain map [n, 28, 28] towards draws shared by all tissues.

    Contrast is standard deviation / mean. Without this step the colour averages tell the label.
    """
    n = len(stain)
    mean, deviation = stain.mean(axis=(1, 2), keepdims=True), stain.std(axis=(1, 2), keepdims=True)
    draws = rng.standard_normal((2, n, 1, 1), dtype=np.float32)
    shared_mean = SHARED_MEAN * np.exp(MEAN_SPREAD * draws[0])
    shared_contrast = SHARED_CONTRAST * np.exp(CONTRAST_SPREAD * draws[1])
    new_mean = mean ** (1 - EVEN_MEAN) * shared_mean**EVEN_MEAN
    own = deviation / mean
    contrast = own ** (1 - EVEN_CONTRAST) * shared_contrast**EVEN_CONTRAST
    contrast = np.minimum(contrast, MOST_CONTRAST * own)
    return (new_mean * (1 + contrast * (stain - mean) / deviation)).clip(0)


def mix_border(rng: Rng, stains: Array) -> Array:
    """Put a piece of another picture at one border of some pictures; stains [n, 2, 28, 28].

    The piece stays some 5 pixels or more away from the middle, so the label stays right.
    """
    mixed = np.flatnonzero(rng.random(len(stains)) < MIXED_SHARE)
    other = rng.integers(0, len(stains), len(mixed))
    u, _ = frame(rng, len(mixed), bend=1, bend_period=14)
    reach = u - u.mean(axis=(1, 2), keepdims=True) - uniform(rng, len(mixed), 7, 12)
    piece = soft(3 * reach)[:, None]
    stains[mixed] = stains[mixed] * (1 - piece) + stains[other] * piece
    return stains


def blur(pictures: Array, weight: Array) -> Array:
    """Three-tap blur along both sides of [n, c, 28, 28]; `weight` of each neighbour, [n, 1, 1]."""
    spread = np.eye(SIZE, k=1) + np.eye(SIZE, k=-1) - 2 * np.eye(SIZE)
    spread[0, 0] = spread[-1, -1] = -1  # the outermost pixel has one neighbour
    taps = (np.eye(SIZE) + weight * spread).astype(np.float32)[:, None]
    return taps @ pictures @ taps


def develop(rng: Rng, stains: Array) -> Array:
    """Stain maps [n, 2, 28, 28] to pictures, uint8 [n, 28, 28, 3]: stain, lamp, optics, sensor."""
    n = len(stains)
    vectors = STAIN_VECTORS + HUE_SPREAD * rng.standard_normal((n, 2, 3), dtype=np.float32)
    density = vectors.transpose(0, 2, 1) @ stains.reshape(n, 2, -1)
    lamp = uniform(rng, n, *LAMP) * (1 + 0.04 * noise(rng, n, 28))
    # Beer-Lambert law: light passes as 10 ** -density.
    pictures = 255 * lamp[:, None] * np.exp(-np.log(10) * density).reshape(n, 3, SIZE, SIZE)
    pictures = blur(pictures, uniform(rng, n, 0, BLUR))
    grain = uniform(rng, n, 0, NOISE)[..., None]
    pictures += grain * rng.standard_normal(pictures.shape, dtype=np.float32)
    return pictures.clip(0, 255).round().astype(np.uint8).transpose(0, 2, 3, 1)


def _draw_chunk(rng: Rng, labels: Array) -> Array:
    """One chunk of `draw_tissue`."""
    stains = np.empty((len(labels), 2, SIZE, SIZE), np.float32)
    for label, tissue in enumerate(TISSUES.values()):
        where = np.flatnonzero(labels == label)
        if len(where):
            for stain, values in enumerate(tissue(rng, len(where))):
                stains[where, stain] = even_out(rng, values)
    return develop(rng, mix_border(rng, stains))


def draw_tissue(
    labels: Sequence[int] | Array, seed: Seed, progress: Progress | None = None
) -> Array:
    """Draw one picture per label, uint8 [N, 28, 28, 3].

    labels: integers [N] in 0..8, else ValueError. A picture depends on all labels of the call.
    progress, if given, is called with the number of pictures after each chunk of them.
    """
    labels = np.asarray(labels)
    whole = labels.size == 0 or np.issubdtype(labels.dtype, np.integer)
    if labels.ndim != 1 or not whole or not np.isin(labels, range(len(CLASS_NAMES))).all():
        raise ValueError(f"labels must be a list of integers in 0..8, not {labels!r}")
    rng = np.random.default_rng(seed)
    pictures = np.empty((len(labels), SIZE, SIZE, 3), np.uint8)
    for start in range(0, len(labels), CHUNK):
        chunk = slice(start, start + CHUNK)
        pictures[chunk] = _draw_chunk(rng, labels[chunk])
        if progress:
            progress(len(labels[chunk]))
    return pictures


def draw_split(
    n: int, seed: int | Sequence[int], progress: Progress | None = None
) -> tuple[Array, Array]:
    """Draw n pictures with random labels: uint8 [n, 28, 28, 3] and int64 [n].

    The classes are equally likely, which is near the shares in PathMNIST (9 to 14 per cent).
    """
    for_labels, for_pictures = np.random.SeedSequence(seed).spawn(2)
    labels = np.random.default_rng(for_labels).integers(0, len(CLASS_NAMES), n)
    return draw_tissue(labels, for_pictures, progress), labels
