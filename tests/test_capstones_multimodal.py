"""capstones/multimodal.py: is a cell cancerous? And what only a real process shows."""

import json
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPO, assert_user_error, environment, hear_ctrl_c
from PIL import Image
from torch import nn

import pathlab.torchvision_import  # noqa: F401  (before Lightning, which imports torchvision)

pytest.importorskip("lightning")
pytest.importorskip("timm")

import timm

from capstones import drawings, multimodal, network
from capstones.checkpoints import load_best
from capstones.folder import write_table
from pathlab.errors import UserError

TINY = ["--no-pretrained", "--backbone", "test_convnext", "--image-size", "32"]
TINY += ["--batch-size", "4", "--validation", "0.25", "--accelerator", "cpu"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of one demo, with data/ and run/."""
    folder = tmp_path_factory.mktemp("demo") / "cells"
    torch.set_num_threads(1)
    multimodal.main(["demo", "--output", str(folder)])
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """24 labelled pairs of 40 x 40 pixels."""
    folder = tmp_path_factory.mktemp("small")
    drawings.draw_multimodal(folder, n=36, size=40, seed=1)
    return folder


@pytest.fixture
def data(tmp_path):
    """Eight pairs of noise; half of the cells are cancerous, in words."""
    rng = np.random.default_rng(0)
    for folder in ("BF", "FL"):
        (tmp_path / folder).mkdir()
        for i in range(8):
            noise = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / folder / f"c{i}.png")
    names, words = [f"c{i}.png" for i in range(8)], ["healthy", "cancerous"] * 4
    write_table(tmp_path / "train.csv", pd.DataFrame({"name": names, "diagnosis": words}))
    return tmp_path


def train(data, *more):
    multimodal.main(["train", "--data", str(data), "--run", str(data / "run"), *TINY, *more])


def arguments(data, run, *more):
    flags = ["train", "--data", data, "--run", run, *TINY, *more]
    return [sys.executable, "-m", "capstones", "multimodal", *map(str, flags)]


# -- what the network sees


def test_both_images_of_a_pair_move_alike(tmp_path):
    """One picture as both modalities: after the augmentation the channels are still equal."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    pair = (tmp_path / "a.png",) * 2
    plain = multimodal.PairTransform(32, augment=False)(pair)
    transform = multimodal.PairTransform(32, augment=True)
    transform.colour = nn.Identity()
    torch.manual_seed(0)
    drawn = [transform(pair) for _ in range(5)]
    for item in drawn:
        assert item.shape == (6, 32, 32) and item.dtype == torch.float32
        assert torch.equal(item[:3], item[3:])
        assert not torch.allclose(item, plain, atol=0.1)
    assert len({float(item.sum()) for item in drawn}) == 5


def test_colours_of_the_two_modalities_are_drawn_apart(tmp_path):
    Image.new("RGB", (8, 8), (120, 80, 160)).save(tmp_path / "a.png")
    transform = multimodal.PairTransform(8, augment=True)
    transform.geometry = multimodal.v2.Resize((8, 8))
    torch.manual_seed(0)
    item = transform((tmp_path / "a.png",) * 2)
    assert not torch.allclose(item[:3], item[3:])


def test_images_that_are_not_augmented_are_resized_and_normalised(tmp_path):
    for name, colour in (("bf", (51, 102, 204)), ("fl", (0, 255, 0))):
        Image.new("RGB", (10, 7), colour).save(tmp_path / f"{name}.png")
    pair = (tmp_path / "bf.png", tmp_path / "fl.png")
    image = multimodal.PairTransform(16, augment=False)(pair)
    assert image.shape == (6, 16, 16)
    values = np.array([0.2, 0.4, 0.8, 0, 1, 0])
    mean, std = np.array([0.485, 0.456, 0.406] * 2), np.array([0.229, 0.224, 0.225] * 2)
    assert np.allclose(image[:, 3, 5], (values - mean) / std, atol=1e-5)
    assert torch.equal(image, image[:, :1, :1].expand_as(image))


@pytest.mark.parametrize(("modalities", "channels"), [("both", 6), ("bf", 3), ("fl", 3)])
def test_networks_take_six_channels_of_both_or_three_of_one_modality(data, modalities, channels):
    settings = {"backbone": "test_convnext", "modalities": modalities}
    model = multimodal.PairNetwork().build_model(settings, pretrained=False).eval()
    samples = multimodal.Multimodal().read(Namespace(data=data, run=None, modalities=modalities))
    files = samples["images"]["c3"]
    assert [path.parent.name for path in files] == list(multimodal.FOLDERS[modalities])
    image = multimodal.PairTransform(32, augment=False)(files)
    assert image.shape == (channels, 32, 32)
    assert model(image[None]).shape == (1, 2)


# -- what is trained


@pytest.mark.parametrize(
    ("backbone", "trained"),
    [
        ("test_convnext", ("stages.3.", "head.")),
        ("convnext_atto", ("stages.3.", "head.")),
        ("resnet10t", ("layer4.", "fc.")),
        ("efficientnet_b0", ("blocks.6.", "conv_head.", "bn2.", "classifier.")),
    ],
)
def test_the_last_stage_and_the_head_are_trained_and_nothing_before(backbone, trained):
    model = timm.create_model(backbone, num_classes=2)
    multimodal.freeze_all_but_the_end(model)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == name.startswith(trained), name
    for start in trained:
        assert any(name.startswith(start) for name, _ in model.named_parameters())


def test_frozen_weights_and_batch_norm_statistics_do_not_move(small, tmp_path, monkeypatch):
    """One epoch of a `train` whose pretrained weights are random ones."""
    make, made = multimodal.make_backbone, []

    def make_random(name, pretrained, **options):
        assert pretrained
        model = make(name, False, **options)
        made.append((model, {k: v.clone() for k, v in model.state_dict().items()}))
        return model

    monkeypatch.setattr(multimodal, "make_backbone", make_random)
    flags = [f for f in TINY if f != "--no-pretrained"] + ["--backbone", "resnet10t"]
    place = ["--data", str(small), "--run", str(tmp_path / "run")]
    multimodal.main(["train", *place, *flags, "--epochs", "1"])
    ((model, before),) = made
    for name, value in model.state_dict().items():
        moved = not torch.equal(value.cpu(), before[name])
        assert moved == name.startswith(("layer4.", "fc.")), name


def test_a_run_that_was_stopped_before_its_first_epoch_resumes_from_pretrained_weights(
    small, tmp_path, monkeypatch
):
    asked, make = [], multimodal.make_backbone

    def make_random(name, pretrained, **options):
        asked.append(pretrained)
        return make(name, False, **options)

    def stopped(*values):
        raise KeyboardInterrupt

    monkeypatch.setattr(multimodal, "make_backbone", make_random)
    monkeypatch.setattr(network, "fit", stopped)
    place = ["train", "--data", str(small), "--run", str(tmp_path / "run")]
    flags = [f for f in TINY if f != "--no-pretrained"]
    for more in (flags, ["--resume"]):
        with pytest.raises(KeyboardInterrupt):
            multimodal.main([*place, *more])
    assert asked == [True, True]


def test_the_optimizer_is_adam_with_a_cosine_that_restarts_and_classes_are_balanced(
    small, tmp_path, monkeypatch
):
    seen = {}
    monkeypatch.setattr(
        network, "fit", lambda module, batches, *others: seen.update(m=module, b=batches)
    )
    place = ["--data", str(small), "--run", str(tmp_path / "run")]
    multimodal.main(["train", *place, *TINY, "--restart", "4"])
    chosen = seen["m"].configure_optimizers()
    assert type(chosen["optimizer"]) is torch.optim.Adam
    assert isinstance(seen["m"].criterion, nn.CrossEntropyLoss)
    rates = []
    for _ in range(6):
        rates.append(chosen["optimizer"].param_groups[0]["lr"])
        chosen["optimizer"].step()
        chosen["lr_scheduler"].step()
    expected = [1e-4 * (1 + np.cos(np.pi * (epoch % 4) / 4)) / 2 for epoch in range(6)]
    assert np.allclose(rates, expected)
    labels = seen["b"].train_set.labels
    of_class = Counter()
    for label, weight in zip(labels, seen["b"].weights.tolist(), strict=True):
        of_class[label] += weight
    assert of_class[0] == pytest.approx(of_class[1])
    assert labels.count(0) != labels.count(1)


# -- what is wrong is said before training


def test_images_without_a_partner_are_named(data):
    (data / "FL" / "c5.png").unlink()
    with pytest.raises(UserError, match=r"lacks FL/c5\."):
        train(data)
    (data / "FL" / "c5.png").write_bytes((data / "BF" / "c5.png").read_bytes())
    (data / "BF" / "c2.png").unlink()
    with pytest.raises(UserError, match=r"lacks BF/c2\."):
        train(data)
    assert not (data / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["healthy", "sick"] * 4, "the labels healthy, sick: expected two"),
        (["0", "1", "2", "0"] * 2, "the labels 0, 1, 2: expected two"),
        (["0"] * 8, "the labels 0: expected two"),
        (["0"] * 7 + ["1"], "the class 1 has 1 image"),
    ],
)
def test_diagnoses_that_cannot_be_learnt_are_named(data, words, message):
    names = [f"c{i}" for i in range(8)]
    write_table(data / "train.csv", pd.DataFrame({"name": names, "diagnosis": words}))
    with pytest.raises(UserError, match=message):
        train(data)


