"""The cervical system: blocks against computations by hand, data, both stages, mistakes."""

import json
import shutil
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import real_data
from PIL import Image

import pathlab.torchvision_import  # noqa: F401  (before Lightning, which imports torchvision)

pytest.importorskip("lightning")
pytest.importorskip("timm")

from capstones import cervical, drawings
from capstones.cervical_models import (
    AttentionGate,
    ConvNeXtAttentionClassifier,
    DecoderLevel,
    DualHeadAttConvNeXtUNet,
    SelfAttention,
)
from capstones.cervical_scores import count_pixels, overlap_scores
from capstones.cervical_stages import Classification, Segmentation, cosine, dice_and_bce
from capstones.masks import mask_paths, read_masks
from pathlab.errors import UserError

TINY = ["--no-pretrained", "--backbone", "test_convnext", "--image-size", "32"]
TINY += ["--batch-size", "4", "--folds", "3"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def weights(module) -> dict[str, np.ndarray]:
    return {name: value.detach().double().numpy() for name, value in module.state_dict().items()}


@pytest.fixture
def draw(tmp_path):
    """A function that draws n cells in tmp_path/data and returns that folder."""

    def make(n=30, size=32):
        drawings.draw_cervical(tmp_path / "data", n, size)
        return tmp_path / "data"

    return make


def run_main(*arguments):
    cervical.main([str(argument) for argument in arguments])


# Blocks


def test_attention_gate_by_hand():
    torch.manual_seed(0)
    block = AttentionGate(3, 4)
    gate, skip = torch.randn(2, 3, 5, 6), torch.randn(2, 4, 5, 6)
    w = {name: value.squeeze() for name, value in weights(block).items()}
    g, x = gate.double().numpy(), skip.double().numpy()
    both = np.einsum("oc,bchw->bohw", w["from_gate.weight"], g)
    both += w["from_gate.bias"][None, :, None, None]
    both += np.einsum("oc,bchw->bohw", w["from_skip.weight"], x)
    alpha = sigmoid(np.einsum("o,bohw->bhw", w["psi.weight"], both.clip(0)) + w["psi.bias"])
    np.testing.assert_allclose(block(gate, skip).detach(), alpha[:, None] * x, atol=1e-5)


def test_attention_gate_closes_and_opens():
    block, skip = AttentionGate(2, 2), torch.ones(1, 2, 3, 3)
    for bias, expected in ((-50.0, 0.0), (50.0, 1.0)):
        block.psi.bias.data.fill_(bias)
        torch.testing.assert_close(block(torch.zeros(1, 2, 3, 3), skip), skip * expected)


def test_cbam_of_a_decoder_by_hand():
    """Average and maximum through one MLP that divides the channels by 16, then over the space."""
    torch.manual_seed(0)
    block = DecoderLevel(8, 8, 32).convolutions[-1].eval()
    x = torch.randn(2, 32, 9, 9)
    w, a = weights(block), x.double().numpy()
    first, second = (w[f"channel.fc{i}.weight"][..., 0, 0] for i in (1, 2))
    assert first.shape == (2, 32)

    def mlp(pooled):
        return (pooled @ first.T).clip(0) @ second.T

    a = a * sigmoid(mlp(a.mean((2, 3))) + mlp(a.max((2, 3))))[..., None, None]
    pooled = np.pad(np.stack([a.mean(1), a.max(1)], 1), ((0, 0), (0, 0), (3, 3), (3, 3)))
    windows = np.lib.stride_tricks.sliding_window_view(pooled, (7, 7), axis=(2, 3))
    spatial = np.einsum("bchwij,cij->bhw", windows, w["spatial.conv.conv.weight"][0])
    spatial /= np.sqrt(1 + block.spatial.conv.bn.eps)  # a batch norm that has seen nothing
    np.testing.assert_allclose(block(x).detach(), a * sigmoid(spatial)[:, None], atol=1e-5)


def test_squeeze_and_excitation_by_hand():
    torch.manual_seed(0)
    block = ConvNeXtAttentionClassifier("test_convnext", 5, 3, pretrained=False).squeeze
    x = torch.randn(2, 64, 3, 4)
    w, a = weights(block), x.double().numpy()
    assert w["fc1.weight"].shape == (4, 64, 1, 1)  # reduction 16
    hidden = (a.mean((2, 3)) @ w["fc1.weight"][..., 0, 0].T + w["fc1.bias"]).clip(0)
    scale = sigmoid(hidden @ w["fc2.weight"][..., 0, 0].T + w["fc2.bias"])
    np.testing.assert_allclose(block(x).detach(), a * scale[..., None, None], atol=1e-5)


def test_self_attention_by_hand():
    """Four heads over the pieces of a vector, then the vector itself and layer norm."""
    torch.manual_seed(0)
    block = SelfAttention(64, tokens=4).eval()
    x = torch.randn(3, 64)
    w, a = weights(block), x.double().numpy()
    pieces = a.reshape(3, 4, 16)
    projected = pieces @ w["attention.in_proj_weight"].T + w["attention.in_proj_bias"]
    q, k, v = (part.reshape(3, 4, 4, 4) for part in np.split(projected, 3, axis=-1))
    scores = np.exp(np.einsum("bqhd,bkhd->bhqk", q, k) / 2)  # sqrt of 4, a head's width
    mixed = np.einsum("bhqk,bkhd->bqhd", scores / scores.sum(-1, keepdims=True), v)
    mixed = mixed.reshape(3, 4, 16) @ w["attention.out_proj.weight"].T
    summed = a + (mixed + w["attention.out_proj.bias"]).reshape(3, 64)
    centred = summed - summed.mean(1, keepdims=True)
    expected = centred / np.sqrt(summed.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(block(x).detach(), expected, atol=1e-5)


# Networks


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return DualHeadAttConvNeXtUNet("test_convnext", pretrained=False)


@pytest.mark.parametrize("height, width", [(32, 32), (64, 96), (50, 71)])
def test_unet_keeps_the_size_of_any_image(unet, height, width):
    assert unet.eval()(torch.rand(1, 3, height, width)).shape == (1, 2, height, width)


def test_unet_is_the_documented_one():
    model = DualHeadAttConvNeXtUNet("convnext_tiny", pretrained=False)
    assert model.encoder.feature_info.channels() == [96, 192, 384, 768]
    assert list(model.decoders) == ["cytoplasm", "nucleus"]
    for decoder in model.decoders.values():
        assert [level.convolutions[3].out_channels for level in decoder.levels] == [256, 128, 64]
        assert [level.gate.from_skip.in_channels for level in decoder.levels] == [384, 192, 96]
        assert [level.convolutions[-1].channel.fc1.out_channels for level in decoder.levels] == [
            16,
            8,
            4,
        ]


def test_classifier_is_the_documented_one():
    model = ConvNeXtAttentionClassifier("convnext_tiny", 5, 5, pretrained=False).eval()
    assert model.backbone.stem[0].in_channels == 5
    assert model.squeeze.fc1.in_channels == 768 and model.squeeze.fc1.out_channels == 48
    linears = [part for part in model.head if isinstance(part, torch.nn.Linear)]
    assert [(part.in_features, part.out_features) for part in linears] == [
        (768, 512),
        (512, 256),
        (256, 5),
    ]
    assert [part.p for part in model.head if isinstance(part, torch.nn.Dropout)] == [0.4, 0.3]
    assert model.head[4].attention.num_heads == 4
    with torch.no_grad():
        assert model(torch.rand(2, 5, 64, 64)).shape == (2, 5)


@pytest.mark.parametrize("head", [0, 1])
def test_each_head_learns_from_its_own_loss_alone(unet, head):
    unet.train().zero_grad()
    targets = torch.zeros(2, 2, 32, 32)
    targets[:, :, 8:20, 8:20] = 1
    dice_and_bce(unet(torch.rand(2, 3, 32, 32)), targets)[head].backward()
    own, other = list(unet.decoders.values())[:: 1 - 2 * head]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in own.parameters())
    assert own.levels[0].convolutions[0].weight.grad.abs().sum() > 0
    assert all(p.grad is None or not p.grad.any() for p in other.parameters())
    assert unet.encoder.stem_0.weight.grad.abs().sum() > 0


def test_a_backbone_with_other_strides_is_refused():
    with pytest.raises(UserError, match=r"strides \[.*convnext_tiny"):
        DualHeadAttConvNeXtUNet("test_vit", pretrained=False)


# Loss and scores


def test_dice_and_bce_by_hand():
    p = np.array([[[0.9, 0.2], [0.6, 0.5]], [[0.3, 0.8], [0.1, 0.4]]])  # two heads, 2 x 2
    t = np.array([[[1, 0], [1, 0]], [[0, 1], [0, 0]]])
    dice = (2 * (p * t).sum((1, 2)) + 1) / ((p + t).sum((1, 2)) + 1)
    np.testing.assert_allclose(dice[0], (2 * 1.5 + 1) / (2.2 + 2 + 1))
    bce = -np.where(t == 1, np.log(p), np.log(1 - p)).mean((1, 2))
    logits = torch.tensor(np.log(p / (1 - p)))[None]
    loss = dice_and_bce(logits, torch.tensor(t)[None])
    np.testing.assert_allclose(loss, 1 - dice + bce, atol=1e-5)


def test_loss_of_an_empty_mask_that_is_found_empty_is_zero():
    loss = dice_and_bce(torch.full((2, 2, 8, 8), -50.0), torch.zeros(2, 2, 8, 8))
    torch.testing.assert_close(loss, torch.zeros(2), atol=1e-6, rtol=0)


def test_overlap_by_hand_and_of_empty_masks():
    masks, truth = torch.zeros(2, 2, 4, 5), torch.zeros(2, 2, 4, 5)
    masks[0, 0, 0, :4] = 1  # 4 pixels, 3 of them right, 2 missed, 20 in all
    truth[0, 0, 0, 1:] = 1
    truth[0, 0, 1, 0] = 1
    masks[0, 1, 0, 0] = 1  # where there is nothing
    truth[1, 0, 0, 0] = 1  # nothing where there is something; and nothing in both in [1, 1]
    counts = count_pixels(masks, truth)
    assert counts.tolist() == [
        [[3, 1, 14, 2], [0, 1, 19, 0]],
        [[0, 0, 19, 1], [0, 0, 20, 0]],
    ]
    scores = overlap_scores(counts)
    np.testing.assert_allclose(scores["dice"], [[6 / 9, 0], [0, 1]])
    np.testing.assert_allclose(scores["iou"], [[3 / 6, 0], [0, 1]])
    np.testing.assert_allclose(scores["pixel_accuracy"], [[17 / 20, 0.95], [0.95, 1]])
    assert count_pixels(masks[:1], truth[:1]).shape == (1, 2, 4)  # also for a batch of one


def test_cosine_falls_from_the_learning_rate_and_takes_a_new_length_when_resumed():
    def rates(epochs, start=0, state=None):
        optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=0.2)
        schedule = cosine(optimizer, epochs)
        if state:
            schedule.load_state_dict(state)
        found = []
        for _ in range(start, epochs):
            found.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        return found, schedule.state_dict()

    found, state = rates(4)
    np.testing.assert_allclose(found, 0.1 * (1 + np.cos(np.pi * np.arange(4) / 4)))
    longer, _ = rates(8, start=4, state=state)
    np.testing.assert_allclose(longer[1:], 0.1 * (1 + np.cos(np.pi * np.arange(5, 8) / 8)))


