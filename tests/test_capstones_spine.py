"""The spine ensemble: its arithmetic by hand, its data, its runs, its errors."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace

import numpy as np
import pytest

import capstones  # noqa: F401  (first: Lightning imports torchvision)

pytest.importorskip("lightning")
pytest.importorskip("timm")

import pandas as pd
import torch
from conftest import REPO, environment
from PIL import Image
from sklearn.metrics import f1_score, recall_score, roc_auc_score
from torch import nn

from capstones import drawings, network, spine, spine_networks, spine_scores
from capstones.checkpoints import load_best
from capstones.classifier import Classifier
from capstones.splits import divide
from pathlab.errors import UserError

TINY = ["--no-pretrained", "--image-size", "32", "--batch-size", "8", "--epochs", "2"]
TINY += ["--accelerator", "cpu"]
NETWORKS = "test_resnet,test_byobnet,test_resnet"


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of the demo: data/ and run/."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("spine") / "demo"
    spine.main(["demo", "--output", str(folder)])
    return folder


@pytest.fixture
def data(tmp_path):
    """40 drawn images of 32 x 32: 24 / 8 / 8, half of each with a pathology."""
    rng, rows = np.random.default_rng(0), []
    for i in range(40):
        name = f"x{i:02}.png"
        picture = drawings.draw_spine(rng, 32, sick=i % 2 == 1)
        drawings.save(tmp_path / "data" / "images" / name, picture)
        part = "train" if i < 24 else "val" if i < 32 else "test"
        rows.append((name, ("No finding", "Pathology")[i % 2], part))
    write_rows(tmp_path / "data", rows)
    return tmp_path / "data"


def write_rows(folder, rows, columns=("image", "label", "split")):
    pd.DataFrame(rows, columns=columns[: len(rows[0])]).to_csv(folder / "labels.csv", index=False)


def read_rows(folder):
    return list(pd.read_csv(folder / "labels.csv", dtype=str).itertuples(index=False, name=None))


def save_npz(folder, path):
    """The same images and labels in the MedMNIST layout, of 28 x 28 pixels; returns the arrays."""
    rows = read_rows(folder)
    arrays = {}
    for part in ("train", "val", "test"):
        chosen = [row for row in rows if row[2] == part]
        pictures = [Image.open(folder / "images" / name).resize((28, 28)) for name, *_ in chosen]
        arrays[f"{part}_images"] = np.stack([np.array(picture) for picture in pictures])
        arrays[f"{part}_labels"] = np.array([[row[1] == "Pathology"] for row in chosen], np.uint8)
    np.savez(path, **arrays)
    return arrays


def load(data, **flags):
    """The samples of a folder or archive, as a training reads them."""
    return spine.Spine().read(Namespace(data=data, run=None, **flags))


def fails(match, *arguments):
    with pytest.raises(UserError, match=match):
        spine.main([str(a) for a in arguments])


def train_fails(match, data, run, *more):
    """The training is refused before it starts: no checkpoint."""
    fails(match, "train", "--data", data, "--run", run, "--model", "resnet50", *TINY, *more)
    assert not list(run.glob("checkpoints/*"))


# Arithmetic


def test_threshold_by_hand():
    # 0.4 and 0.5 are positive. F1 is 1 from 0.391 to 0.4, the first of which wins; below, 0.39 is
    # a false alarm: 2 * 2 / (3 + 2) = 0.8.
    found = spine_scores.find_threshold(np.array([0.1, 0.39, 0.4, 0.5]), [0, 0, 1, 1])
    assert found == (0.391, 1.0)


def test_threshold_is_a_half_where_nothing_is_found():
    assert spine_scores.find_threshold(np.array([0.1, 0.9]), [1, 0])[1] == 0
    assert spine_scores.find_threshold(np.array([0.1, 0.9]), [1, 0])[0] == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_threshold_against_the_documented_loop(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 60)
    probabilities = (0.45 + 0.1 * labels + 0.1 * rng.normal(size=60)).clip(0, 1)
    best_f1, best_threshold = 0, 0.5
    for i in range(250):
        tau = 0.35 + i * 0.001
        f1 = f1_score(labels, (probabilities >= tau).astype(int), zero_division=0)
        if f1 > best_f1:
            best_f1, best_threshold = f1, tau
    threshold, f1 = spine_scores.find_threshold(probabilities, labels)
    assert threshold == pytest.approx(best_threshold, abs=1e-9)
    assert f1 == pytest.approx(best_f1)


def test_thresholds_are_those_of_the_document():
    documented = np.arange(0.35, 0.60, 0.001)
    assert len(spine_scores.THRESHOLDS) == 250
    np.testing.assert_allclose(spine_scores.THRESHOLDS, documented[:250], atol=1e-9)


def test_weighted_average_by_hand():
    probabilities = {"a": np.array([0.2, 0.8]), "b": np.array([0.6, 0.0])}
    average = spine_scores.weighted_average(probabilities, {"a": 3, "b": 1})
    np.testing.assert_allclose(average, [0.3, 0.6])


def test_weights_by_hand():
    labels = np.array([0, 0, 1, 1])
    right, wrong = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.4, 0.3, 0.2, 0.1])
    # Both right: every average is, and halves are the most even. One wrong: 0.5 ties, 0.6 is right.
    both = spine_scores.find_weights({"a": right, "b": right**2}, labels)
    assert both == {"a": 0.5, "b": 0.5}
    one = spine_scores.find_weights({"a": wrong, "b": right}, labels)
    assert one == {"a": 0.4, "b": 0.6}
    assert spine_scores.find_weights({"a": wrong}, labels) == {"a": 1.0}


SKILLS = (0.2, 0.5, 0.8)


@pytest.mark.parametrize("seed", range(3))
def test_weights_against_all_weights(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 50)
    members = {
        name: labels * skill + rng.random(50) for name, skill in zip("abc", SKILLS, strict=True)
    }
    best = max(
        roc_auc_score(
            labels, (i * members["a"] + j * members["b"] + (10 - i - j) * members["c"]) / 10
        )
        for i in range(11)
        for j in range(11 - i)
    )
    weights = spine_scores.find_weights(members, labels)
    found = roc_auc_score(labels, spine_scores.weighted_average(members, weights))
    assert sum(weights.values()) == pytest.approx(1) and found == pytest.approx(best)
    assert found >= max(roc_auc_score(labels, p) for p in members.values())


def test_scores_against_scikit_learn():
    rng = np.random.default_rng(1)
    labels, probabilities = rng.integers(0, 2, 80), rng.random(80).round(1)  # with ties
    predicted = probabilities >= 0.4
    assert spine_scores.scores(probabilities, labels, 0.4) == pytest.approx(
        {
            "auroc": roc_auc_score(labels, probabilities),
            "sensitivity": recall_score(labels, predicted),
            "specificity": recall_score(labels, predicted, pos_label=0),
            "f1_score": f1_score(labels, predicted),
        }
    )


def test_bootstrap_interval_of_sensitivity_is_binomial():
    # Of 40 positives 30 are found: resampled, that is a binomial distribution, whose percentiles
    # can be computed without any resampling.
    from scipy.stats import binom

    labels = np.repeat([1, 0], [40, 50])
    probabilities = np.concatenate([np.repeat([0.9, 0.1], [30, 10]), np.repeat([0.8, 0.2], 25)])
    intervals = spine_scores.bootstrap(probabilities, labels, 0.5, samples=4000, seed=0)
    expected = binom(40, 0.75).ppf([0.025, 0.975]) / 40
    assert intervals["sensitivity"] == pytest.approx(list(expected), abs=0.026)
    expected = binom(50, 0.5).ppf([0.025, 0.975]) / 50
    assert intervals["specificity"] == pytest.approx(list(expected), abs=0.021)


def test_bootstrap_of_auroc_is_the_percentiles_of_resampled_images():
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], [30, 20])
    probabilities = rng.normal(size=50) + labels
    negatives, positives = probabilities[:30], probabilities[30:]
    areas = []
    for _ in range(1500):  # AUROC: the share of pairs that are in the right order
        low, high = rng.choice(negatives, 30), rng.choice(positives, 20)
        areas.append((high[:, None] > low).mean() + (high[:, None] == low).mean() / 2)
    found = spine_scores.bootstrap(probabilities, labels, 0.5, samples=1500, seed=0)["auroc"]
    assert found == pytest.approx(list(np.percentile(areas, [2.5, 97.5])), abs=0.02)
    again = spine_scores.bootstrap(probabilities, labels, 0.5, samples=1500, seed=0)["auroc"]
    assert again == found


def test_class_weight_and_its_loss_by_hand():
    module = Classifier(nn.Identity(), 1, pos_weight=2.0)
    logits, labels = torch.tensor([[0.3], [-1.2]]), torch.tensor([1, 0])
    sigmoid = 1 / (1 + np.exp([-0.3, 1.2]))
    expected = -(2 * np.log(sigmoid[0]) + np.log(1 - sigmoid[1])) / 2
    assert module.loss([logits, labels]).item() == pytest.approx(expected, abs=1e-6)


class LeftSide(nn.Module):
    """A logit that an image and its mirror image do not share."""

    def forward(self, images):
        return images[..., : images.shape[-1] // 2].mean(dim=(1, 2, 3))[:, None]


def test_augmented_predictions_are_the_mean_of_both_directions():
    images = torch.rand(3, 3, 4, 6, generator=torch.Generator().manual_seed(0)) * 4
    left, right = images[..., :3].numpy(), images[..., 3:].numpy()
    forward, mirrored = (1 / (1 + np.exp(-side.mean(axis=(1, 2, 3)))) for side in (left, right))
    found = Classifier(LeftSide(), 1, mirrored=True).predict_step(images, 0)
    np.testing.assert_allclose(found, (forward + mirrored) / 2, rtol=1e-5)
    found = Classifier(LeftSide(), 1).predict_step(images, 0)
    np.testing.assert_allclose(found, forward, rtol=1e-5)


def test_progressive_sizes():
    args = Namespace(image_size=384, progressive=None)
    assert spine_networks.training_sizes(args, "efficientnetv2_s") == [128, 256, 384]
    assert spine_networks.training_sizes(args, "densenet121") == [384]
    sizes = [spine_networks.size_at(epoch, 50, [128, 256, 384]) for epoch in range(50)]
    assert sizes == [128] * 16 + [256] * 17 + [384] * 17
    assert [spine_networks.size_at(epoch, 6, [1, 2, 3]) for epoch in range(6)] == [1, 1, 2, 2, 3, 3]
    assert spine_networks.size_at(0, 1, [128, 256, 384]) == 384
    with pytest.raises(UserError, match="ends at 128"):
        spine_networks.training_sizes(Namespace(image_size=384, progressive=[64, 128]), "resnet50")


def test_training_uses_the_progressive_sizes(data, tmp_path, monkeypatch):
    seen = []
    step = Classifier.training_step

    def noted(self, batch, index):
        seen.append((self.current_epoch, batch[0].shape[-1]))
        return step(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", noted)
    run = ["--data", str(data), "--run", str(tmp_path / "run"), "--backbone", "test_resnet"]
    run += ["--model", "efficientnetv2_s", *TINY, "--image-size", "48", "--progressive", "32,48"]
    spine.main(["train", *run])
    assert set(seen) == {(0, 32), (1, 48)}


@pytest.mark.parametrize("flags, expected", [([], 2.0), (["--no-class-weight"], 1.0)])
def test_the_training_gets_weights_optimizer_and_schedule(
    data, tmp_path, monkeypatch, flags, expected
):
    """Of 24 training images 8 are positive. Nothing is trained here."""
    given = []
    monkeypatch.setattr(network, "fit", lambda *values: given.append(values))
    monkeypatch.setattr(spine.Spine, "finish", lambda *_: None)
    rows = read_rows(data)
    sick = [("No finding", "Pathology")[i % 3 == 1] for i in range(24)]
    first = [(name, label, "train") for (name, *_), label in zip(rows, sick, strict=False)]
    write_rows(data, first + rows[24:])
    run = ["--data", str(data), "--run", str(tmp_path / "run"), "--no-pretrained"]
    spine.main(["train", *run, "--model", "efficientnetv2_s", "--backbone", "test_resnet", *flags])
    ((module, _, _, trained, _),) = given
    assert module.criterion.pos_weight.item() == expected
    made = module.configure_optimizers()
    assert isinstance(made["optimizer"], torch.optim.AdamW)
    assert made["optimizer"].defaults["weight_decay"] == 5e-5
    assert made["lr_scheduler"].T_max == 50 and made["lr_scheduler"].eta_min == 1e-6
    assert trained.monitor == "val_auroc" and trained.name == "efficientnetv2_s"


def test_the_three_networks_have_one_logit_and_the_documented_size():
    millions = {"densenet121": 7, "efficientnetv2_s": 20.2, "resnet50": 23.5}  # without 1000 logits
    for member, backbone in spine.BACKBONES.items():
        settings = {"backbone": backbone, "dropout": 0.25}
        model = spine_networks.Member(member).build_model(settings, pretrained=False).eval()
        count = sum(p.numel() for p in model.parameters()) / 1e6
        assert count == pytest.approx(millions[member], rel=0.02)
        features = torch.ones(1, model.num_features, 2, 2)
        assert torch.equal(model.forward_head(features), model.forward_head(features))
        model.train()  # dropout before the logit
        assert not torch.equal(model.forward_head(features), model.forward_head(features))
        with torch.no_grad():
            assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1)


def test_augmentation_is_the_documented_one():
    flip, rotation, jitter = spine_networks.augmentation()
    assert flip.p == 0.5 and rotation.degrees == [-10, 10]
    assert jitter.brightness == (0.8, 1.2) and jitter.contrast == (0.8, 1.2)
    assert jitter.saturation is None and jitter.hue is None


# Data


def test_items_are_resized_normalised_and_gray_becomes_rgb(data):
    samples = load(data)
    settings = {"image_size": 32, "classes": ["No finding", "Pathology"]}
    member = spine_networks.Member("resnet50")
    image, label = member.dataset(samples, settings)[1]
    pixels = np.array(Image.open(data / "images" / "x01.png"), dtype=np.float64) / 255
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (pixels - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(image, expected, atol=1e-5)
    assert label == 1
    larger = member.dataset(samples, settings | {"image_size": 40}, augment=True)
    assert larger[0][0].shape == (3, 40, 40)


def test_an_archive_and_a_folder_give_the_same(data, tmp_path):
    arrays = save_npz(data, tmp_path / "set.npz")
    folder = tmp_path / "folder"
    rows = []
    for part in ("train", "val", "test"):
        for i, picture in enumerate(arrays[f"{part}_images"]):
            name = f"{part}_{i:05}"
            drawings.save(folder / "images" / f"{name}.png", picture / 255)
            rows.append((f"{name}.png", str(arrays[f"{part}_labels"][i, 0]), part))
    write_rows(folder, rows)
    one, other = load(tmp_path / "set.npz"), load(folder)
    assert one.index.tolist() == other.index.tolist() and one.part.equals(other.part)
    assert one.label.tolist() == other.label.tolist()
    assert list(one.label.cat.categories) == ["0", "1"]
    for pixels, (file,) in zip(one.images, other.images, strict=True):
        assert torch.equal(spine_networks.read_x_ray(pixels), spine_networks.read_x_ray((file,)))
    for run, source in (("a", tmp_path / "set.npz"), ("b", folder)):
        where = ["--data", str(source), "--run", str(tmp_path / run)]
        spine.main(["train", *where, "--model", "resnet50", "--backbone", "test_resnet", *TINY])
    first, second = ((tmp_path / run / "ensemble.json").read_text() for run in ("a", "b"))
    assert first == second


def test_a_colour_archive(data, tmp_path):
    arrays = save_npz(data, tmp_path / "gray.npz")
    for part in ("train", "val", "test"):
        gray = arrays[f"{part}_images"]
        arrays[f"{part}_images"] = np.stack([gray, gray // 2, 255 - gray], axis=-1)
    np.savez(tmp_path / "colour.npz", **arrays)
    images = load(tmp_path / "colour.npz").images
    assert len(images) == 40 and images.iloc[0].shape == (3, 28, 28)
    assert torch.equal(images.iloc[0][2], 255 - images.iloc[0][0])


@pytest.mark.parametrize("names", [("0", "1"), ("no finding", "Osteophytes"), ("Normal", "Sick")])
def test_the_class_without_a_finding_comes_first(data, names):
    write_rows(data, [(n, names[lab == "Pathology"], part) for n, lab, part in read_rows(data)])
    labels = load(data).label.cat
    assert list(labels.categories) == list(names) and labels.codes.tolist() == [0, 1] * 20


def test_division_without_a_split_column(data):
    write_rows(data, [row[:2] for row in read_rows(data)])
    samples = load(data)
    divided = divide(samples, 0, 0.1, 0.2)
    for part, count in (("training", 28), ("validation", 4), ("test", 8)):
        labels = divided.label[divided.part == part].cat.codes
        assert len(labels) == count and sum(labels) == count / 2
    assert divided.equals(divide(samples, 0, 0.1, 0.2))
    assert not divided.equals(divide(samples, 1, 0.1, 0.2))


def test_division_with_an_official_test_part_only(data):
    rows = [(n, lab, "train" if part == "val" else part) for n, lab, part in read_rows(data)]
    write_rows(data, rows)
    parts = divide(load(data), 0, 0.25, 0.1).part.tolist()
    assert parts[32:] == ["test"] * 8 and parts[:32].count("validation") == 8


@pytest.mark.slow  # needs the whole demo
def test_validation_labels_alone_decide_weights_and_threshold(demo, tmp_path):
    """Other labels of test and training images: the same ensemble. Of validation: another."""
    run = tmp_path / "run"
    shutil.copytree(demo / "run", run)
    command = ["ensemble", "--data", str(tmp_path / "data"), "--run", str(run)]
    other = {"Pathology": "No finding", "No finding": "Pathology"}
    rows = read_rows(demo / "data")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").symlink_to(demo / "data" / "images")

    def ensemble_with_changed(*parts):
        changed = [(n, other[lab] if part in parts else lab, part) for n, lab, part in rows]
        write_rows(tmp_path / "data", changed)
        spine.main(command)
        return json.loads((run / "ensemble.json").read_text())

    original = json.loads((demo / "run" / "ensemble.json").read_text())
    assert ensemble_with_changed("test", "train") == original
    assert ensemble_with_changed("val")["weights"] != original["weights"]


# Runs


@pytest.mark.slow  # needs the whole demo
def test_the_demo_is_better_than_chance(demo):
    report = json.loads((demo / "run" / "evaluation" / "evaluation.json").read_text())
    assert list(report["systems"]) == [*spine.BACKBONES, "ensemble"]
    assert report["part"] == "test" and report["images"] == 52
    assert report["systems"]["ensemble"]["auroc"] > 0.85
    for found in report["systems"].values():
        for metric in spine_scores.METRICS:
            low, high = found["intervals"][metric]
            assert low <= found[metric] <= high
    for name in ("roc.png", "confusion.png"):
        assert Image.open(demo / "run" / "evaluation" / name).size[0] > 300


@pytest.mark.slow  # needs the whole demo
def test_the_submission_is_the_weighted_average_at_the_stored_threshold(demo):
    table = pd.read_csv(demo / "run" / "ensemble_submission.csv")
    assert list(table.columns) == ["image", "probability", "prediction"]
    split = pd.read_csv(demo / "run" / "split.csv")
    assert list(table.image) == list(split.image[split.part == "test"])
    fitted = json.loads((demo / "run" / "ensemble.json").read_text())
    assert sum(fitted["weights"].values()) == pytest.approx(1)
    total = 0
    files = load(demo / "data").images[table.image]
    transform = spine_networks.Member("resnet50").transform({"image_size": 64}, augment=False)
    images = torch.stack([transform(file) for file in files])
    for member, weight in fitted["weights"].items():
        checkpoint = load_best(demo / "run", member)
        model = spine_networks.Member(member).build_model(checkpoint["settings"], False)
        model.load_state_dict(checkpoint["model_state_dict"])
        model.eval()
        with torch.no_grad():
            both = [model(x)[:, 0].sigmoid() for x in (images, images.flip(-1))]
        total = total + weight * (both[0] + both[1]) / 2
    np.testing.assert_allclose(table.probability, total, atol=2e-5)
    sure = np.abs(total.numpy() - fitted["thresholds"]["ensemble"]) > 1e-4
    expected = total.numpy() >= fitted["thresholds"]["ensemble"]
    assert (table.prediction[sure] == expected[sure]).all()


@pytest.mark.slow  # needs the whole demo
def test_checkpoints_and_logs_of_the_document(demo):
    for member in spine.BACKBONES:
        checkpoint = load_best(demo / "run", member)
        log = pd.read_csv(demo / "run" / "checkpoints" / "training_logs" / f"{member}_log.csv")
        assert log.val_auroc.max() == pytest.approx(checkpoint["best_auroc"], abs=1e-6)
        assert log.val_auroc.idxmax() == checkpoint["epoch"]
        assert list(log.epoch) == list(range(len(log)))
        assert checkpoint["metrics"]["auroc"] == checkpoint["best_auroc"]
        assert {"sensitivity", "specificity", "f1_score"} <= set(checkpoint["metrics"])
        assert "param_groups" in checkpoint["optimizer_state_dict"]
        group = checkpoint["optimizer_state_dict"]["param_groups"][0]
        assert group["betas"] == (0.9, 0.999) and group["eps"] == 1e-8
        n = len(log)
        cosine = 1e-6 + (log.learning_rate[0] - 1e-6) * (1 + np.cos(np.pi * log.epoch / n)) / 2
        np.testing.assert_allclose(log.learning_rate, cosine, atol=1e-6)


@pytest.mark.slow  # needs the whole demo
def test_the_table_of_the_validation_images(demo, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(demo / "run", run)
    where = ["--data", str(demo / "data"), "--run", str(run)]
    spine.main(["evaluate", *where, "--part", "validation", "--bootstrap", "50"])
    shown = capsys.readouterr().out
    fitted = json.loads((demo / "run" / "ensemble.json").read_text())["validation"]
    for name, found in fitted.items():
        (line,) = [line for line in shown.splitlines() if line.startswith(f"{name} ")]
        assert f"{found['auroc']:.4f} [" in line


@pytest.mark.slow  # needs the whole demo
def test_given_weights_and_no_mirror_images(demo, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(demo / "run", run)
    command = ["ensemble", "--data", str(demo / "data"), "--run", str(run)]
    spine.main([*command, "--weights", "2,1,1", "--no-tta"])
    found = json.loads((run / "ensemble.json").read_text())
    assert list(found["weights"].values()) == [0.5, 0.25, 0.25] and found["tta"] is False
    fails("2 numbers for 3 networks", *command, "--weights", "1,1")
    with pytest.raises(SystemExit):
        spine.main([*command, "--weights", "0,0,0"])


def test_networks_trained_one_by_one_share_a_run(data, tmp_path):
    run = tmp_path / "run"
    common = ["--data", str(data), "--run", str(run), *TINY, "--backbone", "test_resnet"]
    for member in ("resnet50", "densenet121"):
        spine.main(["train", *common, "--model", member])
    assert set(json.loads((run / "ensemble.json").read_text())["weights"]) == {
        "densenet121",
        "resnet50",
    }
    fails("already holds a run", "train", *common, "--model", "resnet50")
    fails("--model densenet121", "train", *common[:-2], "--model", "all")
    fails(
        "--image-size was 32, is 64",
        *("train", *common, "--model", "resnet50", "--resume", "--image-size", "64"),
    )
    (name, label, _), *rest = read_rows(data)
    write_rows(data, [(name, label, "test"), *rest])
    fails("trained on the same images", "train", *common, "--model", "efficientnetv2_s")


def test_killed_in_the_second_network_and_resumed(data, tmp_path):
    """SIGKILL in the middle of the second of three: resumed, all is as if nothing had happened."""
    options = ["--data", str(data), "--model", "all", "--backbones", NETWORKS, *TINY]
    options += ["--epochs", "4"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    spine.main(["train", *options, "--run", str(whole)])
    process = subprocess.Popen(
        [sys.executable, "-m", "capstones", "spine", "train", *options, "--run", str(killed)],
        cwd=REPO,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    last = killed / "checkpoints" / "efficientnetv2_s_last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert last.exists() and not (killed / "ensemble.json").exists()
    fails("finish the training", "evaluate", "--data", data, "--run", killed)
    spine.main(["train", "--data", str(data), "--run", str(killed), "--model", "all", "--resume"])
    for member in spine.BACKBONES:
        log = f"checkpoints/training_logs/{member}_log.csv"
        assert (killed / log).read_text() == (whole / log).read_text()
        one, other = load_best(whole, member), load_best(killed, member)
        assert one["epoch"] == other["epoch"]
        for name, weight in one["model_state_dict"].items():
            assert torch.equal(weight, other["model_state_dict"][name]), name
    assert (killed / "ensemble.json").read_text() == (whole / "ensemble.json").read_text()


# Errors


def test_refused_data(data, tmp_path):
    rows, run = read_rows(data), tmp_path / "run"
    cases = [
        (rows[1:], "no label for the image x00"),
        ([*rows, ("x99.png", "Pathology", "test")], "labels without an image .*x99"),
        ([*rows, ("x00", "Pathology", "test")], "'x00' more than once"),
        ([(n, "No finding", p) for n, _, p in rows], "the labels No finding: expected two"),
        ([(n, "maybe" if n == "x00.png" else lab, p) for n, lab, p in rows], "expected two"),
        ([(n, lab, "holdout") for n, lab, _ in rows], "split 'holdout'"),
        (
            [r for r in rows if r[1:] != ("Pathology", "val")]
            + [(n, lab, "train") for n, lab, p in rows if (lab, p) == ("Pathology", "val")],
            "validation images have none of the class Pathology",
        ),
    ]
    for changed, match in cases:
        write_rows(data, changed)
        train_fails(match, data, run)
    few = [(n, "Pathology" if i < 2 else "No finding") for i, (n, *_) in enumerate(rows)]
    write_rows(data, few)
    train_fails("Pathology has 2 images", data, run)
    write_rows(data, [row[:2] for row in rows])
    train_fails("leave no image", data, run, "--validation", "0.6", "--test", "0.5")


def test_refused_networks_and_images(data, tmp_path):
    run = tmp_path / "run"
    train_fails("timm knows no model 'resnet51'", data, run, "--backbone", "resnet51")
    train_fails("2 names for 1 networks", data, run, "--backbone", "resnet18,resnet34")
    train_fails("no folder", tmp_path / "nowhere", run)
    train_fails("ends at 40", data, run, "--progressive", "32,40")
    image = data / "images" / "x05.png"
    image.write_bytes(image.read_bytes()[:60])
    train_fails("x05.png cannot be read", data, run)


def test_refused_archives(data, tmp_path):
    arrays = save_npz(data, tmp_path / "set.npz")
    arrays["train_labels"][0] = 2
    np.savez(tmp_path / "three.npz", **arrays)
    train_fails("3 classes", tmp_path / "three.npz", tmp_path / "run")
    arrays["train_labels"][0] = 0
    arrays["val_labels"][:] = 0
    np.savez(tmp_path / "one.npz", **arrays)
    train_fails("validation images have none of the class 1", tmp_path / "one.npz", tmp_path)


@pytest.mark.slow  # needs the whole demo
def test_refused_at_evaluation(demo, data, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(demo / "run", run)
    common = ["--data", data, "--run", run]
    fails("none of the run's test images", "evaluate", *common)
    write_rows(data, [(n, ("0", "1")[lab == "Pathology"], p) for n, lab, p in read_rows(data)])
    fails(
        "has the label '0'; the classes are No finding, Pathology",
        "evaluate",
        *common,
        "--part",
        "all",
    )
    (run / "checkpoints" / "resnet50_best.pth").write_bytes(b"PK damaged")
    fails("resnet50_best.pth is not a checkpoint", "predict", *common)
    (run / "ensemble.json").write_text('{"weights": {}}')
    fails("ensemble.json cannot be read", "predict", *common)
    for member in spine.BACKBONES:
        (run / "checkpoints" / f"{member}_best.pth").unlink()
    shutil.copy(demo / "data" / "labels.csv", tmp_path)
    (tmp_path / "images").symlink_to(demo / "data" / "images")
    fails("holds no trained network", "ensemble", "--data", tmp_path, "--run", run)
