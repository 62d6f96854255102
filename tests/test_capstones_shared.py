"""What the four capstones share: data folders, splits, images, checkpoints, runs, the training."""

import argparse
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

import pathlab.torchvision_import  # noqa: F401  (before Lightning, which imports torchvision)

pytest.importorskip("lightning")
pytest.importorskip("timm")

from capstones import checkpoints, folder, images, splits, training
from capstones.backbones import make_backbone
from capstones.classifier import Classifier
from capstones.driver import System
from capstones.folder import Layout
from pathlab.errors import UserError

LAYOUT = Layout("train.csv", {"name": ("name", "id"), "diagnosis": ("diagnosis", "label")})
TOY = SimpleNamespace(name="toy", monitor="val_loss", mode="min", table="metrics.csv")


# -- tables


def table_of(tmp_path, text):
    path = tmp_path / "train.csv"
    path.write_text(text)
    return folder.read_table(path, LAYOUT.columns)


def test_a_table_is_read_under_our_names_as_text(tmp_path):
    table = table_of(tmp_path, "extra,Label, ID \nx, 1 ,007\ny,NA,8\n")
    assert set(table.columns) == {"name", "diagnosis"}
    assert table["name"].tolist() == ["007", "8"]
    assert table["diagnosis"].tolist() == ["1", "NA"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,colour\na,1\n", r"no column for the diagnosis: its columns are name, colour"),
        ("name,diagnosis\na,1\nb,0\na,0\n", r"has the name 'a' more than once"),
        ("name,diagnosis\na,1\nb,\n", r"line 3: the diagnosis is empty"),
        ("name,diagnosis\n", r"no rows below its header"),
        ("", r"cannot be read as a CSV file"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        table_of(tmp_path, text)


def test_a_missing_table_is_named_with_the_columns_that_it_should_have(tmp_path):
    with pytest.raises(UserError, match=r"no .*train\.csv.*columns name and diagnosis"):
        folder.read_table(tmp_path / "train.csv", LAYOUT.columns)


def categorical(labels, classes=(), **layout):
    return folder.categorical(pd.Series(labels), Layout("", {}, **layout), "train.csv", classes)


def test_classes_are_numbers_by_size_and_names_by_the_alphabet():
    found = categorical(["RT4", "10", "A-431", "2", "HeLa", "A-431"])
    assert list(found.categories) == ["2", "10", "A-431", "HeLa", "RT4"]
    assert found.codes.tolist() == [4, 1, 2, 0, 3, 2]


def test_of_two_classes_the_positive_one_comes_last_however_it_is_spelled():
    assert list(categorical(["A", "Sick"], positive=("a",)).categories) == ["Sick", "A"]
    assert list(categorical(["Sick", "fine"], negative=("fine",)).categories) == ["fine", "Sick"]
    with pytest.raises(UserError, match="the labels b, c: expected two, one of them spelled a"):
        categorical(["b", "c"], positive=("a",))


def test_labels_of_known_classes_are_encoded_and_unknown_ones_named():
    assert categorical(["b", "a", "b"], ["b", "a", "c"]).codes.tolist() == [0, 1, 0]
    with pytest.raises(UserError, match=r"train.csv has the label 'c'; the classes are a, b"):
        categorical(["a", "c"], ["a", "b"])


def samples(codes):
    return pd.DataFrame({"label": pd.Categorical.from_codes(codes, list("abc"))})


def test_a_split_has_the_share_in_every_class_and_is_the_seeds():
    known = samples([0] * 60 + [1] * 30 + [2] * 10)
    parts = splits.divide(known, 0, 0.3)["part"]
    drawn = known["label"][parts == "validation"]
    assert drawn.value_counts(sort=False).tolist() == [18, 9, 3]
    assert set(parts) == {"training", "validation"}
    assert parts.equals(splits.divide(known, 0, 0.3)["part"])
    assert not parts.equals(splits.divide(known, 1, 0.3)["part"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0] * 9 + [2] * 9, "the class b has no image"),
        ([0] * 9 + [1] + [2] * 9, "the class b has 1 image: training"),
        ([0] * 30 + [1] * 2 + [2] * 8, "validation images have none of the class b"),
        ([0, 0, 1, 1, 2, 2], "cannot be split"),
    ],
)
def test_a_class_that_would_be_empty_in_a_part_is_named(labels, message):
    with pytest.raises(UserError, match=message):
        splits.divide(samples(labels), 0, 0.1)


