"""The models answer the right shapes, and each is the kind of function that it claims to be."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import classification_models as classification
import segmentation_models as segmentation

CLASSIFIERS = list(classification.MODELS)
SEGMENTERS = list(segmentation.MODELS)


def images(batch: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, 28, 28, generator=generator) * 2 - 1


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("batch", [1, 7, 32])
def test_classifiers_answer_logits(name, batch):
    model = classification.get_model(name, num_classes=5).eval()
    logits = model(images(batch))
    assert logits.shape == (batch, 5)
    assert logits.dtype == torch.float32
    assert not torch.allclose(logits.sum(dim=1), torch.ones(batch)), "these look like probabilities"


@pytest.mark.parametrize("name", SEGMENTERS)
@pytest.mark.parametrize("batch", [1, 7, 32])
def test_segmenters_answer_probabilities(name, batch):
    predicted = segmentation.get_segmentation_model(name).eval()(images(batch))
    assert predicted.shape == (batch, 1, 28, 28)
    assert predicted.dtype == torch.float32
    assert predicted.min() >= 0 and predicted.max() <= 1


@pytest.mark.parametrize(
    "make",
    [*classification.MODELS.values(), *segmentation.MODELS.values()],
    ids=lambda m: m.__name__,
)
def test_gradients_reach_every_parameter(make):
    model = make()
    (model(images(8)) ** 2).sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize(
    "make",
    [*classification.MODELS.values(), *segmentation.MODELS.values()],
    ids=lambda m: m.__name__,
)
def test_images_of_a_batch_do_not_see_each_other_in_evaluation(make):
    model, batch = make().eval(), images(6)
    together = model(batch)
    alone = torch.cat([model(image[None]) for image in batch])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_linear_models_are_linear():
    for model in (classification.LinearModel(), segmentation.LinearSegmentation()):
        a, b = images(4, seed=1), images(4, seed=2)

        def raw(x, model=model):
            answer = model(x)
            return answer if answer.ndim == 2 else torch.logit(answer)

        torch.testing.assert_close(raw((a + b) / 2), (raw(a) + raw(b)) / 2, atol=1e-4, rtol=1e-3)


def test_the_mlp_is_not_linear():
    model, a, b = classification.MLPModel(), images(4, seed=1), images(4, seed=2)
    assert not torch.allclose(model((a + b) / 2), (model(a) + model(b)) / 2, atol=1e-4)


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
    """With everything cut but one skip, the U-Net's answer still depends on the image; with that
    one cut too, it does not. The merging convolution sees the grown half first, the skip second."""
    torch.manual_seed(0)
    model = segmentation.TinyUNet().eval().double()  # far levels reach the answer faintly at first
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
def test_options_of_the_cnn_change_its_size_and_not_its_answers_shape(name, options):
    model = classification.get_model(name, **options)
    assert model(images(2)).shape == (2, 9)
    assert classification.count_parameters(model) != classification.count_parameters(
        classification.get_model(name)
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [("cnn", {"width": 8}), ("cnn", {"kernel_size": 1}), ("unet", {"kernel_size": 7})],
)
def test_options_of_segmenters_change_their_size_and_not_their_answers_shape(name, options):
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


# ---- scores and losses, against NumPy ----


def masks(seed: int, batch: int, empty_prediction: bool, empty_truth: bool):
    rng = np.random.default_rng(seed)
    predicted = rng.random((batch, 1, 28, 28)).astype(np.float32)
    true = (rng.random((batch, 1, 28, 28)) > 0.6).astype(np.float32)
    if empty_prediction:
        predicted[0] *= 0.4
    if empty_truth:
        true[0] = 0
    return predicted, true


mask_cases = given(st.integers(0, 10**6), st.integers(1, 5), st.booleans(), st.booleans())


@mask_cases
@settings(deadline=None, max_examples=50)
def test_iou_equals_numpy(seed, batch, empty_prediction, empty_truth):
    predicted, true = masks(seed, batch, empty_prediction, empty_truth)
    expected = []
    for p, t in zip(predicted > 0.5, true > 0.5, strict=True):
        union = np.logical_or(p, t).sum()
        expected.append(np.logical_and(p, t).sum() / union if union else 1.0)
    answer = segmentation.calculate_iou(torch.from_numpy(predicted), torch.from_numpy(true))
    assert isinstance(answer, float)
    assert answer == pytest.approx(np.mean(expected), abs=1e-6)


@mask_cases
@settings(deadline=None, max_examples=50)
def test_losses_equal_numpy(seed, batch, empty_prediction, empty_truth):
    predicted, true = masks(seed, batch, empty_prediction, empty_truth)
    p, t = predicted.astype(np.float64), true.astype(np.float64)
    axes = (1, 2, 3)
    for smooth in (1.0, 1e-3):
        dice = (2 * (p * t).sum(axes) + smooth) / (p.sum(axes) + t.sum(axes) + smooth)
        answer = segmentation.DiceLoss(smooth)(torch.from_numpy(predicted), torch.from_numpy(true))
        assert answer.item() == pytest.approx(1 - dice.mean(), abs=1e-5)
    dice = (2 * (p * t).sum(axes) + 1) / (p.sum(axes) + t.sum(axes) + 1)
    with np.errstate(divide="ignore"):
        logs = t * np.maximum(np.log(p), -100) + (1 - t) * np.maximum(np.log(1 - p), -100)
    expected = 0.3 * -logs.mean() + 0.7 * (1 - dice.mean())
    loss = segmentation.CombinedLoss(bce_weight=0.3, dice_weight=0.7)
    answer = loss(torch.from_numpy(predicted), torch.from_numpy(true))
    assert answer.item() == pytest.approx(expected, rel=1e-4)


def test_perfect_and_empty_masks():
    ones, zeros = torch.ones(2, 1, 28, 28), torch.zeros(2, 1, 28, 28)
    assert segmentation.calculate_iou(ones, ones) == 1.0
    assert segmentation.calculate_iou(zeros, zeros) == 1.0
    assert segmentation.calculate_iou(zeros, ones) == 0.0
    assert segmentation.DiceLoss()(zeros, zeros).item() == 0.0
    assert segmentation.calculate_iou(ones * 0.5, ones) == 0.0, "0.5 is not above the threshold"
    assert segmentation.calculate_iou(ones * 0.5, ones, threshold=0.4) == 1.0
