"""The images of a grading: new in every call, and not to be looked up."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPO, environment

from grader.checks.images import PrivateImages, disguised
from pathlab.errors import UserError

pytestmark = pytest.mark.quick


def symmetries(image: np.ndarray) -> list[np.ndarray]:
    """An image [28, 28, 3] in all eight flips and quarter turns."""
    turned = [np.rot90(image, turn) for turn in range(4)]
    return turned + [image[:, ::-1] for image in turned]


@pytest.mark.parametrize("kind", ["synthetic", "file"])
def test_every_call_has_new_images_with_labels_that_fit(kind, tissue_npz):
    private = PrivateImages("synthetic" if kind == "synthetic" else str(tissue_npz))
    rng = np.random.default_rng(0)
    one, labels = private.tissue(rng, 50)
    other, _ = private.tissue(rng, 50)
    assert one.shape == (50, 3, 28, 28) and one.dtype == np.float32
    assert -1 <= one.min() < one.max() <= 1
    assert labels.shape == (50,) and labels.dtype == np.int64 and 0 <= labels.min() <= 8
    seen = {image.tobytes() for image in one}
    assert len(seen) == 50 and not any(image.tobytes() in seen for image in other)


def test_trainings_share_the_tissue_but_neither_boxes_nor_order():
    private, rng = PrivateImages("synthetic"), np.random.default_rng(0)
    (a, mask_a), (b, mask_b) = (private.boxes(rng, 40) for _ in range(2))
    assert a.shape == b.shape == (40, 3, 28, 28) and mask_a.shape == (40, 1, 28, 28)
    assert not np.array_equal(mask_a, mask_b)
    places = []
    for image, mask in zip(a, mask_a, strict=True):
        outside = (mask == 0) & (mask_b == 0)  # [40, 1, 28, 28]
        equal = ((image == b) | ~outside).all(axis=(1, 2, 3))
        assert equal.sum() == 1
        places.append(int(equal.argmax()))
    assert sorted(places) == list(range(40)) and places != list(range(40))


def test_a_smaller_call_draws_no_new_tissue():
    private, rng = PrivateImages("synthetic"), np.random.default_rng(0)
    private.boxes(rng, 100)
    drawn = private._behind_boxes["train"]
    private.boxes(rng, 10)
    assert private._behind_boxes["train"] is drawn and len(drawn) == 100
    assert not private._behind_boxes["val"].size  # splits are never mixed


def test_public_images_are_turned_mirrored_and_stained_anew(tissue_npz):
    private = PrivateImages(str(tissue_npz))
    originals = private.data.images["train"]
    known = {turned.tobytes() for image in originals for turned in symmetries(image)}
    images, _ = private.tissue(np.random.default_rng(0), 200)
    pixels = ((images.transpose(0, 2, 3, 1) + 1) * 127.5).round().astype(np.uint8)
    assert not any(image.tobytes() in known for image in pixels)


def test_a_disguise_moves_whole_images_and_shifts_densities_by_a_twentieth_at_most():
    rng = np.random.default_rng(0)
    originals = rng.integers(30, 230, (64, 28, 28, 3), dtype=np.uint8)
    used = set()
    for original, image in zip(originals, disguised(rng, originals), strict=True):
        density = -np.log((image.astype(float) + 1) / 256)
        for number, turned in enumerate(symmetries(original)):
            ratio = density / -np.log((turned.astype(float) + 1) / 256)
            if np.ptp(ratio, axis=(0, 1)).max() < 0.1:  # of rounding to whole grey levels
                used.add(number)
                assert np.median(ratio, axis=(0, 1)).min() > 0.94
                assert np.median(ratio, axis=(0, 1)).max() < 1.06
                break
        else:
            pytest.fail("no flip or turn of the original")
    assert used == set(range(8))


def test_gray_images_become_colour():
    gray = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    assert disguised(np.random.default_rng(1), gray).shape == (5, 28, 28, 3)


def test_the_data_set_says_how_many_classes_there_are(small_arrays, tmp_path):
    np.savez(tmp_path / "three.npz", **small_arrays)
    private = PrivateImages(str(tmp_path / "three.npz"))
    images, labels = private.tissue(np.random.default_rng(0), 30)
    assert (private.num_classes, images.shape, set(labels)) == (3, (30, 3, 28, 28), {0, 1, 2})


def test_a_single_class_is_refused_by_name(small_arrays, tmp_path):
    for split in ("train", "val", "test"):
        small_arrays[f"{split}_labels"][:] = 0
    np.savez(tmp_path / "one.npz", **small_arrays)
    with pytest.raises(UserError, match=r"2 to 100 classes, .*one.npz has 1"):
        PrivateImages(str(tmp_path / "one.npz"))


def test_a_submission_is_trained_and_scored_on_another_number_of_classes(small_arrays, tmp_path):
    for split in ("train", "val", "test"):  # three greys, which any model can learn
        greys = 40 + 70 * small_arrays[f"{split}_labels"][:, :, None]
        small_arrays[f"{split}_images"] = small_arrays[f"{split}_images"] // 8 + greys
    np.savez(tmp_path / "three.npz", **small_arrays)
    results = tmp_path / "results.json"
    arguments = ["-q", "-p", "no:cacheprovider", f"--dataset={tmp_path / 'three.npz'}"]
    test = "grader/test_part1_classification.py::test_mlp_after_100_steps"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", test, *arguments, f"--results={results}"],
        cwd=REPO,
        env=environment(),
        capture_output=True,
        text=True,
    )
    graded = json.loads(results.read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert graded["tests"][0]["status"] == "passed" and "data: three" in graded["output"]
