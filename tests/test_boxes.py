"""Boxes: where they may be, what they look like, and which ones stay the same."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from classification_dataset import to_tensor
from pathlab.data.boxes import DIFFICULTIES, draw_boxes, paint_boxes
from pathlab.data.sets import load
from synthetic_data import (
    PathMNISTBoxDataset,
    SegmentationDataGenerator,
    create_box_dataloaders,
    visualize_box_samples,
)

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def data(tissue_npz):
    return load(str(tissue_npz))


@given(st.integers(0, 10**6), st.sampled_from(DIFFICULTIES))
@settings(deadline=None, max_examples=30)
def test_a_painted_box_equals_one_drawn_by_hand(seed, difficulty):
    rng = np.random.default_rng(seed)
    images = rng.random((5, 3, 28, 28), dtype=np.float32)
    boxes = draw_boxes(5, rng, difficulty=difficulty)
    painted, masks = paint_boxes(images, boxes)
    assert painted.dtype == masks.dtype == np.float32
    for i in range(5):
        x, y, w, h = (int(v[i]) for v in (boxes.left, boxes.top, boxes.width, boxes.height))
        assert 8 <= w <= 14 and 8 <= h <= 14
        assert 0 <= x <= 28 - w and 0 <= y <= 28 - h
        image, mask = images[i].copy(), np.zeros((1, 28, 28))
        for row in range(y, y + h):
            for column in range(x, x + w):
                mask[0, row, column] = 1
                if row in (y, y + h - 1) or column in (x, x + w - 1):
                    image[:, row, column] = boxes.color[i]
        np.testing.assert_array_equal(painted[i], image)
        np.testing.assert_array_equal(masks[i], mask)


def test_sizes_and_positions_are_uniform():
    boxes = draw_boxes(70_000, np.random.default_rng(0))
    for values in (boxes.width, boxes.height):
        counts = np.bincount(values, minlength=15)[8:]
        assert ((counts - 10_000) ** 2 / 10_000).sum() < 22.5  # 6 degrees of freedom, p = 0.001
    narrow = boxes.left[boxes.width == 14]
    counts = np.bincount(narrow, minlength=15)
    assert len(counts) == 15
    expected = len(narrow) / 15
    assert ((counts - expected) ** 2 / expected).sum() < 36.1  # 14 degrees of freedom, p = 0.001


def test_colours_of_each_difficulty():
    def colours(difficulty):
        return draw_boxes(5000, np.random.default_rng(0), difficulty=difficulty).color

    published = colours("published")
    assert (np.abs(published) >= 0.7).all() and (np.abs(published) <= 1).all()
    assert 0.45 < (published > 0).mean() < 0.55
    np.testing.assert_allclose(colours("displayable"), (published + 1) / 2, atol=1e-6)
    uniform = colours("uniform")
    assert uniform.min() >= 0 and uniform.max() <= 1 and 0.48 < uniform.mean() < 0.52
    with pytest.raises(ValueError, match="unknown difficulty"):
        colours("brutal")


def test_sizes_that_cannot_be():
    for sizes in ((28, 15, 14), (28, 8, 29), (28, 2, 5)):
        with pytest.raises(ValueError, match="min_size"):
            draw_boxes(1, np.random.default_rng(0), *sizes)


def test_a_batch_has_the_contract_shapes(data):
    train, val, test, num_classes = create_box_dataloaders(data=data)
    assert num_classes == 9
    for loader, size in ((train, 32), (val, 128), (test, 128)):
        batch = next(iter(loader))
        assert batch["image"].shape == (size, 3, 28, 28) and batch["image"].dtype == torch.float32
        assert batch["mask"].shape == (size, 1, 28, 28)
        assert set(batch["mask"].unique().tolist()) == {0.0, 1.0}
        assert batch["pathmnist_label"].shape == (size,) and batch["has_box"].all()


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("split", ["train", "val"])
def test_borders_are_written_while_the_image_is_in_0_to_1(data, split, difficulty):
    """The border is the colour mapped to [-1, 1]; every other pixel is the tissue's."""
    dataset = PathMNISTBoxDataset(split, data=data, difficulty=difficulty)
    index = list(range(20))
    batch, boxes = dataset[index], dataset._boxes(0, index)
    tissue = to_tensor(np.array(data.images[split][:20]))
    ones = np.ones((20, 3, 28, 28), np.float32)
    _, masks = paint_boxes(ones, boxes)
    border = torch.from_numpy(paint_boxes(ones * 9, boxes)[0] != 9)
    assert torch.equal(batch["mask"], torch.from_numpy(masks))
    expected = torch.where(border, torch.from_numpy(boxes.color)[:, :, None, None] * 2 - 1, tissue)
    torch.testing.assert_close(batch["image"], expected, atol=1e-6, rtol=0)