# Data


def save_mask(path, values):
    Image.fromarray(np.array(values, dtype=np.uint8)).save(path)
    return path


def test_mask_values(tmp_path):
    path = save_mask(tmp_path / "mask.png", [[0, 128, 255], [255, 0, 128]])
    ring, cell = read_masks([path], "ring"), read_masks([path], "cell")
    assert ring.tolist() == [[[0, 1, 0], [0, 0, 1]], [[0, 0, 1], [1, 0, 0]]]
    assert cell.tolist() == [[[0, 1, 1], [1, 0, 1]], [[0, 0, 1], [1, 0, 0]]]


def test_a_few_stray_values_count_as_the_nearest(tmp_path):
    values = np.zeros((20, 20))
    values[0, :4] = 7, 120, 250, 128
    found = read_masks([save_mask(tmp_path / "mask.png", values)], "ring")
    assert found[:, 0, :5].tolist() == [[0, 1, 0, 1, 0], [0, 0, 1, 0, 0]]


def test_masks_move_with_their_image(tmp_path):
    """The brightness of these images is their masks: so they remain after any movement."""
    values = np.zeros((40, 48))
    values[12:28, 14:34], values[16:24, 20:28] = 128, 255
    path = save_mask(tmp_path / "cell.png", values)
    transform = Segmentation().transform({"image_size": 64, "cytoplasm": "ring"}, augment=True)
    transform.colour = torch.nn.Identity()
    torch.manual_seed(0)
    for _ in range(8):
        image, masks = transform((path, path))
        assert image.shape == (3, 64, 64) and masks.shape == (2, 64, 64)
        shade = (image[0] * 0.229 + 0.485) * 255
        expected = 128 * masks[0] + 255 * masks[1]
        assert (shade - expected)[masks.sum(0) > 0.2].abs().max() < 4
        assert masks.sum(0)[shade > 130].all()  # brighter than the colour that fills the corners
        assert 0.05 < masks[0].mean() < 0.5


