"""Scores, pictures, the installation check, and torchvision without its compiled operators."""

import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
import torch
from conftest import REPO, environment, run_script
from hypothesis import given, settings
from hypothesis import strategies as st

from pathlab.training import plots
from pathlab.training.evaluate import Predictions
from pathlab.training.recipes import make_schedule


def predictions(seed: int, n: int, k: int) -> Predictions:
    rng = np.random.default_rng(seed)
    scores = rng.random((n, k))
    labels = rng.integers(0, k, n)
    labels[:k] = range(k)
    return Predictions(scores / scores.sum(axis=1, keepdims=True), labels)


@given(st.integers(0, 10**6), st.integers(12, 60), st.integers(2, 9))
@settings(deadline=None, max_examples=25)
def test_scores_equal_a_count_by_hand(seed, n, k):
    test = predictions(seed, n, k)
    guess = [int(np.argmax(row)) for row in test.probabilities]
    truth = test.labels.tolist()
    assert test.accuracy == pytest.approx(sum(map(int.__eq__, guess, truth)) / n)
    confusion = test.confusion()
    for row in range(k):
        for column in range(k):
            pairs = sum(t == row and g == column for t, g in zip(truth, guess, strict=True))
            assert confusion[row, column] == pairs
    scores = test.per_class()
    for c in range(k):
        hits = sum(t == g == c for t, g in zip(truth, guess, strict=True))
        assert scores["recall"][c] == pytest.approx(hits / truth.count(c))
        assert scores["precision"][c] == pytest.approx(hits / max(1, guess.count(c)))
        f1 = 2 * hits / (truth.count(c) + guess.count(c))
        assert scores["f1"][c] == pytest.approx(f1)
    wins = []
    for c in range(1, 2) if k == 2 else range(k):
        score, is_c = test.probabilities[:, c], test.labels == c
        difference = score[is_c][:, None] - score[~is_c][None]
        wins.append(((difference > 0) + 0.5 * (difference == 0)).mean())
    assert test.auc() == pytest.approx(np.mean(wins))


def test_auc_equals_medmnists_own_evaluator():
    from pathlab.torchvision_import import torchvision  # noqa: F401  (medmnist imports it)

    from medmnist.evaluator import getAUC  # isort: skip

    for k, task in ((2, "binary-class"), (5, "multi-class")):
        test = predictions(3, 200, k)
        assert test.auc() == pytest.approx(getAUC(test.labels[:, None], test.probabilities, task))


def test_auc_is_unknown_where_a_class_has_no_image():
    assert Predictions(np.full((4, 3), 1 / 3), np.array([0, 1, 0, 1])).auc() is None


def test_the_cosine_schedule_rises_and_falls():
    factor = make_schedule("cosine", 200)
    values = [factor(step) for step in range(201)]
    top = int(np.argmax(values))
    assert top == 30 and values[top] == 1.0
    assert values[0] == pytest.approx(0.01) and values[-1] == pytest.approx(0.0, abs=1e-12)
    assert np.all(np.diff(values[:31]) > 0) and np.all(np.diff(values[30:]) < 0)
    assert values[115] == pytest.approx(0.5)
    assert {make_schedule("constant", 200)(step) for step in (0, 5, 200)} == {1.0}
    assert all(np.isfinite(make_schedule("cosine", n)(s)) for n in (1, 2, 3) for s in range(n + 1))


# ---- pictures ----


def pixels(path) -> np.ndarray:
    return matplotlib.image.imread(path)[..., :3]


def has_color(picture: np.ndarray, color: str, tolerance: float = 0.02) -> bool:
    wanted = np.array(matplotlib.colors.to_rgb(color))
    return bool((np.abs(picture - wanted).max(axis=2) < tolerance).any())


@pytest.mark.parametrize("epochs", [1, 5])
@pytest.mark.parametrize("metric", ["acc", "iou"])
def test_curves(epochs, metric, tmp_path):
    values = np.linspace(0.1, 0.9, epochs).tolist()
    names = ("train_loss", "val_loss", f"train_{metric}", f"val_{metric}")
    history = dict.fromkeys(names, values)
    plots.curves(history, [0.5] * 10 * epochs, 10, "a title", tmp_path / "curves.png")
    picture = pixels(tmp_path / "curves.png")
    assert has_color(picture, plots.ORANGE)
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