def test_validation_boxes_are_the_same_whatever_the_run(data):
    def masks(seed, batch_size):
        val = create_box_dataloaders(batch_size, data=data, seed=seed)[1]
        return torch.cat([batch["mask"] for batch in val])

    assert torch.equal(masks(0, 32), masks(1, 300))
    one_by_one = torch.stack([s["mask"] for s in PathMNISTBoxDataset("val", data=data)])
    assert torch.equal(masks(0, 32), one_by_one)


def test_validation_and_test_have_other_boxes(data):
    val, test = (PathMNISTBoxDataset(split, data=data) for split in ("val", "test"))
    assert not np.array_equal(val.fixed_boxes.left, test.fixed_boxes.left)


def test_training_boxes_are_fresh_in_every_epoch(data):
    train = create_box_dataloaders(64, data=data, seed=5)[0]
    first = {tuple(b["mask"].flatten(1).sum(1).tolist()) for b in train}
    second = {tuple(b["mask"].flatten(1).sum(1).tolist()) for b in train}
    assert not first & second
    dataset = train.dataset
    here, later = dataset[0, [3, 4]], dataset[1, [3, 4]]
    assert not torch.equal(here["mask"], later["mask"])
    assert torch.equal(here["pathmnist_label"], later["pathmnist_label"])
    assert torch.equal(here["image"], dataset[[3, 4]]["image"])


def test_worker_processes_bring_the_same_boxes(data):
    loaders = [create_box_dataloaders(64, workers, data=data)[0] for workers in (0, 2)]
    for a, b in zip(*loaders, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_without_boxes_the_tissue_is_untouched(data):
    plain = PathMNISTBoxDataset("val", data=data, add_boxes=False)[[0, 1]]
    assert not plain["mask"].any() and not plain["has_box"].any()
    assert plain["image"].abs().max() <= 1


def test_transform_sees_the_finished_batch(data):
    dataset = PathMNISTBoxDataset("val", data=data, transform=lambda images: images * 0 + 7)
    assert (dataset[[0, 1]]["image"] == 7).all() and dataset[0]["image"].shape == (3, 28, 28)


def test_the_generator_draws_one_box_at_a_time():
    generator = SegmentationDataGenerator(seed=1)
    box, image = generator.generate_box(), torch.zeros(3, 28, 28)
    with_box, mask = generator.add_box_to_image(image, box)
    assert not image.any(), "the given image stays as it was"
    assert mask.shape == (1, 28, 28) and mask.sum() == box["width"] * box["height"]
    corner = with_box[:, box["y"], box["x"]]
    assert corner.tolist() == pytest.approx(list(box["color"]))
    assert SegmentationDataGenerator(seed=1).generate_box() == box
    assert generator.generate_box() != box


def test_the_samples_picture(data, tmp_path):
    visualize_box_samples(PathMNISTBoxDataset("val", data=data), 4, tmp_path / "boxes.png")
    assert (tmp_path / "boxes.png").read_bytes().startswith(b"\x89PNG")