def test_classification_items_have_five_channels_or_three(tmp_path):
    path = save_mask(tmp_path / "cell.png", np.full((9, 9), 255))
    settings = {"image_size": 32, "cytoplasm": "ring", "classes": ["a", "b", "c"]}
    samples = pd.DataFrame({"images": [(path, path), (path,)], "label": pd.Categorical(["c", "a"])})
    (five, label), (three, _) = Classification().dataset(samples, settings)
    assert five.shape == (5, 32, 32) and label == 2
    assert five[3].eq(0).all() and five[4].eq(1).all()
    assert three.shape == (3, 32, 32)


def samples_of(labels):
    names = [f"{i:03}" for i in range(len(labels))]
    return pd.DataFrame({"label": pd.Categorical(labels)}, index=names)


def test_folds_are_disjoint_stratified_and_complete():
    samples = samples_of(["a"] * 40 + ["b"] * 28 + ["c"] * 12)
    held_out = []
    for fold in range(4):
        args = Namespace(fold=fold, folds=4, test=True, seed=0)
        divided = cervical.Cervical().divide(args, samples)
        count = divided.groupby("part", observed=True)["label"].value_counts(sort=False)
        assert count["training"].tolist() == [20, 14, 6]
        assert count["validation"].tolist() == count["test"].tolist() == [10, 7, 3]
        held_out.append({p: set(divided.index[divided.part == p]) for p in ("validation", "test")})
    assert set().union(*(each["test"] for each in held_out)) == set(samples.index)
    assert all(held_out[i]["test"] == held_out[(i + 1) % 4]["validation"] for i in range(4))


