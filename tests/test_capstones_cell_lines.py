"""capstones/cell_lines.py: nine cell lines from three stained channels."""

import json
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import pathlab.torchvision_import  # noqa: F401  (before Lightning, which imports torchvision)

pytest.importorskip("lightning")
pytest.importorskip("timm")

from capstones import cell_lines, drawings, network
from capstones.__main__ import main as capstones_main
from capstones.backbones import make_backbone, native_size
from capstones.checkpoints import load_best
from capstones.folder import find_files
from pathlab.errors import UserError

LAYOUT = cell_lines.CellLines.layout
SMALL = ["--no-pretrained", "--backbone", "test_efficientnet", "--image-size", "32"]
SMALL += ["--batch-size", "8", "--epochs", "1", "--accelerator", "cpu"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of one demo, with data/ and run/."""
    folder = tmp_path_factory.mktemp("demo") / "cells"
    torch.set_num_threads(1)
    cell_lines.main(["demo", "--output", str(folder)])
    return folder


@pytest.fixture
def data(tmp_path):
    """Two lines of six cells each, 24 x 20 pixels of noise, the Atlas' names for one of them."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(12):
        for names in cell_lines.CHANNELS:
            channel = names[1] if i == 3 else names[0]
            write(tmp_path, f"c{i}_{channel}.png", rng.integers(0, 256, (24, 20), dtype=np.uint8))
        rows.append({"id": f"c{i}", "cell_line": ("U-2 OS", "HeLa")[i % 2]})
    pd.DataFrame(rows).to_csv(tmp_path / "train.csv", index=False)
    return tmp_path


def write(data, name, array):
    (data / "images").mkdir(exist_ok=True)
    Image.fromarray(array).save(data / "images" / name)


def train(data, *more):
    cell_lines.main(["train", "--data", str(data), "--run", str(data / "run"), *SMALL, *more])


def settings(**changes):
    return {"image_size": 16, "mean": [0.0] * 3, "deviation": [1.0] * 3} | changes


# -- what is read


def test_channels_become_red_green_and_blue_in_the_order_nucleus_microtubules_er(tmp_path):
    for value, name in ((10, "a_nucleus"), (20, "a_microtubules"), (30, "a_er")):
        write(tmp_path, f"{name}.png", np.full((4, 6), value, np.uint8))
    for value, name in ((1, "b_blue"), (2, "b_red"), (3, "b_yellow"), (99, "b_green")):
        write(tmp_path, f"{name}.png", np.full((4, 6), value, np.uint8))
    cells = find_files(tmp_path, LAYOUT)
    assert list(cells.index) == ["a", "b"]
    for cell, values in (("a", [10, 20, 30]), ("b", [1, 2, 3])):
        picture = cell_lines.read_cell(cells[cell])
        assert picture.dtype == torch.uint8 and picture.shape == (3, 4, 6)
        assert picture[:, 0, 0].tolist() == values


def test_missing_channels_are_named(data):
    (data / "images" / "c4_er.png").unlink()
    (data / "images" / "c7_nucleus.png").unlink()
    with pytest.raises(UserError, match=r"lacks images/c4_er, images/c7_nucleus\."):
        train(data)
    assert not (data / "run").exists()


def test_a_file_of_no_channel_and_two_of_one_channel_are_named(data):
    blank = np.zeros((24, 20), np.uint8)
    write(data, "c1_blue.png", blank)
    with pytest.raises(UserError, match=r"two images of the nucleus of c1: c1_blue.png and c1_nuc"):
        find_files(data, LAYOUT)
    (data / "images" / "c1_blue.png").unlink()
    write(data, "overview.png", blank)
    with pytest.raises(UserError, match=r"overview\.png belongs to no channel"):
        find_files(data, LAYOUT)


@pytest.mark.parametrize("more", [(), ("--no-preload",)])
def test_channels_of_different_size_are_found_before_training(data, more):
    write(data, "c5_er.png", np.zeros((24, 21), np.uint8))
    message = r"c5_er\.png has 21 x 24 pixels, but c5_nucleus\.png has 20 x 24"
    with pytest.raises(UserError, match=message):
        train(data, *more)
    assert not (data / "run").exists()


def test_a_line_of_one_cell(data):
    table = pd.read_csv(data / "train.csv")
    table.loc[0, "cell_line"] = "RT4"
    table.to_csv(data / "train.csv", index=False)
    with pytest.raises(UserError, match="the class RT4 has 1 image"):
        train(data)


# -- what the network sees


def test_validation_images_are_resized_and_normalised_only():
    image = torch.tensor([51, 102, 204], dtype=torch.uint8)[:, None, None].expand(3, 10, 7)
    prepared = settings(mean=[0.1, 0.2, 0.3], deviation=[0.5, 0.25, 0.125])
    transform = cell_lines.CellNetwork().transform(prepared, augment=False)
    item = transform(image)
    assert item.dtype == torch.float32 and item.shape == (3, 16, 16)
    # (0.2 - 0.1) / 0.5, (0.4 - 0.2) / 0.25, (0.8 - 0.3) / 0.125
    expected = torch.tensor([0.2, 0.8, 4.0])[:, None, None].expand(3, 16, 16)
    assert torch.allclose(item, expected, atol=1e-5)
    assert torch.equal(transform(image), item)


def test_training_images_are_augmented_and_stay_in_range():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (3, 32, 32), dtype=np.uint8))
    transform = cell_lines.CellNetwork().transform(settings(), augment=True)
    torch.manual_seed(0)
    drawn = [transform(image) for _ in range(6)]
    assert all(item.shape == (3, 16, 16) for item in drawn)
    assert all(item.min() >= 0 and item.max() <= 1 for item in drawn)
    assert len({float(item.sum()) for item in drawn}) == 6
    torch.manual_seed(0)
    assert torch.equal(transform(image), drawn[0])


