"""Data sets: what is accepted, what is refused and how, and how batches are cut."""

import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import REPO, assert_user_error, environment, run_script
from hypothesis import given, settings
from hypothesis import strategies as st

from classification_dataset import (
    Batches,
    ImageDataset,
    batch_loader,
    create_dataloaders,
    create_pathmnist_dataloaders,
    to_tensor,
)
from pathlab.data import sets as data_module
from pathlab.data.augment import augment_gray, augment_tissue, random_flips_and_turns
from pathlab.data.download import OfficialSet, official_sets
from pathlab.data.sets import load
from pathlab.errors import UserError
from pathlab.files import md5

pytestmark = pytest.mark.quick


def visible(folder) -> list[str]:
    """What `ls` shows, and that all the rest are locks."""
    hidden = [p for p in folder.iterdir() if p.name.startswith(".")]
    assert all(p.name.endswith(".lock") for p in hidden), hidden
    return sorted({p.name for p in folder.iterdir()} - {p.name for p in hidden})


def save(arrays: dict, path) -> str:
    np.savez_compressed(path, **arrays)
    return str(path)


# ---- what is accepted ----


def test_an_archive_is_decoded_once_into_memory_maps(small_arrays, tmp_path):
    path = save(small_arrays, tmp_path / "mine.npz")
    data = load(path)
    assert (data.name, data.source, data.num_classes) == ("mine", "file", 3)
    assert data.is_gray
    for split in ("train", "val", "test"):
        assert isinstance(data.images[split], np.memmap)
        np.testing.assert_array_equal(data.images[split], small_arrays[f"{split}_images"])
        np.testing.assert_array_equal(data.labels[split], small_arrays[f"{split}_labels"][:, 0])
        assert data.labels[split].dtype == np.int64
    stamp = (tmp_path / "mine.cache" / "source.json").stat().st_mtime_ns
    load(path)
    assert (tmp_path / "mine.cache" / "source.json").stat().st_mtime_ns == stamp
    assert visible(tmp_path) == ["mine.cache", "mine.npz"]


def test_a_changed_archive_is_decoded_again(small_arrays, tmp_path):
    path = save(small_arrays, tmp_path / "mine.npz")
    load(path)
    small_arrays["train_images"] = 255 - small_arrays["train_images"]
    save(small_arrays, tmp_path / "mine.npz")
    np.testing.assert_array_equal(load(path).images["train"], small_arrays["train_images"])


