"""What only the reference models promise; what every submission must do, the grader checks."""

import shutil

import pytest
import torch
from conftest import REPO
from grading import MODULES, NOT_FAST, grade

import classification_models as classification
import segmentation_models as segmentation


def images(batch: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, 28, 28, generator=generator) * 2 - 1


def test_the_reference_passes_every_graded_test_that_needs_no_long_training(tmp_path):
    folder = tmp_path / "submission"
    folder.mkdir()
    for name in MODULES:
        shutil.copy(REPO / name, folder)
    tests = grade(folder)
    failed = {number: test["output"] for number, test in tests.items() if test["score"] == 0}
    assert set(failed) == NOT_FAST, failed


def test_parameter_counts_by_hand():
    count = classification.count_parameters
    assert count(classification.LinearModel()) == 2352 * 9 + 9
    mlp = (2352 * 512 + 512) + (512 * 256 + 256) + (256 * 9 + 9)
    assert count(classification.MLPModel()) == mlp
    model = classification.LinearModel()
    model.classifier.bias.requires_grad_(False)
    assert count(model) == 2352 * 9
    assert segmentation.count_parameters(segmentation.LinearSegmentation()) == 2352 * 784 + 784


def test_the_cnn_counts_what_it_sees_not_where():
    """A pattern moved by the pooling's stride of 4 pixels gives nearly the same logits."""
    torch.manual_seed(0)
    model = classification.CNNModel().eval()
    here = torch.zeros(8, 3, 28, 28)
    here[:, :, 8:16, 8:16] = images(8)[:, :, :8, :8]
    there = here.roll((4, 4), dims=(2, 3))
    torch.testing.assert_close(model(here), model(there), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_each_unet_skip_carries_information(level):
    """With everything cut but one skip, the U-Net's output still depends on the image; with that
    one cut too, it does not. The merging convolution sees the grown half first, the skip second."""
    torch.manual_seed(0)
    model = segmentation.TinyUNet().eval().double()  # far levels reach the output faintly at first
    merges = {1: model.up1[0], 2: model.up2[0], 3: model.up3[0]}
    grows = {1: model.grow1, 2: model.grow2, 3: model.grow3}

    def difference() -> float:
        first, second = (model(images(2, seed=seed).double()).logit() for seed in (1, 2))
        return (first - second).abs().max().item()

    with torch.no_grad():
        grows[level].weight.zero_()
        for other, merge in merges.items():
            if other < level:
                merge.weight[:, merge.in_channels // 2 :] = 0
        assert difference() > 1e-7
        merges[level].weight[:, merges[level].in_channels // 2 :] = 0
        assert difference() == 0


def test_unet_width_follows_base_channels():
    count = segmentation.count_parameters
    assert count(segmentation.TinyUNet(base_channels=8)) < count(segmentation.TinyUNet()) / 3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cnn", {"width": 8}),
        ("cnn", {"depth": 2}),
        ("cnn", {"depth": 5}),
        ("cnn", {"kernel_size": 5}),
    ],
)
def test_options_of_the_cnn_change_its_size_and_not_its_output(name, options):
    model = classification.get_model(name, **options)
    assert model(images(2)).shape == (2, 9)
    assert classification.count_parameters(model) != classification.count_parameters(
        classification.get_model(name)
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [("cnn", {"width": 8}), ("cnn", {"kernel_size": 1}), ("unet", {"kernel_size": 7})],
)
def test_options_of_segmenters_change_their_size_and_not_their_output(name, options):
    model = segmentation.get_segmentation_model(name, **options)
    assert model(images(2)).shape == (2, 1, 28, 28)
    assert segmentation.count_parameters(model) != segmentation.count_parameters(
        segmentation.get_segmentation_model(name)
    )


def test_a_unet_without_skips_knows_only_what_came_through_the_bottom():
    """The same weights; 3x3 positions of the bottom, and no detail."""
    torch.manual_seed(0)
    model = segmentation.TinyUNet(skips=False).eval()
    with_skips = segmentation.TinyUNet().eval()
    with_skips.load_state_dict(model.state_dict())
    assert not torch.equal(model(images(2)), with_skips(images(2)))
    with torch.no_grad():
        model.bottom[0].weight.zero_()
        one, other = model(images(1, seed=1)), model(images(1, seed=2))
    torch.testing.assert_close(one, other, atol=0, rtol=0)


@pytest.mark.parametrize("get", [classification.get_model, segmentation.get_segmentation_model])
def test_unknown_names_are_refused_with_the_choices(get):
    with pytest.raises(ValueError, match=r"resnet.*linear"):
        get("resnet")


def test_perfect_and_empty_masks():
    ones, zeros = torch.ones(2, 1, 28, 28), torch.zeros(2, 1, 28, 28)
    assert segmentation.calculate_iou(ones, ones) == 1.0
    assert segmentation.calculate_iou(zeros, zeros) == 1.0
    assert segmentation.calculate_iou(zeros, ones) == 0.0
    assert segmentation.DiceLoss()(zeros, zeros).item() == 0.0
    assert segmentation.calculate_iou(ones * 0.5, ones) == 0.0, "0.5 is not above the threshold"
    assert segmentation.calculate_iou(ones * 0.5, ones, threshold=0.4) == 1.0