def test_flips_and_quarter_turns_reach_all_eight_symmetries_exactly():
    image = torch.arange(3 * 5 * 5, dtype=torch.uint8).reshape(3, 5, 5)
    symmetries = {
        np.ascontiguousarray(np.rot90(side, k, (1, 2))).tobytes()
        for side in (image.numpy(), image.numpy()[:, :, ::-1])
        for k in range(4)
    }
    flips = torch.nn.Sequential(*cell_lines.augmentation().transforms[:3])
    torch.manual_seed(0)
    seen = {flips(image).contiguous().numpy().tobytes() for _ in range(200)}
    assert seen == symmetries and len(symmetries) == 8


def test_images_are_preloaded_or_read_at_each_use(data):
    system, found = cell_lines.CellLines(), {}
    for no_preload in (False, True):
        args = Namespace(data=data, run=None, no_preload=no_preload)
        found[no_preload] = system.load(args, system.read(args))["images"]
    for kept, on_disk in zip(found[False], found[True], strict=True):
        assert torch.equal(kept, cell_lines.read_cell(on_disk))
    write(data, "c0_nucleus.png", np.full((24, 20), 7, np.uint8))
    assert cell_lines.read_cell(found[True]["c0"])[0].unique().tolist() == [7]
    assert cell_lines.read_cell(found[False]["c0"])[0].unique().numel() > 7


# -- training


def test_efficientnet_b1_has_its_native_size_and_nine_outputs():
    model = make_backbone("efficientnet_b1", False, num_classes=9)
    assert native_size("efficientnet_b1") == 240
    assert model.get_classifier().out_features == 9


