"""What every capstone does alike, once for each: mistakes in the data, runs, defaults, resuming."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import REPO, assert_user_error, environment

import pathlab.torchvision_import  # noqa: F401  (before Lightning, which imports torchvision)

pytest.importorskip("lightning")
pytest.importorskip("timm")

from capstones import cell_lines, cervical, drawings, multimodal, spine
from capstones.checkpoints import best_path, last_path, load_best
from pathlab.errors import UserError

SMALL = ["--no-pretrained", "--backbone", "test_resnet", "--image-size", "32", "--batch-size", "8"]
SMALL += ["--accelerator", "cpu", "--epochs", "3"]


@dataclass
class Case:
    """A system, how its data is drawn, one of its files, and the training that is tried."""

    module: object
    draw: Callable[[Path], None]
    image: str
    table: str
    network: str
    flags: list[str]
    command: str = "train"
    log: str = "metrics.csv"
    documented: dict = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.module.__name__.rpartition(".")[2]

    def train(self, data: Path, run: Path, *more: str) -> list[str]:
        return [self.command, "--data", str(data), "--run", str(run), *SMALL, *self.flags, *more]


CASES = [
    Case(
        multimodal,
        lambda folder: drawings.draw_multimodal(folder, 36, 32),
        "BF/cell_0003.png",
        "train.csv",
        "convnext",
        ["--validation", "0.25"],
        documented={"backbone": "convnext_large", "image_size": 384, "modalities": "both"}
        | {"epochs": 30, "batch_size": 4, "learning_rate": 1e-4, "weight_decay": 0, "clip": 1}
        | {"validation": 0.1, "patience": 8, "restart": 10, "quick": False, "precision": "auto"},
    ),
    Case(
        cell_lines,
        lambda folder: drawings.draw_cell_lines(folder, 54, 32),
        "images/cell_0003_er.png",
        "train.csv",
        "efficientnet",
        [],
        documented={"backbone": "efficientnet_b1", "image_size": None, "validation": 0.3}
        | {"epochs": 30, "batch_size": 64, "learning_rate": 7e-5, "weight_decay": 1e-6}
        | {"patience": 0},
    ),
    Case(
        cervical,
        lambda folder: drawings.draw_cervical(folder, 20, 32),
        "images/cell_0003.png",
        "labels.csv",
        "segmentation",
        ["--folds", "3", "--backbone", "test_convnext", "--batch-size", "4"],
        command="segment",
        log="logs/segmentation/metrics.csv",
        documented={"backbone": "convnext_tiny", "image_size": 1024, "cytoplasm": "ring"}
        | {"epochs": 100, "batch_size": 8, "learning_rate": 1e-4, "weight_decay": 0.01},
    ),
    Case(
        spine,
        lambda folder: drawings.draw_spines(folder, 40, 32),
        "images/spine_0003.png",
        "labels.csv",
        "resnet50",
        ["--model", "resnet50"],
        log="checkpoints/training_logs/resnet50_log.csv",
        documented={"backbone": spine.BACKBONES, "image_size": 384, "progressive": None}
        | {"epochs": 50, "learning_rate": 1e-4, "model": "all"}
        | {"batch_size": dict(zip(spine.BACKBONES, (32, 24, 32), strict=True))}
        | {"weight_decay": dict(zip(spine.BACKBONES, (1e-4, 5e-5, 1e-4), strict=True))},
    ),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request):
    torch.set_num_threads(1)
    return request.param


@pytest.fixture
def data(case, tmp_path):
    case.draw(tmp_path / "data")
    return tmp_path / "data"


def refused(case, message, data, *more):
    """The training is refused, and nothing is left of it."""
    run = data.parent / "run"
    with pytest.raises(UserError, match=message):
        case.module.main(case.train(data, run, *more))
    assert not run.exists()


def test_defaults_are_the_documents_numbers(case, monkeypatch):
    seen = []
    system = type(case.module.main.__self__)
    monkeypatch.setattr(system, case.command, lambda self, args: seen.append(vars(args)))
    case.module.main([case.command, "--data", "somewhere"])
    assert {name: seen[0][name] for name in case.documented} == case.documented
    assert not seen[0]["no_pretrained"]
    assert seen[0]["run"] == Path(f"runs/capstone-{case.name}")


def test_a_damaged_image_is_named(case, data):
    whole = (data / case.image).read_bytes()
    (data / case.image).write_bytes(whole[: len(whole) // 2])
    refused(case, rf"{Path(case.image).name} cannot be read as an image", data)


def test_labels_without_images_and_images_without_labels_are_named(case, data):
    table = pd.read_csv(data / case.table, dtype=str)
    table[~table.iloc[:, 0].str.contains("0003")].to_csv(data / case.table, index=False)
    refused(case, r"no label for the image \w+_0003", data)
    more = table.iloc[[0]].assign(**{table.columns[0]: "another_9999"})
    pd.concat([table, more]).to_csv(data / case.table, index=False)
    refused(case, r"labels without an image in .*: another_9999", data)


def test_a_table_that_is_not_there_is_named(case, data):
    (data / case.table).unlink()
    refused(case, rf"there is no .*{case.table}\. It should have the columns", data)


def test_an_unknown_backbone_is_named(case, data):
    refused(case, "timm knows no model 'resnet_of_mine'", data, "--backbone", "resnet_of_mine")


def test_a_user_sees_the_message_and_no_traceback(case, tmp_path):
    arguments = case.train(tmp_path / "nowhere", tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-m", "capstones", case.name.replace("_", "-"), *arguments],
        cwd=REPO,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert_user_error(done, "there is no folder", str(tmp_path / "nowhere"))


def test_a_killed_training_is_resumed_as_if_nothing_had_happened(case, data):
    """SIGKILL in its second epoch or later, then --resume, against one that nothing stopped."""
    run, whole = data.parent / "run", data.parent / "whole"
    process = subprocess.Popen(
        [sys.executable, "-m", "capstones", case.name, *case.train(data, run)],
        cwd=REPO,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not last_path(run, case.network).exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    model = ["--model", "resnet50"] if case.name == "spine" else []
    again = [case.command, "--data", str(data), "--run", str(run), *model]
    with pytest.raises(UserError, match="already holds a run"):
        case.module.main(case.train(data, run))
    with pytest.raises(UserError, match="--batch-size was"):
        case.module.main([*again, "--resume", "--batch-size", "7"])
    case.module.main([*again, "--resume"])
    case.module.main(case.train(data, whole))
    tables = [(folder / case.log).read_text() for folder in (run, whole)]
    assert tables[0] == tables[1] and len(tables[0].splitlines()) == 4
    one, other = (load_best(folder, case.network) for folder in (run, whole))
    assert one["epoch"] == other["epoch"] and one["settings"] == other["settings"]
    for name, weight in one["model_state_dict"].items():
        assert torch.equal(weight, other["model_state_dict"][name]), name


def test_a_network_that_is_not_trained_or_damaged_is_named(case, data):
    run = data.parent / "run"
    use = ["predict", "--data", str(data), "--run", str(run)]
    with pytest.raises(UserError, match=r"train first|finish the training"):
        case.module.main(use)
    best_path(run, case.network).parent.mkdir(parents=True)
    best_path(run, case.network).write_bytes(b"no checkpoint")
    if case.name == "spine":  # whose ensemble comes first
        use = ["ensemble", *use[1:]]
    with pytest.raises(UserError, match="not a checkpoint of the capstones, or damaged"):
        case.module.main(use)
