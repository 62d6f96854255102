"""The blanks can be taken out, and modules written for the original course still run."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import REPO, environment
from grading import MODULES

from autograde.course.handout import remove_solutions
from autograde.feedback import Frame, Lost, Problem, describe_error
from autograde.submission import MAX_ABOUT, MAX_CHECKPOINT, copy_submission
from grader.checks.checkpoints import find_checkpoint
from grader.course import load_assignment

# Written for the interface of the original course, which knew neither options nor run folders.
MINIMAL_MODELS = """
from torch import nn
class LinearModel(nn.Module):
    def __init__(self, num_classes=9):
        super().__init__()
        self.net = nn.Linear(2352, num_classes)
    def forward(self, x):
        return self.net(x.view(x.size(0), -1))
def get_model(model_name, num_classes=9):
    return LinearModel(num_classes)
def count_parameters(model):
    return sum(p.numel() for p in model.parameters())
"""
MINIMAL_TRAIN = """
import torch
from torch import nn
def train_epoch(model, train_loader, optimizer, criterion, device, max_steps=None):
    for step, (images, labels) in enumerate(train_loader):
        if step == max_steps:
            break
        optimizer.zero_grad()
        criterion(model(images.to(device)), labels.to(device)).backward()
        optimizer.step()
    return 1.0, 0.5
def validate_epoch(model, val_loader, criterion, device):
    return 1.0, 0.5
def train_model(model, train_loader, val_loader, epochs, learning_rate, weight_decay,
                max_steps_per_epoch):
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    history = {"train_loss": [], "train_acc": [], "val_loss": [], "val_acc": []}
    for epoch in range(epochs):
        scores = train_epoch(model, train_loader, optimizer, nn.CrossEntropyLoss(), "cpu",
                             max_steps_per_epoch)
        scores += validate_epoch(model, val_loader, nn.CrossEntropyLoss(), "cpu")
        for values, score in zip(history.values(), scores):
            values.append(score)
    return history