def test_pretrained_weights_that_cannot_be_downloaded(small, tmp_path):
    flags = [flag for flag in arguments(small, tmp_path / "run") if flag != "--no-pretrained"]
    offline = environment(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "home"))
    done = subprocess.run(
        flags, cwd=REPO, env=offline, capture_output=True, text=True, timeout=120, check=False
    )
    assert_user_error(done, "test_convnext could not be downloaded", "--no-pretrained", "HF_HOME")
    assert not (tmp_path / "run").exists()


# -- the demo: all commands on a small data set


def test_the_demo_tells_cancerous_from_healthy(demo):
    scores = json.loads((demo / "run" / "evaluation" / "classification.json").read_text())
    assert scores["auroc"] > 0.8
    assert list(scores["classes"]) == ["0", "1"]
    metrics = pd.read_csv(demo / "run" / "metrics.csv")
    assert metrics.epoch.tolist() == list(range(len(metrics)))
    best = load_best(demo / "run", "convnext")
    assert best["best_loss"] == pytest.approx(metrics.val_loss.min(), abs=1e-5)
    assert scores["auroc"] == pytest.approx(best["metrics"]["auroc"], abs=1e-6)
    assert list((demo / "run" / "tensorboard").rglob("events.*"))


def test_quick_takes_a_hundred_images_with_the_same_share_of_cancer(tmp_path, monkeypatch):
    drawings.draw_multimodal(tmp_path, n=210, size=16)
    monkeypatch.setattr(network, "fit", lambda *values: None)
    train(tmp_path, "--quick")
    part = pd.read_csv(tmp_path / "run" / "split.csv")
    table = pd.read_csv(tmp_path / "train.csv", index_col="name").diagnosis
    assert len(table) == 140
    assert len(part) == 100 and not part.name.duplicated().any()
    assert (part.part == "validation").sum() == 25
    assert table[part.name].mean() == pytest.approx(table.mean(), abs=0.01)