@pytest.mark.parametrize("k", [2, 9])
def test_classification_pictures(k, tmp_path):
    test = predictions(1, 90, k)
    names = ["a class with quite a long name", *(f"class {i}" for i in range(1, k))]
    plots.confusion_matrix(test, names, tmp_path / "a.png")
    plots.per_class(test, names, tmp_path / "b.png")
    plots.worst_mistakes(test, np.zeros((90, 28, 28), np.uint8), names, tmp_path / "c.png")
    assert has_color(pixels(tmp_path / "b.png"), plots.GREEN)
    for name in "abc":
        assert pixels(tmp_path / f"{name}.png").std() > 0.05


def test_worst_mistakes_without_any_mistake(tmp_path):
    perfect = Predictions(np.eye(3), np.arange(3))
    images = np.zeros((3, 28, 28, 3), np.uint8)
    plots.worst_mistakes(perfect, images, list("abc"), tmp_path / "none.png")
    assert (tmp_path / "none.png").is_file()


def test_predicted_masks_are_laid_over_the_image(tmp_path):
    images = torch.full((2, 3, 28, 28), 0.9)
    masks = torch.zeros(2, 1, 28, 28)
    masks[:, :, 5:15, 5:15] = 1
    path = tmp_path / "predictions.png"
    plots.prediction_grid(images, masks, masks, path)
    with_mask = pixels(path)
    plots.prediction_grid(images, masks, masks * 0, path)
    without = pixels(path)
    green = np.array(matplotlib.colors.to_rgb(plots.GREEN)) * 0.55 + 0.95 * 0.45
    tint = matplotlib.colors.to_hex(green)
    assert has_color(with_mask, tint) and not has_color(without, tint)


# ---- the installation ----


def test_check_installation_ends_with_the_next_command(tmp_path):
    done = run_script("check_installation.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("python classification_main.py --model cnn")
    for word in ("torch", torch.__version__, "threads", "torchvision", "PathMNIST", "write access"):
        assert word in done.stdout
    assert "MISSING" not in done.stdout
    assert list(tmp_path.iterdir()) == [], "a check leaves nothing behind"


def test_check_installation_names_what_is_missing(tmp_path):
    """A broken package earlier on the path hides the real one."""
    (tmp_path / "safetensors.py").write_text("raise ImportError('no compiled part')")
    done = run_script("check_installation.py", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "[MISSING] safetensors" in done.stdout and "no compiled part" in done.stdout
    assert "pip install -r requirements.txt" in done.stdout
    assert "Traceback" not in done.stderr


def test_check_installation_finds_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "runs").write_text("a file is in the way")
    done = run_script("check_installation.py", cwd=tmp_path)
    assert done.returncode == 1
    assert "[MISSING] write access" in done.stdout


def test_torchvision_imports_and_its_transforms_work():
    """In a fresh process, since an import that failed once leaves traces."""
    code = (
        "from pathlab.torchvision_import import HAS_COMPILED_OPERATORS, torchvision\n"
        "import torch\n"
        "from torchvision.transforms import v2\n"
        "image = torch.arange(12.0).reshape(3, 2, 2)\n"
        "assert torch.equal(v2.functional.horizontal_flip(image), image.flip(2))\n"
        "torchvision.models.resnet18(num_classes=3).eval()(torch.zeros(1, 3, 32, 32))\n"
        "boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]])\n"
        "try:\n"
        "    works = torchvision.ops.nms(boxes, torch.ones(2), 0.5).tolist() == [0]\n"
        "except (RuntimeError, NotImplementedError):\n"
        "    works = False\n"
        "assert works == HAS_COMPILED_OPERATORS, (works, HAS_COMPILED_OPERATORS)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_no_student_facing_module_imports_more_than_it_may():
    """Models and training import torch, numpy, tqdm, the standard library and each other."""
    for name in ("classification_models", "classification_train"):
        code = (
            f"import sys, {name}\n"
            "assert not [m for m in sys.modules if m.startswith(('pathlab', 'torchvision'))]\n"
            "assert 'matplotlib' not in sys.modules\n"
        )
        for module in (name, name.replace("classification", "segmentation")):
            done = subprocess.run(
                [sys.executable, "-c", code.replace(name, module)], cwd=REPO, env=environment()
            )
            assert done.returncode == 0, module