def test_adam_trains_every_weight_and_training_images_alone_are_augmented(data, monkeypatch):
    seen = {}

    def fit(module, batches, *others):
        seen.update(module=module, batches=batches)
        raise KeyboardInterrupt

    monkeypatch.setattr(network, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        train(data, "--learning-rate", "7e-5", "--weight-decay", "1e-6")
    optimizer = seen["module"].configure_optimizers()["optimizer"]
    assert type(optimizer) is torch.optim.Adam
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (7e-5, 1e-6)
    assert len(group["params"]) == len(list(seen["module"].model.parameters()))
    assert isinstance(seen["module"].criterion, torch.nn.CrossEntropyLoss)
    sets = seen["batches"].train_set, seen["batches"].val_set
    assert [torch.equal(images[0][0], images[0][0]) for images in sets] == [False, True]


def test_mean_and_deviation_are_those_of_the_training_images(data):
    train(data)
    part = pd.read_csv(data / "run" / "split.csv", index_col="id")["part"]
    pixels = [[], [], []]
    for cell in part.index[part == "training"]:
        for channel, names in enumerate(cell_lines.CHANNELS):
            path = data / "images" / f"{cell}_{names[cell == 'c3']}.png"
            pixels[channel].append(np.asarray(Image.open(path)).ravel() / 255)
    stored = load_best(data / "run", "efficientnet")["settings"]
    for channel in range(3):
        values = np.concatenate(pixels[channel])
        assert stored["mean"][channel] == pytest.approx(values.mean(), abs=1e-9)
        assert stored["deviation"][channel] == pytest.approx(values.std(), abs=1e-9)
    assert stored["classes"] == ["HeLa", "U-2 OS"]
    assert (part == "validation").sum() == 4  # 12 cells at 70/30


def test_a_run_without_preloading_learns_the_same(data):
    train(data)
    train(data, "--no-preload", "--run", str(data / "other"))
    kept, read = (load_best(data / run, "efficientnet") for run in ("run", "other"))
    assert all(
        torch.equal(kept["model_state_dict"][name], read["model_state_dict"][name])
        for name in kept["model_state_dict"]
    )


def test_the_image_size_left_out_is_the_networks_own(data):
    arguments = list(SMALL)
    place = arguments.index("--image-size")
    del arguments[place : place + 2]
    cell_lines.main(["train", "--data", str(data), "--run", str(data / "run"), *arguments])
    assert load_best(data / "run", "efficientnet")["settings"]["image_size"] == 160


# -- the demo: all commands on a small data set


@pytest.mark.slow  # needs the whole demo
def test_the_demo_tells_the_nine_lines_apart(demo):
    scores = json.loads((demo / "run" / "evaluation" / "classification.json").read_text())
    assert len(scores["classes"]) == 9
    assert scores["balanced_accuracy"] > 0.6  # chance: 0.11
    metrics = pd.read_csv(demo / "run" / "metrics.csv")
    assert metrics.epoch.tolist() == list(range(10))
    assert metrics.train_loss.iloc[-1] < metrics.train_loss.iloc[0] / 2
    best = load_best(demo / "run", "efficientnet")
    assert best["best_loss"] == pytest.approx(metrics.val_loss.min(), abs=1e-5)
    assert scores["balanced_accuracy"] == pytest.approx(
        best["metrics"]["balanced_accuracy"], abs=1e-6
    )


@pytest.mark.slow  # needs the whole demo
def test_the_split_is_70_to_30_and_alike_in_all_lines(demo):
    table = pd.read_csv(demo / "data" / "train.csv")
    part = pd.read_csv(demo / "run" / "split.csv")
    assert sorted(part.id) == sorted(table.id)
    held_out = part.part == "validation"
    assert held_out.sum() == round(0.3 * len(table))
    lines = table.set_index("id").cell_line[part.id[held_out]]
    assert set(lines.value_counts()) == {7, 8}  # of 25


@pytest.mark.slow  # needs the whole demo
def test_tokens_are_decoded_to_the_names_of_the_lines(demo):
    """The submission against a forward pass of its own: NumPy reads, timm computes."""
    submission = pd.read_csv(demo / "run" / "submission.csv")
    assert submission.columns.tolist() == ["id", "cell_line"]
    names = sorted({p.name.rsplit("_", 1)[0] for p in (demo / "data/test/images").iterdir()})
    assert submission.id.tolist() == names and len(names) == 45
    best = torch.load(demo / "run" / "checkpoints" / "efficientnet_best.pth", weights_only=True)
    known = best["settings"]
    assert known["classes"] == sorted(drawings.CELL_LINES)
    import timm

    model = timm.create_model(known["backbone"], num_classes=9)
    model.load_state_dict(best["model_state_dict"])
    folder = demo / "data" / "test" / "images"
    pictures = np.stack(
        [
            [
                np.asarray(Image.open(folder / f"{name}_{channel}.png")) / 255
                for channel in ("nucleus", "microtubules", "er")
            ]
            for name in names
        ]
    )  # drawn in 64 x 64 pixels, which is the run's image size
    mean, deviation = (np.array(known[k])[:, None, None] for k in ("mean", "deviation"))
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy((pictures - mean) / deviation).float())
    expected = [known["classes"][token] for token in logits.argmax(1)]
    assert submission.cell_line.tolist() == expected
    truth = [drawings.CELL_LINES[int(name[-4:]) % 9] for name in names]
    assert np.mean([a == b for a, b in zip(expected, truth, strict=True)]) > 0.6


@pytest.mark.slow  # needs the whole demo
def test_evaluate_prints_balanced_accuracy_first(demo, capsys):
    run = ["--run", str(demo / "run"), "--part", "all"]
    cell_lines.main(["evaluate", "--data", str(demo / "data"), *run])
    assert capsys.readouterr().out.startswith("balanced accuracy 0.")
    scores = json.loads((demo / "run" / "evaluation" / "classification.json").read_text())
    assert scores["images"] == 225
    recalls = [line["recall"] for line in scores["classes"].values()]
    assert scores["balanced_accuracy"] == pytest.approx(np.mean(recalls))


@pytest.mark.slow  # needs the whole demo
def test_evaluate_refuses_a_line_that_the_model_does_not_know_and_foreign_cells(demo, data):
    run = ["--run", str(demo / "run")]
    with pytest.raises(UserError, match="none of the run's validation images: use --part all"):
        cell_lines.main(["evaluate", "--data", str(data), *run])
    table = pd.read_csv(data / "train.csv")
    table.loc[2, "cell_line"] = "K-562"
    table.to_csv(data / "train.csv", index=False)
    with pytest.raises(UserError, match="has the label 'K-562'; the classes are A-431, A549"):
        cell_lines.main(["evaluate", "--data", str(data), *run, "--part", "all"])


def test_the_package_finds_the_system_by_its_name(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["capstones", "cell-lines", "train", "--data", str(tmp_path)])
    with pytest.raises(UserError, match=r"there is no folder .*images"):
        capstones_main()