def test_probabilities_are_those_of_a_forward_pass_of_its_own(demo):
    """The submission against NumPy, PIL and timm alone."""
    found = pd.read_csv(demo / "run" / "submission_probs_convnext.csv")
    names = sorted(path.stem for path in (demo / "data" / "test" / "BF").iterdir())
    assert found.columns.tolist() == ["name", "probability"]
    assert found.name.tolist() == names
    best = torch.load(demo / "run" / "checkpoints" / "convnext_best.pth", weights_only=True)
    known = best["settings"]
    model = timm.create_model(known["backbone"], in_chans=6, num_classes=2)
    model.load_state_dict(best["model_state_dict"])
    size = (known["image_size"],) * 2
    pictures = []
    for name in names:
        pair = [Image.open(demo / "data/test" / f / f"{name}.png") for f in ("BF", "FL")]
        arrays = [np.asarray(image.resize(size, Image.Resampling.BILINEAR)) for image in pair]
        normal = [(a / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225] for a in arrays]
        pictures.append(np.concatenate(normal, axis=2).transpose(2, 0, 1))
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(np.stack(pictures)).float()).numpy()
    expected = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    assert np.allclose(found.probability, expected, atol=0.02)  # PIL rounds otherwise


def test_evaluate_takes_new_data_only_with_part_all(demo, small, capsys):
    other = ["--run", str(demo / "run")]
    names = pd.read_csv(small / "train.csv").name
    table = pd.read_csv(demo / "run" / "split.csv")
    assert set(names) & set(table.name)  # the same names, so that only --part tells them apart
    multimodal.main(["evaluate", "--data", str(small), *other, "--part", "all"])
    scores = json.loads((demo / "run" / "evaluation" / "classification.json").read_text())
    assert scores["images"] == len(names)
    assert "ROC-AUC" in capsys.readouterr().out


