"""Tests of the offline stand-in pictures, `pathlab.data.tissue`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathlab.data import tissue
from pathlab.data.tissue import CLASS_NAMES, SIZE, draw_split, draw_tissue

pytestmark = pytest.mark.quick

CLASSES = len(CLASS_NAMES)


@pytest.fixture(scope="module")
def small_split():
    """1,500 pictures and labels."""
    return draw_split(1500, seed=11)


def colour_statistics(images):
    """Mean and standard deviation of each colour channel, float [n, 6]."""
    pixels = images / 255.0
    return np.concatenate([pixels.mean((1, 2)), pixels.std((1, 2))], axis=1)


def texture_statistics(images):
    """How alike pixels 1, 2, 3 and 5 apart are, from the autocorrelation, float [n, 8].

    Mean and contrast are taken out first, so these numbers hold no colour averages.
    """
    grey = images.mean(axis=3)
    grey = grey - grey.mean((1, 2), keepdims=True)
    grey = grey / (grey.std((1, 2), keepdims=True) + 1e-6)
    columns = [(grey**3).mean((1, 2)), (grey**4).mean((1, 2))]
    for gap in (1, 2, 3, 5):
        down = (grey[:, gap:] * grey[:, :-gap]).mean((1, 2))
        right = (grey[:, :, gap:] * grey[:, :, :-gap]).mean((1, 2))
        columns += [down + right, abs(down - right)]
    return np.stack(columns, axis=1)


def linear_accuracy(features, labels):
    """Accuracy on the last third of a least-squares classifier fitted on the first two thirds."""
    features = (features - features.mean(0)) / features.std(0)
    features = np.concatenate([features, features**2, np.ones((len(labels), 1))], axis=1)
    cut = 2 * len(labels) // 3
    weights = np.linalg.lstsq(features[:cut], np.eye(CLASSES)[labels[:cut]], rcond=None)[0]
    return np.mean((features[cut:] @ weights).argmax(1) == labels[cut:])


def test_class_names_are_those_of_pathmnist():
    assert CLASSES == 9
    assert CLASS_NAMES[0] == "adipose"
    assert CLASS_NAMES[8] == "colorectal adenocarcinoma epithelium"
    drawn = [function.__name__.split("_")[-1] for function in tissue.TISSUES.values()]
    assert all(word in name for word, name in zip(drawn, CLASS_NAMES, strict=True))


@pytest.mark.parametrize("n", [0, 1, 7, 33])
def test_shape_and_type(n):
    images, labels = draw_split(n, seed=3)
    assert images.shape == (n, SIZE, SIZE, 3) and images.dtype == np.uint8
    assert labels.shape == (n,) and labels.dtype == np.int64


def test_pictures_use_the_range_of_grey_levels(small_split):
    images, _ = small_split
    assert images.min() < 40 and images.max() > 240
    assert 110 < images.mean() < 200


@pytest.mark.parametrize("seed", [5, (5, 1)])
def test_the_same_seed_gives_the_same_bytes(seed):
    first, second = draw_split(40, seed), draw_split(40, seed)
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1].tobytes() == second[1].tobytes()


def test_splits_of_different_seeds_share_no_picture():
    splits = [draw_split(300, seed)[0] for seed in (1, 2, (1, 2))]
    pictures = {picture.tobytes() for split in splits for picture in split}
    assert len(pictures) == 900


@pytest.mark.parametrize("labels", [[9], [-1], [0, 1, 12], [0.5], [[0, 1]], ["adipose"]])
def test_wrong_labels_are_refused(labels):
    with pytest.raises(ValueError, match=r"0\.\.8"):
        draw_tissue(labels, seed=0)


def test_labels_are_nearly_balanced(small_split):
    counts = np.bincount(small_split[1], minlength=CLASSES)
    assert counts.min() > 120 and counts.max() < 220  # expected 167, standard deviation 12


def test_every_picture_belongs_to_its_label(monkeypatch):
    """With one flat drawing per class, any swap of pictures or labels shows in the colours."""

    def flat(level):
        return lambda rng, n: (np.full((n, SIZE, SIZE), level, np.float32),) * 2

    monkeypatch.setattr(tissue, "TISSUES", {n: flat(0.1 * n) for n in range(CLASSES)})
    monkeypatch.setattr(tissue, "even_out", lambda rng, stain: stain)
    monkeypatch.setattr(tissue, "MIXED_SHARE", 0)
    monkeypatch.setattr(tissue, "HUE_SPREAD", 0)
    monkeypatch.setattr(tissue, "LAMP", (1, 1))
    monkeypatch.setattr(tissue, "CHUNK", 50)
    labels = np.random.default_rng(0).integers(0, CLASSES, 120)
    green = draw_tissue(labels, seed=4)[..., 1].mean((1, 2)) / 255
    density = -np.log10(green) / tissue.STAIN_VECTORS[:, 1].sum()
    assert (np.round(density * 10) == labels).all()


@pytest.mark.parametrize("label", range(CLASSES))
def test_every_class_alone_draws_varied_pictures(label):
    images = draw_tissue([label] * 12, seed=6)
    assert len({picture.tobytes() for picture in images}) == 12
    assert images.std((1, 2, 3)).min() > 1  # no empty picture, the background included


def test_progress_reaches_the_total(monkeypatch):
    monkeypatch.setattr(tissue, "CHUNK", 10)
    calls = []
    draw_split(25, seed=0, progress=calls.append)
    assert calls == [10, 10, 5]


def test_texture_tells_the_label_and_colour_averages_do_not(small_split):
    images, labels = small_split
    colour = linear_accuracy(colour_statistics(images), labels)
    texture = linear_accuracy(texture_statistics(images), labels)
    assert 0.15 < colour < 0.55
    assert texture > colour + 0.05


@settings(max_examples=15, deadline=None)
@given(
    labels=st.lists(st.integers(0, CLASSES - 1), max_size=12),
    seed=st.integers(0, 2**64),
)
def test_any_labels_and_seed_draw_the_same_pictures_twice(labels, seed):
    images = draw_tissue(np.array(labels, dtype=np.int64), seed)
    assert images.shape == (len(labels), SIZE, SIZE, 3) and images.dtype == np.uint8
    assert (images == draw_tissue(labels, seed)).all()
    if labels:
        assert (images != draw_tissue(labels, seed + 1)).any()