def test_small_classes_are_named_and_can_be_left_out():
    samples = samples_of(["1"] * 9 + ["2"] * 8 + ["5"])
    args = Namespace(folds=4, smallest_class=1)
    with pytest.raises(UserError, match=r"the class 5 has 1 image.*--smallest-class 4"):
        cervical.large_classes(samples, args)
    args.smallest_class = 4
    assert cervical.large_classes(samples, args) == ["1", "2"]
    with pytest.raises(UserError, match="only the class 1"):
        cervical.large_classes(samples_of(["1"] * 9), args)


# Mistakes, found before anything is trained or written


def spoil(data, what):
    masks, table = data / "masks", data / "labels.csv"
    rows = pd.read_csv(table)
    if what == "image without a mask":
        (masks / "cell_0003.png").unlink()
    elif what == "mask without an image":
        shutil.copy(masks / "cell_0003.png", masks / "other.png")
    elif what == "mask of another size":
        save_mask(masks / "cell_0003.png", np.zeros((20, 30)))
    elif what == "wrong values":
        save_mask(masks / "cell_0003.png", np.arange(32 * 32).reshape(32, 32) % 3)
    elif what == "damaged mask":
        (masks / "cell_0003.png").write_bytes(b"no image")
    elif what == "label missing":
        rows["label"] = [None, *rows["label"][1:]]
    elif what == "one class":
        rows["label"] = 1
    elif what == "small class":
        rows.loc[0, "label"] = 7
    rows.to_csv(table, index=False)