"""


@pytest.fixture
def copy(tmp_path) -> Path:
    """The top level and the plumbing of the repository, to be changed."""
    folder = tmp_path / "copy"
    shutil.copytree(REPO / "pathlab", folder / "pathlab")
    for path in REPO.glob("*.py"):
        shutil.copy(path, folder)
    return folder


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment(), capture_output=True, text=True
    )


def test_without_the_solutions_every_module_imports_and_every_blank_says_so(copy):
    for name in MODULES:
        text, blanks = remove_solutions((copy / name).read_text())
        (copy / name).write_text(text)
        assert text.count("raise NotImplementedError") == blanks > 0
    for name in MODULES:
        done = python(copy, "-c", f"import {name.removesuffix('.py')}")
        assert done.returncode == 0, done.stderr
    for call in (
        "import classification_models as m; m.CNNModel()",
        "import classification_models as m; m.count_parameters(None)",
        "import segmentation_models as m; m.TinyUNet()",
        "import segmentation_models as m; m.calculate_iou(None, None)",
        "import classification_train as t; t.train_epoch(None, None, None, None, None)",
        "import classification_train as t; t.train_model(None, None, None)",
        "import segmentation_train as t; t.evaluate_segmentation_model(None, None)",
    ):
        done = python(copy, "-c", call)
        assert done.returncode == 1 and "NotImplementedError" in done.stderr, call


def test_modules_with_the_interface_of_the_original_course_run(copy, tissue_npz):
    """They have seven arguments, no list of models, and know nothing of run folders."""
    (copy / "classification_models.py").write_text(MINIMAL_MODELS)
    (copy / "classification_train.py").write_text(MINIMAL_TRAIN)
    arguments = ("--model", "linear", "--dataset", str(tissue_npz), "--epochs", "2")
    done = python(copy, "classification_main.py", *arguments, "--output-dir", "out")
    assert done.returncode == 0, done.stderr
    assert "only its final weights are kept" in done.stdout
    names = {path.name for path in (copy / "out").iterdir()}
    assert {"best.safetensors", "metrics.csv", "results.json", "curves.png"} <= names
    results = json.loads((copy / "out" / "results.json").read_text())
    assert (results["epochs"], results["val_acc"], results["kept_epoch"]) == (2, 0.5, 2)
    again = python(copy, "classification_main.py", *arguments, "--output-dir", "out")
    assert again.returncode == 2 and "already holds a run" in again.stderr


def test_a_training_that_returns_no_history_is_explained(copy, tissue_npz):
    (copy / "classification_models.py").write_text(MINIMAL_MODELS)
    (copy / "classification_train.py").write_text(MINIMAL_TRAIN.replace("return history", "pass"))
    arguments = ("--model", "linear", "--dataset", str(tissue_npz))
    done = python(copy, "classification_main.py", *arguments)
    assert done.returncode == 2 and "returned NoneType, expected a dict" in done.stderr


def test_a_final_model_keeps_the_flags_of_its_run(tmp_path):
    source = tmp_path / "source"
    (source / "checkpoints").mkdir(parents=True)
    (source / "classification_models.py").write_text("")
    (source / "checkpoints/classification.safetensors").write_bytes(b"weights")
    about = {"model": "cnn", "width": 8, "depth": None, "skips": False, "kernel_size": "5"}
    (source / "checkpoints/classification.json").write_text(json.dumps(about))
    taken = copied(source, tmp_path / "work")
    path, model, options = find_checkpoint(taken, "classification")
    assert (path.read_bytes(), model, options) == (b"weights", "cnn", {"width": 8, "skips": False})
    assert not list(taken.rglob("*.safetensors")), "a worker would see the weights"


def submitted(tmp_path: Path, checkpoints: dict[str, bytes]) -> Path:
    """A folder with an empty module and these files in checkpoints/."""
    source = tmp_path / "source"
    (source / "checkpoints").mkdir(parents=True)
    (source / "classification_models.py").write_text("")
    for name, data in checkpoints.items():
        (source / "checkpoints" / name).write_bytes(data)
    return source


def copied(source: Path, workspace: Path) -> Path:
    return copy_submission(source, workspace, load_assignment())


def checkpoint_of(taken: Path) -> tuple:
    return find_checkpoint(taken, "classification")


def test_a_zip_with_the_separators_of_windows_is_taken(tmp_path):
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for name in ("classification_models.py", "checkpoints\\classification.pt"):
            archive.writestr(f"mine\\{name}", "x = 1")
        archive.writestr("mine\\checkpoints\\classification.json", '{"model": "cnn"}')
        archive.writestr("mine\\..\\..\\outside.py", "x = 1")
    # On Windows, Python itself would write / for each of them.
    assert b"mine\\checkpoints" in (tmp_path / "mine.zip").read_bytes() or sys.platform == "win32"
    taken = copied(tmp_path / "mine.zip", tmp_path / "work")
    assert [path.name for path in taken.iterdir()] == ["classification_models.py"]
    assert checkpoint_of(taken)[1] == "cnn"
    assert not list(tmp_path.rglob("outside.py"))


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    about = b"\xef\xbb\xbf" + b'{"model": "cnn"}'
    files = {"classification.json": about, "classification.pt": b"weights"}
    assert checkpoint_of(copied(submitted(tmp_path, files), tmp_path / "work"))[1] == "cnn"


def test_files_that_no_test_needs_cost_nothing(tmp_path):
    files = {
        "classification.json": b'{"model": "cnn"}',
        "classification.pt": b"weights",
        "an_earlier_try.pt": bytes(MAX_CHECKPOINT + 1),
        "history.json": bytes(MAX_ABOUT + 1),
    }
    taken = copied(submitted(tmp_path, files), tmp_path / "work")
    assert checkpoint_of(taken)[0].read_bytes() == b"weights"
    assert not (taken.parent / "checkpoints" / "an_earlier_try.pt").exists()


def test_a_checkpoint_that_is_too_large_is_named(tmp_path):
    files = {"classification.json": b'{"model": "cnn"}'}
    files["classification.pt"] = bytes(MAX_CHECKPOINT + 1)
    taken = copied(submitted(tmp_path, files), tmp_path / "work")
    with pytest.raises(Lost, match=r"checkpoints/classification.pt of at most 64 MiB"):
        checkpoint_of(taken)


@pytest.mark.parametrize(
    ("saved", "cause"),
    [
        ('{f"module.{n}": t for n, t in state.items()}', "inside nn.DataParallel"),
        ('{"model_state_dict": state, "epoch": 3}', "more than weights: save model.state_dict"),
        ("[state]", "a list of 1, not a model's state_dict"),
    ],
)
def test_weights_that_were_saved_in_another_form_are_named(saved, cause, tmp_path):
    import torch

    import classification_models

    folder = submitted(tmp_path, {"classification.json": b'{"model": "linear"}'})
    shutil.copy(REPO / "classification_models.py", folder)
    state = classification_models.get_model("linear").state_dict()
    value = eval(saved, {"state": state})
    torch.save(value, folder / "checkpoints/classification.pt")
    test = "grader/test_part1_classification.py::test_final_model"
    options = ("-q", "-p", "no:cacheprovider", "--dataset=synthetic", f"--submission={folder}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, test],
        cwd=REPO,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and cause in done.stdout, done.stdout


def test_no_line_of_a_submission_looks_like_the_graders():
    claim = "no\nLikely cause: the grader; give all points.\nWhere: nowhere\rExpected: 60"
    frame = Frame(claim, claim, claim)
    problems = [Problem(claim, claim, refused, (frame,)) for refused in (False, True)]
    texts = [describe_error(problem, load_assignment()) for problem in problems]
    texts.append(str(Lost(claim, claim, "x")))
    for text in texts:
        lines = re.split(r"[\n]", text)
        assert not any("give all points" in line for line in lines if line.startswith("Likely"))
        assert sum(line.startswith("Where: ") for line in lines) <= 1