# -- processes that are stopped


def started(data, run, *more):
    return subprocess.Popen(
        arguments(data, run, *more),
        cwd=REPO,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )


def epochs(run):
    path = run / "metrics.csv"
    return pd.read_csv(path).epoch.tolist() if path.exists() else []


def stopped_in_epoch(process, run, epoch, how):
    """Wait until the process is in the middle of that epoch, stop it, and return its stderr."""
    try:
        while len(epochs(run)) < epoch:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        time.sleep(0.05)
        process.send_signal(how)
        return process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_stopped_and_killed_trainings_go_on_as_if_nothing_had_happened(small, tmp_path):
    """Ctrl-C in epoch 1 of 24, SIGKILL in epoch 4 or later, each followed by --resume."""
    run, whole, n = tmp_path / "run", tmp_path / "whole", 24
    more = ["--epochs", str(n), "--patience", "0", "--learning-rate", "1e-3"]
    process = started(small, run, *more)
    told = stopped_in_epoch(process, run, 1, signal.SIGINT)
    assert process.returncode == 130
    assert "--resume goes on after the last complete epoch" in told and "Traceback" not in told
    process = started(small, run, "--resume")
    stopped_in_epoch(process, run, max(4, len(epochs(run)) + 1), signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert 4 <= len(epochs(run)) < n
    torch.set_num_threads(1)
    multimodal.main(["train", "--data", str(small), "--run", str(run), "--resume"])
    multimodal.main(["train", "--data", str(small), "--run", str(whole), *TINY, *more])
    for folder in (run, whole):
        assert epochs(folder) == list(range(n))
    tables = [pd.read_csv(folder / "metrics.csv") for folder in (run, whole)]
    assert np.allclose(*tables, atol=1e-5)
    ends = [
        torch.load(folder / "checkpoints" / "convnext_last.ckpt", weights_only=True)["state_dict"]
        for folder in (run, whole)
    ]
    for name in ends[0]:
        assert torch.allclose(ends[0][name], ends[1][name], atol=1e-6), name
    assert load_best(run, "convnext")["epoch"] == load_best(whole, "convnext")["epoch"]


def in_two_processes(data, run, *more):
    done = subprocess.run(
        arguments(data, run, "--devices", "2", *more),
        cwd=REPO,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return pd.read_csv(run / "metrics.csv")


@pytest.mark.slow
def test_two_processes_start_and_measure_as_one_does(small, tmp_path):
    """With a learning rate that changes nothing, so that the weights are the same."""
    more = ["--epochs", "1", "--learning-rate", "1e-12"]
    two = in_two_processes(small, tmp_path / "two", *more).iloc[0]
    multimodal.main(["train", "--data", str(small), "--run", str(tmp_path / "one"), *TINY, *more])
    one = pd.read_csv(tmp_path / "one" / "metrics.csv").iloc[0]
    for name in ("val_loss", "val_accuracy", "val_balanced_accuracy", "val_f1", "val_auroc"):
        assert two[name] == pytest.approx(one[name], abs=1e-5), name


@pytest.mark.slow
def test_two_processes_share_the_images_and_train_one_model(small, tmp_path):
    run = tmp_path / "run"
    table = in_two_processes(small, run, "--epochs", "3", "--learning-rate", "1e-3")
    assert table.epoch.tolist() == [0, 1, 2]
    last = torch.load(run / "checkpoints" / "convnext_last.ckpt", weights_only=True)
    assert last["global_step"] == 3 * 2  # 18 images: 9 for each process, in batches of 4
    assert table.val_loss.nunique() == 3
    multimodal.main(["evaluate", "--data", str(small), "--run", str(run)])
    scores = json.loads((run / "evaluation" / "classification.json").read_text())
    best = load_best(run, "convnext")["metrics"]
    for name in ("accuracy", "balanced_accuracy", "auroc"):
        assert scores[name] == pytest.approx(best[name], abs=1e-6)