@pytest.mark.parametrize(
    "stage, what, message",
    [
        ("segment", "image without a mask", "lacks masks/cell_0003"),
        ("segment", "mask without an image", "lacks images/other"),
        ("segment", "mask of another size", r"30 x 20 pixels.*its image 32 x 32"),
        ("segment", "wrong values", r"the value 1, 2: expected 0.*128.*255"),
        ("segment", "damaged mask", "cell_0003.png cannot be read as an image"),
        ("segment", "label missing", "line 2: the label is empty"),
        ("classify", "one class", "only the class 1"),
        ("classify", "small class", r"the class 7 has 1 image.*--smallest-class 3"),
        ("train", "small class", r"the class 7 has 1 image.*--smallest-class 3"),
    ],
)
def test_mistakes_in_the_data(draw, tmp_path, stage, what, message):
    data = draw()
    spoil(data, what)
    flags = ["--folds", "3", "--no-pretrained"] if stage == "train" else TINY
    flags = [*flags, *(["--masks", "none"] if stage == "classify" else [])]
    with pytest.raises(UserError, match=message):
        run_main(stage, "--data", data, "--run", tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--fold", "3"], "no --fold 3"),
        (["--folds", "2", "--test"], "--folds from 3"),
        (["--folds", "20"], "cannot be split into 20 folds"),
    ],
)
def test_mistakes_in_the_flags(draw, tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        run_main("segment", "--data", draw(), "--run", tmp_path / "run", *TINY, *flags)


def test_train_finds_a_mistake_in_the_flags_of_either_stage_first(draw, tmp_path, capsys):
    for flag in ("--segment-with", "--classify-with"):
        with pytest.raises(SystemExit):
            run_main("train", "--data", draw(), "--run", tmp_path / "run", flag, "--epochs none")
        assert "argument --epochs: 'none' is not a whole number" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_train_can_be_repeated_when_it_could_not_begin(draw, tmp_path):
    flags = ["--data", draw(), "--run", tmp_path / "run", "--backbone", "test_vit"]
    for _ in range(2):
        with pytest.raises(UserError, match="a U-Net needs"):
            run_main("train", *flags, "--no-pretrained")
        assert not (tmp_path / "run").exists()


def test_stage_two_needs_stage_one(draw, tmp_path):
    with pytest.raises(UserError, match=r"segmentation_best.pth: train first"):
        run_main("classify", "--data", draw(), "--run", tmp_path / "run", *TINY)
    with pytest.raises(UserError, match=r"segmentation_best.pth: train first"):
        run_main("evaluate", "--data", tmp_path / "data", "--run", tmp_path / "run")


# Runs


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of a complete demo."""
    folder = tmp_path_factory.mktemp("cervical") / "demo"
    cervical.main(["demo", "--output", str(folder)])
    return folder


@pytest.mark.slow  # needs the whole demo
def test_demo_is_clearly_better_than_chance(demo):
    scores = json.loads((demo / "run/evaluation/evaluation.json").read_text())
    segmentation, classification = scores["segmentation"], scores["classification"]
    assert segmentation["images"] == classification["images"] == 38
    assert segmentation["cytoplasm"]["dice"] > 0.85 and segmentation["nucleus"]["dice"] > 0.75
    for head in ("cytoplasm", "nucleus"):
        assert segmentation[head]["iou"] < segmentation[head]["dice"]
        assert segmentation[head]["pixel_accuracy"] > 0.9
    assert classification["accuracy"] > 0.5 and classification["auroc"] > 0.8  # chance: 0.2, 0.5


@pytest.mark.slow  # needs the whole demo
def test_demo_writes_what_the_readme_promises(demo):
    for path in (
        "checkpoints/segmentation_best.pth",
        "checkpoints/classification_best.pth",
        "logs/segmentation/metrics.csv",
        "logs/classification/metrics.csv",
        "evaluation/classification_confusion.png",
        "evaluation/segmentation.png",
        "predictions/predictions.csv",
        "split.csv",
    ):
        assert (demo / "run" / path).stat().st_size > 0, path
    table = pd.read_csv(demo / "run/predictions/predictions.csv")
    probabilities = table[[f"probability_{stage}" for stage in range(5)]].to_numpy()
    assert len(table) == 150
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-4)
    assert (table.predicted == probabilities.argmax(1)).all()


@pytest.mark.slow  # needs the whole demo
def test_scores_are_those_of_the_masks_on_disk(demo):
    scores = json.loads((demo / "run/evaluation/evaluation.json").read_text())["segmentation"]
    split = pd.read_csv(demo / "run/split.csv")
    dice = []
    for name in split.image[split.part == "validation"]:
        truth = np.array(Image.open(demo / "data/masks" / f"{name}.png"))
        mask = np.array(Image.open(demo / "run/evaluation/masks" / f"{name}_nucleus.png"))
        both = ((mask == 255) & (truth == 255)).sum()
        dice.append(2 * both / ((mask == 255).sum() + (truth == 255).sum()))
    np.testing.assert_allclose(scores["nucleus"]["dice"], np.mean(dice))


@pytest.mark.slow  # needs the whole demo
def test_the_classifier_saw_the_masks_that_stage_one_predicts(demo):
    names = [path.stem for path in sorted((demo / "data/images").iterdir())]
    exported = demo / "run/outputs/masks"
    assert len(list(exported.iterdir())) == 2 * len(names)
    for name in names[::50]:
        assert read_masks(mask_paths(exported, name)).unique().tolist() == [0, 1]
        for path, again in zip(
            mask_paths(exported, name),
            mask_paths(demo / "run/predictions/masks", name),
            strict=True,
        ):
            assert path.read_bytes() == again.read_bytes()


@pytest.mark.slow  # needs the whole demo
def test_masks_have_their_images_own_sizes(demo, tmp_path):
    sizes = {"wide": (90, 50), "tiny": (10, 12)}
    (tmp_path / "new").mkdir()
    for name, size in sizes.items():
        Image.open(demo / "data/images/cell_0000.png").resize(size).save(
            tmp_path / "new" / f"{name}.png"
        )
    shutil.copytree(demo / "run", tmp_path / "run")
    run_main("predict", "--data", tmp_path / "new", "--run", tmp_path / "run")
    for name, size in sizes.items():
        for path in mask_paths(tmp_path / "run/predictions/masks", name):
            with Image.open(path) as mask:
                assert mask.size == size
                assert set(np.unique(mask)) <= {0, 255}


@pytest.mark.slow  # needs the whole demo
def test_stage_two_refuses_another_split(demo):
    flags = ["--masks", "none", "--folds", "4", "--no-pretrained", "--backbone", "test_convnext"]
    with pytest.raises(UserError, match=r"split.csv was made from other images, or by other flags"):
        run_main("classify", "--data", demo / "data", "--run", demo / "run", *flags, "--fold", "1")


def test_train_does_both_stages_and_leaves_a_small_class_out(draw, tmp_path):
    data, run = draw(25), tmp_path / "run"
    table = pd.read_csv(data / "labels.csv")
    table["label"] = [9, *(table["label"][1:] % 2)]
    table.to_csv(data / "labels.csv", index=False)
    small = "--epochs 1 --image-size 32 --batch-size 8"
    flags = ["--folds", "3", "--test", "--no-pretrained", "--backbone", "test_convnext"]
    flags += ["--smallest-class", "3", "--segment-with", small, "--classify-with"]
    run_main("train", "--data", data, "--run", run, *flags, f"{small} --masks true")
    run_main("evaluate", "--data", data, "--run", run, "--part", "all")
    scores = json.loads((run / "evaluation/evaluation.json").read_text())
    assert scores["segmentation"]["images"] == 25
    assert scores["classification"]["images"] == 24
    assert list(scores["classification"]["classes"]) == ["0", "1"]
    with pytest.raises(UserError, match="trained with true masks"):
        run_main("predict", "--data", data / "images", "--run", run)

    before = (run / "checkpoints/segmentation_last.ckpt").stat().st_mtime_ns
    run_main("train", "--run", run, "--data", data, "--resume")
    assert (run / "checkpoints/segmentation_last.ckpt").stat().st_mtime_ns == before
    assert len(pd.read_csv(run / "logs/classification/metrics.csv")) == 1


def test_real_masks_are_read():
    folder = real_data("wbc/dataset1/labels.csv").parent
    for i in (1, 150, 300):
        cytoplasm, nucleus = read_masks([folder / "masks" / f"{i:03}.png"], "ring")
        assert not (cytoplasm & nucleus).any() and cytoplasm.any() and nucleus.any()