def test_a_read_only_folder_is_left_alone(small_arrays, tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir()
    path = save(small_arrays, folder / "mine.npz")
    folder.chmod(0o555)
    try:
        load(path, tmp_path / "root")
        assert list(folder.iterdir()) == [folder / "mine.npz"]
        names = {p.name.split("-")[0] for p in (tmp_path / "root").glob("*.cache")}
        assert names == {"mine"}
        other = tmp_path / "also-read-only"
        other.mkdir()
        small_arrays["val_images"] = small_arrays["val_images"] // 2
        same_name = save(small_arrays, other / "mine.npz")
        other.chmod(0o555)
        load(same_name, tmp_path / "root")
        assert len(list((tmp_path / "root").glob("mine-*.cache"))) == 2, "two files, two copies"
    finally:
        for path in tmp_path.iterdir():
            path.chmod(0o755)


def test_processes_that_decode_at_the_same_time_all_succeed(tissue_npz, tmp_path):
    archive = tmp_path / "shared.npz"
    archive.write_bytes(tissue_npz.read_bytes())
    code = (
        f"from pathlab.data.sets import load; print(load({str(archive)!r}).images['train'].sum())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=REPO, env=environment(), stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    outputs = [p.communicate(timeout=120)[0].decode() for p in processes]
    assert {p.returncode for p in processes} == {0}
    assert len({output.splitlines()[-1] for output in outputs}) == 1
    assert sum("decoding" in output for output in outputs) == 1, "one for all"
    assert visible(tmp_path) == ["shared.cache", "shared.npz"]


@pytest.mark.parametrize("labels_shape", ["column", "flat"])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_layouts_that_medmnist_files_have(small_arrays, tmp_path, labels_shape, channels):
    for name, array in list(small_arrays.items()):
        if name.endswith("labels") and labels_shape == "flat":
            small_arrays[name] = array[:, 0].astype(np.int32)
        if name.endswith("images") and channels:
            small_arrays[name] = np.repeat(array[..., None], channels, axis=3)
    data = load(save(small_arrays, tmp_path / "mine.npz"))
    images, labels = next(iter(create_dataloaders(data, 4)[0]))
    assert images.shape == (4, 3, 28, 28) and images.dtype == torch.float32
    assert labels.shape == (4,) and labels.dtype == torch.int64


def test_pneumoniamnist_equals_what_medmnist_itself_reads(pneumoniamnist, tmp_path):
    from pathlab.torchvision_import import torchvision  # noqa: F401  (medmnist imports it)

    import medmnist  # isort: skip

    data = load(str(pneumoniamnist), tmp_path)
    assert data.class_names == ("normal", "pneumonia")
    for split in ("train", "val", "test"):
        official = medmnist.PneumoniaMNIST(split, root=str(pneumoniamnist.parent))
        np.testing.assert_array_equal(data.images[split], official.imgs)
        np.testing.assert_array_equal(data.labels[split], official.labels[:, 0])


def test_official_sets_are_the_two_dimensional_ones_of_one_label(pneumoniamnist):
    names = set(official_sets())
    assert {"pathmnist", "bloodmnist", "pneumoniamnist", "retinamnist"} <= names
    assert "chestmnist" not in names, "it has several labels per image"
    assert not any(name.endswith("3d") for name in names)
    assert official_sets()["pneumoniamnist"].md5 == md5(pneumoniamnist)


# ---- what is refused ----


def changed(name, change):
    def apply(arrays):
        arrays[name] = change(arrays[name])

    return apply


REFUSED = {
    "missing": (lambda arrays: arrays.pop("val_labels"), "lacks the arrays val_labels"),
    "float images": (changed("train_images", lambda a: a / 255.0), "float64, expected uint8"),
    "64 pixels": (changed("test_images", lambda a: np.zeros((6, 64, 64), np.uint8)), "(6, 64, 64)"),
    "empty": (changed("val_images", lambda a: a[:0]), "N at least 1"),
    "text labels": (changed("train_labels", lambda a: a.astype(str)), "expected integers"),
    "float labels": (changed("train_labels", lambda a: a * 1.0), "expected integers"),
    "many labels": (changed("train_labels", lambda a: np.zeros((12, 14), np.uint8)), "one label"),
    "too few labels": (changed("train_labels", lambda a: a[:5]), "expected (12, 1)"),
    "negative": (changed("val_labels", lambda a: a.astype(np.int64) - 1), "from -1 to 1"),
    "beyond": (changed("test_labels", lambda a: a + 7), "from 7 to 9; labels must be in 0 to 2"),
    "mixed": (changed("val_images", lambda a: np.stack([a] * 3, axis=3)), "mixes gray and colour"),
    "pickle": (changed("train_labels", lambda a: np.array([{}] * 12)), "cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_layouts_are_refused_by_name(small_arrays, tmp_path, case):
    damage, message = REFUSED[case]
    damage(small_arrays)
    path = save(small_arrays, tmp_path / "mine.npz")
    with pytest.raises(UserError) as caught:
        load(path)
    assert message in str(caught.value)
    assert "mine.npz" in str(caught.value)
    assert not (tmp_path / "mine.cache").exists()


def official_copy(arrays: dict, root, monkeypatch) -> OfficialSet:
    """A small set in `root` that passes for the official BloodMNIST file."""
    root.mkdir()
    save(arrays, root / "bloodmnist.npz")
    fake = OfficialSet(
        "bloodmnist", "http://127.0.0.1:9/blood.npz", md5(root / "bloodmnist.npz"), ()
    )
    monkeypatch.setattr(data_module, "official_sets", lambda: {"bloodmnist": fake})
    return fake


def test_the_right_name_with_the_wrong_content_is_no_official_file(
    small_arrays, tmp_path, monkeypatch
):
    """Also where it was decoded before, as a file given by its path."""
    root = tmp_path / "data"
    official_copy(small_arrays, root, monkeypatch)
    small_arrays["val_images"] = small_arrays["val_images"] // 2
    path = save(small_arrays, root / "bloodmnist.npz")
    assert load(path, root).source == "file"
    with pytest.raises(UserError, match="its MD5 is wrong"):
        load("bloodmnist", root)


@pytest.mark.parametrize("damage", ["truncated", "bit flip", "not a zip"])
def test_a_damaged_official_file_is_set_aside(small_arrays, tmp_path, monkeypatch, damage):
    root = tmp_path / "data"
    official = official_copy(small_arrays, root, monkeypatch)
    assert load("bloodmnist", root).source == "download"
    path = root / "bloodmnist.npz"
    good = path.read_bytes()
    middle = len(good) // 2
    bad = {
        "truncated": good[:middle],
        "bit flip": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
        "not a zip": b"<html>404</html>",
    }[damage]
    path.write_bytes(bad)
    with pytest.raises(UserError) as caught:
        load("bloodmnist", root)
    message = str(caught.value)
    for word in (str(path), official.md5, official.url, "bloodmnist.npz.damaged"):
        assert word in message
    assert not path.exists()
    aside = root / "bloodmnist.npz.damaged"
    assert aside.read_bytes() == bad
    assert md5(aside) in message


def test_a_damaged_file_given_by_path(small_arrays, tmp_path):
    path = tmp_path / "mine.npz"
    save(small_arrays, path)
    path.write_bytes(path.read_bytes()[:-200])
    found = md5(path)
    with pytest.raises(UserError, match=f"mine.npz is damaged.*{found}"):
        load(str(path))
    assert path.exists(), "a file of the user's own stays where it is"


def test_any_flipped_bit_is_an_error_or_harmless(small_arrays, tmp_path):
    path = tmp_path / "mine.npz"
    save(small_arrays, path)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    errors = 0
    for position in rng.integers(0, len(good), 60).tolist() + list(range(4, 34)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 2]) + good[position + 1 :])
        try:
            load(str(path))
        except UserError as error:
            assert "mine.npz" in str(error)
            errors += 1
    assert errors > 50


def test_an_array_that_is_no_archive(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with pytest.raises(UserError, match=r"array\.npz is damaged"):
        load(str(tmp_path / "array.npz"))


def test_a_damaged_decoded_copy_is_named(small_arrays, tmp_path):
    path = save(small_arrays, tmp_path / "mine.npz")
    load(path)
    (tmp_path / "mine.cache" / "val_images.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"mine\.cache is damaged.*Delete that folder"):
        load(path)


def test_unknown_names_get_a_suggestion(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'pathmnist'"):
        load("pathmist", tmp_path)
    with pytest.raises(UserError, match=r"there is no file nowhere\.NPZ"):
        load("nowhere.NPZ", tmp_path)
    with pytest.raises(UserError, match="several labels per image"):
        load("chestmnist", tmp_path)
    with pytest.raises(UserError, match="three-dimensional"):
        load("organmnist3d", tmp_path)


def test_without_download_only_the_disk_counts(small_arrays, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data_module, "STAND_IN_SIZES", {"train": 40, "val": 10, "test": 10})
    monkeypatch.setattr(data_module, "download", lambda *_: pytest.fail("a download was tried"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    root = tmp_path / "data"
    assert load("auto", root, may_download=False).source == "synthetic"
    with pytest.raises(UserError, match="download is off"):
        load("bloodmnist", root, may_download=False)
    save(small_arrays, root / "pathmnist.npz")
    fake = OfficialSet("pathmnist", "http://127.0.0.1:9/x", md5(root / "pathmnist.npz"), ())
    monkeypatch.setattr(data_module, "official_sets", lambda: {"pathmnist": fake})
    assert load("auto", root, may_download=False).source == "download"


def test_the_program_reports_data_errors_without_a_traceback(tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 nothing")
    done = run_script("classification_main.py", "--dataset", "bad.npz", cwd=tmp_path)
    assert_user_error(done, "bad.npz is damaged", "found " + md5(tmp_path / "bad.npz"))
    assert visible(tmp_path) == ["bad.npz"], "no run folder stays behind"


def test_pathmnist_never_falls_back(tmp_path):
    done = run_script("classification_main.py", "--dataset", "pathmnist", cwd=tmp_path)
    official = official_sets()["pathmnist"]
    assert_user_error(done, official.url, official.md5, "data/pathmnist.npz", "synthetic")


# ---- batches ----


@given(st.integers(1, 70), st.integers(1, 20), st.integers(0, 5))
@settings(deadline=None)
def test_every_epoch_is_another_order_of_the_same_images(size, batch_size, seed):
    batches = Batches(size, batch_size, shuffle=True, seed=seed)
    epochs = [list(batches) for _ in range(3)]
    for epoch, lists in enumerate(epochs):
        assert len(lists) == len(batches)
        flat = np.concatenate([indices for _, indices in lists])
        assert {number for number, _ in lists} == {epoch}
        assert len(set(flat)) == len(flat) and set(flat) <= set(range(size))
        if size >= batch_size:
            assert all(len(indices) == batch_size for _, indices in lists)
        else:
            assert len(flat) == size
    resumed = Batches(size, batch_size, shuffle=True, seed=seed)
    resumed.set_epoch(2)
    assert list(resumed) == epochs[2]


@given(st.integers(1, 70), st.integers(1, 20))
def test_without_shuffling_every_image_comes_once_in_order(size, batch_size):
    batches = Batches(size, batch_size, shuffle=False)
    lists = list(batches)
    assert len(lists) == len(batches)
    assert np.concatenate([indices for _, indices in lists]).tolist() == list(range(size))
    assert list(batches) == lists


def test_all_positions_are_drawn_about_equally_often():
    first = [next(iter(Batches(10, 1, shuffle=True, seed=seed)))[1][0] for seed in range(2000)]
    counts = np.bincount(first, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # chi-square, 9 degrees of freedom, p = 0.001


def test_a_batch_is_the_images_scaled_to_minus_one_to_one():
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 3), dtype=np.uint8)
    expected = images.transpose(0, 3, 1, 2) / 127.5 - 1
    np.testing.assert_allclose(to_tensor(images), expected, atol=1e-6)
    gray = to_tensor(images[..., 0])
    assert torch.equal(gray[:, 0], gray[:, 2])
    assert to_tensor(np.array([[[0, 255]]], np.uint8))[0, 0].tolist() == [[-1.0, 1.0]]


def test_worker_processes_bring_the_same_augmented_batches(tissue_npz):
    data = load(str(tissue_npz))
    loaders = [create_dataloaders(data, 64, workers, augment=True, seed=3)[0] for workers in (0, 2)]
    for _ in range(2):  # two epochs
        for (a, labels_a), (b, labels_b) in zip(*loaders, strict=True):
            assert torch.equal(a, b) and torch.equal(labels_a, labels_b)


def test_augmentation_is_fresh_in_every_epoch_and_for_every_seed(tissue_npz):
    data = load(str(tissue_npz))
    dataset = ImageDataset(data.images["train"], data.labels["train"], augment_tissue, seed=1)
    other = ImageDataset(data.images["train"], data.labels["train"], augment_tissue, seed=2)
    indices = list(range(16))
    first, again = dataset[0, indices][0], dataset[indices][0]
    assert torch.equal(first, again)
    assert not torch.equal(first, dataset[1, indices][0])
    assert not torch.equal(first, other[0, indices][0])
    assert torch.equal(dataset[0, indices][1], dataset[1, indices][1])


@pytest.mark.parametrize("augment", [augment_tissue, augment_gray])
def test_augmented_images_keep_shape_and_range(augment):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(40, 3, 28, 28, generator=generator) * 2 - 1
    images[0], images[1] = -1, 1
    changed = augment(images.clone(), generator)
    assert changed.shape == images.shape and changed.dtype == torch.float32
    assert changed.min() >= -1 and changed.max() <= 1
    assert torch.isfinite(changed).all()
    assert (changed - images).abs().mean() > 0.01


def test_gray_images_stay_gray():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(10, 1, 28, 28, generator=generator).expand(-1, 3, -1, -1) * 2 - 1
    changed = augment_gray(images.clone(), generator)
    assert torch.equal(changed[:, 0], changed[:, 1]) and torch.equal(changed[:, 0], changed[:, 2])


def test_flips_and_turns_are_the_eight_symmetries():
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    many = random_flips_and_turns(image.repeat(400, 1, 1, 1), torch.Generator().manual_seed(0))
    seen = {tuple(m.flatten().tolist()) for m in many}
    expected = set()
    for turns in range(4):
        turned = np.rot90(image[0, 0].numpy(), turns)
        expected |= {tuple(turned.flatten()), tuple(turned[:, ::-1].flatten())}
    assert seen == expected


def test_a_data_set_is_a_sequence_that_ends(tissue_npz):
    data = load(str(tissue_npz))
    dataset = ImageDataset(data.images["val"], data.labels["val"])
    assert len(list(dataset)) == len(dataset) == 128
    assert torch.equal(dataset[-1][0], dataset[np.int64(127)][0])
    with pytest.raises(IndexError):
        dataset[128]


def test_the_contract_of_create_pathmnist_dataloaders(tissue_npz):
    train, val, num_classes = create_pathmnist_dataloaders(dataset=str(tissue_npz))
    assert num_classes == 9
    assert isinstance(train, torch.utils.data.DataLoader)
    assert isinstance(val, torch.utils.data.DataLoader)
    images, labels = next(iter(train))
    assert images.shape == (32, 3, 28, 28) and labels.shape == (32,)
    assert images.min() >= -1 and images.max() <= 1
    seen = torch.cat([labels for _, labels in val])
    np.testing.assert_array_equal(seen, load(str(tissue_npz)).labels["val"])


def test_the_stand_in_is_drawn_once_and_announced(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data_module, "STAND_IN_SIZES", {"train": 60, "val": 20, "test": 20})
    first = load("synthetic", tmp_path)
    assert "STAND-IN DATA" in capsys.readouterr().out
    assert (first.source, first.num_classes) == ("synthetic", 9)
    began = time.time_ns()
    second = load("synthetic", tmp_path)
    assert max(p.stat().st_mtime_ns for p in tmp_path.rglob("*.npy")) < began
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(first.images[split], second.images[split])
    assert not np.array_equal(first.images["val"], first.images["test"])


def test_loaders_are_standard_ones(tissue_npz):
    data = load(str(tissue_npz))
    loader = batch_loader(ImageDataset(data.images["train"], data.labels["train"]), "val", 300)
    assert len(loader) == 3
    assert [len(labels) for _, labels in loader] == [300, 300, 40]