def test_a_single_class_is_named():
    with pytest.raises(UserError, match="only the class a"):
        splits.divide(pd.DataFrame({"label": pd.Categorical(["a"] * 9)}), 0, 0.3)


# -- images


def test_sixteen_bit_images_are_scaled_to_eight(tmp_path):
    values = np.array([[0, 255, 256], [32768, 65280, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    read = images.read_image(tmp_path / "deep.png", "L")
    assert read.dtype == torch.uint8
    assert read.tolist() == [[[0, 0, 1], [128, 255, 255]]]
    assert images.read_image(tmp_path / "deep.png").shape == (3, 2, 3)


def test_damaged_images_are_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not an image")
    images.check_images([(tmp_path / "good.png",)])
    assert np.array_equal(images.read_image(tmp_path / "good.png").permute(1, 2, 0), noise)
    for name in ("cut.png", "text.png", "missing.png"):
        with pytest.raises(UserError, match=f"{name} cannot be read as an image"):
            images.check_images([(tmp_path / "good.png",), (tmp_path / name,)])


def test_images_of_a_folder_are_found_by_name(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        images.find_images(tmp_path / "BF")
    with pytest.raises(UserError, match="holds no image"):
        images.find_images(tmp_path)
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert list(images.find_images(tmp_path)) == ["a", "b"]
    (tmp_path / "a.tif").touch()
    with pytest.raises(UserError, match="two images of the name a"):
        images.find_images(tmp_path)
    assert [images.stem(name) for name in ("x.png", "x", "x.y")] == ["x", "x", "x.y"]


def test_mean_and_deviation_are_over_all_pixels_of_images_of_any_size():
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (3, h, w), dtype=np.uint8) for h, w in ((5, 9), (20, 4))]
    mean, deviation = images.mean_and_deviation(map(torch.from_numpy, arrays))
    for channel in range(3):
        pixels = np.concatenate([array[channel].ravel() for array in arrays]) / 255
        assert mean[channel] == pytest.approx(pixels.mean())
        assert deviation[channel] == pytest.approx(pixels.std())
    with pytest.raises(UserError, match="no training image"):
        images.mean_and_deviation([])


# -- backbones


def test_an_unknown_backbone_is_answered_with_names_like_it():
    with pytest.raises(UserError, match=r"no model 'resnet51'.*Did you mean .*resnet5"):
        make_backbone("resnet51", False)


def test_options_that_a_backbone_does_not_take_are_named():
    with pytest.raises(UserError, match=r"cannot make resnet10t with .*no_such_option"):
        make_backbone("resnet10t", False, no_such_option=1)


# -- checkpoints


def saved(run, model):
    """A checkpoint of epoch 3."""
    path = checkpoints.best_path(run, "toy")
    path.parent.mkdir(parents=True)
    trainer = SimpleNamespace(
        sanity_checking=False,
        is_global_zero=True,
        current_epoch=3,
        optimizers=[torch.optim.Adam(model.parameters())],
        callback_metrics={"val_loss": torch.tensor(0.25), "val_auroc": torch.tensor(0.75)},
    )
    callback = checkpoints.BestCheckpoint(path, "val_loss", "min", {"classes": ["a", "b"]})
    callback.on_validation_end(trainer, SimpleNamespace(model=model))


def test_best_weights_are_read_as_plain_values(tmp_path):
    model = nn.Linear(3, 2)
    saved(tmp_path, model)
    found = torch.load(tmp_path / "checkpoints" / "toy_best.pth", weights_only=True)
    assert found.keys() == {
        *("model_state_dict", "optimizer_state_dict", "epoch", "best_loss", "metrics", "settings")
    }
    assert (found["epoch"], found["best_loss"]) == (3, 0.25)
    assert found["metrics"] == {"loss": 0.25, "auroc": 0.75}
    other = checkpoints.load_weights(nn.Linear(3, 2), checkpoints.load_best(tmp_path, "toy"))
    assert torch.equal(other.weight, model.weight) and not other.training


def test_missing_damaged_and_misfitting_weights_are_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*toy_best\.pth: train first"):
        checkpoints.load_best(tmp_path, "toy")
    saved(tmp_path, nn.Linear(3, 2))
    with pytest.raises(UserError, match="weights do not fit the model"):
        checkpoints.load_weights(nn.Linear(4, 2), checkpoints.load_best(tmp_path, "toy"))
    path = checkpoints.best_path(tmp_path, "toy")
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", b"text"):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=r"toy_best\.pth is not a checkpoint .* or damaged"):
            checkpoints.load_best(tmp_path, "toy")
    torch.save({"epoch": 1}, path)
    with pytest.raises(UserError, match="is not a checkpoint of the capstones"):
        checkpoints.load_best(tmp_path, "toy")


# -- flags and run folders


class Toy(System):
    """A toy."""

    name = "toy"
    purposes = {"train": "train it"}  # noqa: RUF012
    defaults = {  # noqa: RUF012
        "train": {"epochs": 30, "batch_size": 4, "learning_rate": 1e-4, "weight_decay": 0.0}
    }
    split_columns = ("name", "part")


def parse(tmp_path, *flags):
    place = ["--data", str(tmp_path / "data"), "--run", str(tmp_path / "run")]
    return Toy().parse(["train", *place, *flags])


def start(args):
    Toy().start(args, pd.DataFrame({"part": ["training", "validation"]}, index=["a", "b"]))


def test_a_resumed_run_has_the_settings_that_it_was_started_with(tmp_path):
    start(parse(tmp_path, "--batch-size", "8", "--learning-rate", "0.01"))
    again = parse(tmp_path, "--resume", "--batch-size", "8")
    assert (again.batch_size, again.learning_rate, again.epochs) == (8, 0.01, 30)
    assert again.resume and again.data == tmp_path / "data"
    start(again)
    assert parse(tmp_path, "--resume", "--epochs", "50").epochs == 50


def test_a_flag_that_contradicts_the_run_is_named(tmp_path):
    start(parse(tmp_path, "--batch-size", "8"))
    for flags, expected in ((("--batch-size", "4"), "8"), (("--seed", "1"), "0")):
        with pytest.raises(UserError, match=rf"{flags[0]}\b.* was {expected}, is {flags[1]}"):
            parse(tmp_path, "--resume", *flags)


def test_there_must_be_a_run_to_resume_and_none_to_start(tmp_path):
    with pytest.raises(UserError, match="holds no run that can be resumed"):
        parse(tmp_path, "--resume")
    start(parse(tmp_path))
    with pytest.raises(UserError, match=r"already holds a run\. Go on with it by --resume"):
        start(parse(tmp_path))
    (tmp_path / "run" / "train-settings.json").write_text("{")
    with pytest.raises(UserError, match="holds no run that can be resumed"):
        parse(tmp_path, "--resume")


def test_a_run_is_not_gone_on_with_on_another_split(tmp_path):
    start(parse(tmp_path))
    run, other = tmp_path / "run", pd.DataFrame({"part": ["training"] * 2}, index=["a", "b"])
    assert splits.read_parts(run, "name") == {"a": "training", "b": "validation"}
    with pytest.raises(UserError, match=r"split.csv was made from other images, or by other flags"):
        splits.check_split(run, other, "name")


# -- training


def batches(n=24, batch_size=8, scale=1.0, **options):
    images = scale * torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = (images.mean((1, 2, 3)) > 0).long()
    data = TensorDataset(images, labels)
    return training.Batches(data, data, batch_size, **options)


def module(make_optimizer=None, kind=Classifier):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    return kind(model, 2, make_optimizer or (lambda p: torch.optim.Adam(p, 0.01)))


def fit(tmp_path, model, data, **changes):
    args = {
        "run": tmp_path,
        "epochs": 2,
        "patience": 0,
        "clip": 0.0,
        "accumulate": 1,
        "seed": 0,
        "resume": False,
        "accelerator": "cpu",
        "devices": 1,
        "nodes": 1,
        "precision": "32",
        "workers": 0,
    }
    args = argparse.Namespace(**{**args, **changes})
    training.fit(model, data, args, TOY, {})
    return checkpoints.best_path(tmp_path, "toy")


class Scripted(Classifier):
    """Its validation loss is written down."""

    LOSSES = (1.0, 0.5, 0.7, 0.6, 0.1, 0.1)

    def validation_step(self, batch, index):
        self.log("val_loss", self.LOSSES[self.current_epoch])


def test_the_table_has_a_row_for_each_epoch_and_the_best_weights_are_the_best(tmp_path):
    best = fit(tmp_path, module(kind=Scripted), batches(), epochs=4)
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table.epoch.tolist() == [0, 1, 2, 3]
    assert table.val_loss.tolist() == [1.0, 0.5, 0.7, 0.6]
    assert table.learning_rate.tolist() == [0.01] * 4 and table.train_loss.notna().all()
    found = torch.load(best, weights_only=True)
    assert (found["epoch"], found["best_loss"]) == (1, 0.5)
    assert list((tmp_path / "tensorboard").rglob("events.*"))


def test_training_stops_early_after_patience_epochs_without_a_new_best(tmp_path):
    fit(tmp_path, module(kind=Scripted), batches(), epochs=6, patience=2)
    assert pd.read_csv(tmp_path / "metrics.csv").val_loss.tolist() == [1.0, 0.5, 0.7, 0.6]


def test_a_step_is_no_longer_than_the_clipped_gradient(tmp_path):
    for clip, expected in ((0.01, True), (0.0, False)):
        model = module(lambda parameters: torch.optim.SGD(parameters, 1.0))
        before = [p.clone() for p in model.model.parameters()]
        fit(tmp_path / f"{clip}", model, batches(scale=100.0, batch_size=24), epochs=1, clip=clip)
        change = torch.cat(
            [(a - b).flatten() for a, b in zip(model.model.parameters(), before, strict=True)]
        ).norm()
        assert (abs(change - 0.01) < 1e-4) == expected


def test_accumulated_batches_make_one_step_equal_to_that_of_one_large_batch(tmp_path):
    weights = []
    for size, accumulate in ((24, 1), (8, 3)):
        model = module(lambda parameters: torch.optim.SGD(parameters, 0.1))
        data = batches(batch_size=size)
        fit(tmp_path / f"{size}", model, data, epochs=1, accumulate=accumulate)
        assert model.trainer.global_step == 1
        weights.append(model.model[1].weight)
    assert torch.allclose(*weights, atol=1e-6)


def test_a_loss_that_is_not_a_number_ends_the_training_with_advice(tmp_path):
    with pytest.raises(UserError, match=r"not a finite number any more.*--learning-rate"):
        fit(tmp_path, module(), batches(scale=float("inf")))


def test_a_device_that_is_not_there_is_named(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="--accelerator gpu --devices 3 cannot be used here"):
        fit(tmp_path, module(), batches(), accelerator="gpu", devices=3)


def drawn(data, epoch):
    data.trainer = SimpleNamespace(current_epoch=epoch, world_size=1)
    return torch.cat([images.sum((1, 2, 3)) for images, _ in data.train_dataloader()])


def test_order_depends_on_the_seed_and_the_epoch_alone():
    first = drawn(batches(seed=3), 5)
    assert torch.equal(first, drawn(batches(seed=3), 5))
    assert not torch.equal(first, drawn(batches(seed=3), 6))
    assert not torch.equal(first, drawn(batches(seed=4), 5))
    assert torch.equal(first.sort().values, drawn(batches(seed=4), 6).sort().values)


def test_iterating_again_in_an_epoch_gives_the_same_order():
    """Lightning begins to iterate twice in an epoch, but once in a resumed one."""
    data = batches()
    data.trainer = SimpleNamespace(current_epoch=1, world_size=1)
    loader = data.train_dataloader()
    orders = [torch.cat([labels for _, labels in iter(loader)]) for _ in range(2)]
    assert torch.equal(*orders)


def test_weights_balance_the_classes():
    labels = torch.tensor([0] * 900 + [1] * 100)
    data = training.Batches(
        TensorDataset(labels),
        TensorDataset(labels),
        10,
        seed=1,
        weights=(1 / labels.bincount())[labels],
    )
    data.trainer = SimpleNamespace(current_epoch=0, world_size=1)
    seen = torch.cat([batch for (batch,) in data.train_dataloader()])
    assert len(seen) == 1000
    assert 0.45 < seen.float().mean() < 0.55  # standard deviation 0.016


def test_a_last_batch_that_is_not_full_is_left_out_unless_it_is_the_only_one():
    for n, size, expected in ((25, 8, 24), (8, 8, 8), (5, 8, 5)):
        assert len(drawn(batches(n, size), 0)) == expected
    data = batches(12, 8)  # 6 for each of two processes: a batch that is not full
    data.trainer = SimpleNamespace(current_epoch=0, world_size=2)
    assert not data.train_dataloader().drop_last


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, workers):
    class Noisy(torch.utils.data.Dataset):
        """Augments with torch's global generator, as torchvision does."""

        def __len__(self):
            return 20

        def __getitem__(self, i):
            return torch.full((3, 4, 4), i / 20) + torch.randn(3, 4, 4), i % 2

    def dropping():
        model = module()
        model.model.insert(1, nn.Dropout(0.5))
        return model

    ends = []
    for run, parts in (("whole", [4]), ("parts", [2, 4])):
        for part in parts:
            model = dropping()
            data = training.Batches(Noisy(), Noisy(), 8, workers, seed=0)
            fit(tmp_path / run, model, data, epochs=part, resume=part != parts[0])
        ends.append(model.model[2].weight)
        table = pd.read_csv(tmp_path / run / "metrics.csv")
        assert table.epoch.tolist() == [0, 1, 2, 3]
    assert torch.equal(*ends)


def test_a_damaged_last_checkpoint_is_named(tmp_path):
    fit(tmp_path, module(), batches(), epochs=1)
    path = tmp_path / "checkpoints" / "toy_last.ckpt"
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], b""):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=r"toy_last\.ckpt is damaged"):
            fit(tmp_path, module(), batches(), resume=True)


def test_the_checkpoint_of_every_epoch_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(checkpoints, "write_torch", lambda *file: written.append(file))
    fit(tmp_path, module(), batches(), epochs=2)
    last = tmp_path / "checkpoints" / "toy_last.ckpt"
    assert [value["epoch"] for path, value in written if path == last] == [0, 1]


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    fit(tmp_path, module(), batches(), epochs=1)
    path = tmp_path / "checkpoints" / "toy_last.ckpt"
    whole = path.read_bytes()

    def full_disk(*names):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlab.files.os.fsync", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        checkpoints.AtomicCheckpoints().save_checkpoint({"epoch": 9}, str(path))
    assert path.read_bytes() == whole
    assert sorted(p.name for p in path.parent.iterdir()) == ["toy_best.pth", "toy_last.ckpt"]
