"""Run folders: what they hold, and that nothing ends a training so that it cannot go on."""

import csv
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_user_error, command, environment, hear_ctrl_c, run_script
from safetensors.torch import load_file

from classification_dataset import create_dataloaders
from pathlab.data.sets import load
from pathlab.errors import UserError
from pathlab.files import folder_written_atomically, make_next_folder, write_atomically
from pathlab.training.cli import DEFAULTS
from pathlab.training.recipes import RECIPES
from pathlab.training.run import Run

resource = pytest.importorskip("resource", reason="limits and signals of a Unix system")

SMALL = ("--epochs", "4", "--batch-size", "64", "--no-plots", "--device", "cpu")


def start(script, *arguments, cwd) -> subprocess.Popen:
    return subprocess.Popen(
        command(script, *arguments),
        cwd=cwd,
        env=environment(HOME=f"{cwd}-home", PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )


def wait_for(process: subprocess.Popen, word: str) -> None:
    """Read the program's output until a line has the word."""
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError(f"{word!r} never came: {process.stderr.read()}")


def same_training(a: Path, b: Path) -> bool:
    """Whether two run folders hold exactly the same weights, optimizer state and history."""
    first, second = (torch.load(f / "last.pt", weights_only=True) for f in (a, b))
    best_a, best_b = (load_file(f / "best.safetensors") for f in (a, b))
    moments = [first["optimizer"]["state"], second["optimizer"]["state"]]
    return (
        first["history"] == second["history"]
        and first["step_losses"] == second["step_losses"]
        and all(torch.equal(first["weights"][n], second["weights"][n]) for n in second["weights"])
        and all(torch.equal(best_a[n], best_b[n]) for n in best_b)
        and all(
            torch.equal(torch.as_tensor(moments[0][i][n]), torch.as_tensor(moments[1][i][n]))
            for i in moments[1]
            for n in moments[1][i]
        )
    )


@pytest.mark.parametrize(
    "script, arguments, trainings",
    [
        ("classification_main.py", ("--model", "cnn", "--recipe", "best"), 1),
        pytest.param(
            *("classification_main.py", ("--model", "cnn", "--recipe", "best"), 5),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("segmentation_main.py", ("--model", "unet", "--recipe", "best"), 5),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_killed_at_random_moments_and_resumed_it_ends_the_same(
    script, arguments, trainings, tissue_npz, tmp_path
):
    """SIGKILL in each of so many trainings, at a random moment of a random epoch but the last:
    augmentation, dropout, schedule and boxes included."""
    arguments = (*arguments, *SMALL, "--dataset", tissue_npz)
    done = run_script(script, *arguments, "--output-dir", "whole", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    seconds = json.loads((tmp_path / "whole" / "results.json").read_text())["train_seconds"]
    moments = random.Random(0)
    interrupted = 0
    for trial in range(trainings):
        folder = tmp_path / f"killed-{trial}"
        process = start(script, *arguments, "--output-dir", folder.name, cwd=tmp_path)
        wait_for(process, moments.choice(["recipe", "epoch   1", "epoch   2"]))
        time.sleep(moments.uniform(0, seconds / 4))
        interrupted += process.poll() is None
        process.kill()
        process.communicate()
        done = run_script(script, "--resume", folder.name, "--no-plots", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert same_training(tmp_path / "whole", folder), f"trial {trial} differs"
        assert not list(folder.glob(".*")), "temporary files were left behind"
    assert interrupted > trainings / 2, "most trainings must really have been killed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_says_how_to_go_on_and_that_works(number, tissue_npz, tmp_path):
    arguments = ("--model", "linear", "--epochs", "400", "--no-plots", "--dataset", tissue_npz)
    arguments += ("--output-dir", "my run")
    process = start("classification_main.py", *arguments, cwd=tmp_path)
    wait_for(process, "epoch   2")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    advice = re.search(r"python (classification_main\.py) --resume (.+)", errors)
    assert shlex.split(advice[2]) == ["my run"], "quoted, so that it can be pasted"
    folder = tmp_path / "my run"
    config = json.loads((folder / "config.json").read_text())
    saved = len(torch.load(folder / "last.pt", weights_only=True)["history"]["val_acc"])
    assert 2 <= saved < 400
    config["epochs"] = saved + 2  # so that the test ends soon
    (folder / "config.json").write_text(json.dumps(config))
    done = run_script(advice[1], "--resume", folder, "--no-plots", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "results.json").read_text())["epochs"] == saved + 2


def test_the_run_folder_holds_what_the_contract_names(tissue_npz, tmp_path):
    done = run_script(
        "classification_main.py",
        *("--model_name", "mlp", "--learning_rate", "0.002", "--num_epochs", "2"),
        *("--weight_decay", "0.01", "--seed", "7", "--dataset", tissue_npz),
        *("--output-dir", "out"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    names = {p.name for p in out.iterdir()}
    pictures = {"curves.png", "confusion_matrix.png", "per_class.png", "worst_mistakes.png"}
    assert names == pictures | {"config.json", "metrics.csv", "results.json", "last.pt"} | {
        "best.safetensors"
    }
    results = json.loads((out / "results.json").read_text())
    expected = {"task": "classification", "model": "mlp", "dataset": "tissue", "seed": 7}
    expected |= {"data_source": "file", "num_classes": 9, "epochs": 2, "steps": 40}
    expected |= {"batch_size": 32, "learning_rate": 0.002, "weight_decay": 0.01}
    expected |= {"parameters": (2352 * 512 + 512) + (512 * 256 + 256) + (256 * 9 + 9)}
    assert {name: results[name] for name in expected} == expected
    for name in ("val_acc", "best_val_acc", "test_acc", "test_auc"):
        assert 0 <= results[name] <= 1
    for name in ("train_seconds", "total_seconds", "images_per_second"):
        assert results[name] > 0
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["val_acc"]) == results["val_acc"]
    assert max(float(row["val_acc"]) for row in rows) == results["best_val_acc"]


WITHOUT_UNIX = """
import os, runpy, select, signal, sys
import matplotlib.pyplot, sklearn.metrics, torch  # they know their system by sys.platform
for name in ("fcntl", "resource", "pwd", "grp"):
    sys.modules[name] = None
for module, names in (
    (os, ("fork", "forkpty", "killpg", "setsid", "getuid", "geteuid")),
    (select, ("poll", "epoll")),
    (signal, [n for n in dir(signal) if n.startswith("SIG") and n not in ("SIGINT", "SIGTERM",
        "SIG_DFL", "SIG_IGN", "SIGABRT", "SIGFPE", "SIGILL", "SIGSEGV")]),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_training_needs_nothing_that_windows_lacks(tissue_npz, tmp_path):
    """No fork, no fcntl, no select.poll, and no signals but those that Windows has."""
    script = command("classification_main.py")
    arguments = ("--model", "linear", "--dataset", str(tissue_npz), "--max-steps", "2")
    done = subprocess.run(
        [script[0], "-c", WITHOUT_UNIX, *script[1:], *arguments],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "classification-linear-1" / "results.json").is_file()


def test_a_segmentation_run(tissue_npz, tmp_path):
    arguments = ("--model", "linear", "--dataset", tissue_npz, "--max-steps", "3")
    done = run_script("segmentation_main.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "runs" / "segmentation-linear-1"
    assert (out / "predictions.png").is_file() and (out / "curves.png").is_file()
    results = json.loads((out / "results.json").read_text())
    assert results["task"] == "segmentation" and results["steps"] == 3
    assert all(0 <= results[name] <= 1 for name in ("val_iou", "best_val_iou", "test_iou"))


@pytest.mark.parametrize("keep, epoch", [("best", 2), ("last", 4)])
def test_the_kept_weights_are_those_of_the_right_epoch(keep, epoch, tissue_npz, tmp_path):
    """Driven by hand: the metric is best in the second of four epochs, and tied in the third."""
    data = load(str(tissue_npz))
    settings = {**DEFAULTS, **RECIPES["classification"]["explore"], "task": "classification"}
    settings |= {"model": "linear", "keep": keep}
    run = Run(tmp_path / "run", settings, data, metric="val_acc")
    loader = create_dataloaders(data)[0]
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    history = {"train_loss": [], "train_acc": [], "val_loss": [], "val_acc": []}
    run.resume(model, optimizer, scheduler, loader, history)
    for number, accuracy in enumerate((0.3, 0.8, 0.8, 0.5), start=1):
        torch.nn.init.constant_(model.weight, number)
        for values in history.values():
            values.append(accuracy)
        run.end_epoch(model, optimizer, scheduler, loader, history)
    assert load_file(tmp_path / "run" / "best.safetensors")["weight"].item() == epoch
    run.load_kept(model)
    assert model.weight.item() == epoch
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert [float(row["val_acc"]) for row in rows] == [0.3, 0.8, 0.8, 0.5]
    history["val_loss"][-1] = float("nan")
    with pytest.raises(FloatingPointError):
        run.end_epoch(model, optimizer, scheduler, loader, history)


# ---- what gets a clear error ----


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--model", "resnet"), ("invalid choice: 'resnet'", "mlp")),
        (("--dataset", "pathmist"), ("unknown data set", "Did you mean 'pathmnist'")),
        (("--learning-rate", "0"), ("'0' is not a positive number",)),
        (("--learning-rate", "-0.1"), ("'-0.1' is not a positive number",)),
        (("--learning-rate", "nan"), ("'nan' is not a positive number",)),
        (("--learning-rate", "inf"), ("'inf' is not a positive number",)),
        (("--learning-rate", "fast"), ("'fast' is not a positive number",)),
        (("--epochs", "0"), ("'0' is not a whole number from 1",)),
        (("--batch-size", "1.5"), ("'1.5' is not a whole number",)),
        (("--label-smoothing", "1"), ("below 1",)),
        (("--device", "quantum"), ("--device quantum cannot be used here",)),
        (("--lr", "0.1"), ("unrecognized arguments: --lr",)),
        (("--resume",), ("--resume needs the run's folder",)),
        (("--resume", "nowhere"), ("nowhere/config.json cannot be read",)),
    ],
)
def test_wrong_flags(arguments, words, tmp_path):
    done = run_script("classification_main.py", *arguments, cwd=tmp_path)
    assert_user_error(done, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_is_too_deep_is_refused_before_training(tissue_npz, tmp_path):
    arguments = ("--dataset", tissue_npz, "--depth", "7", "--output-dir", "out")
    done = run_script("classification_main.py", *arguments, cwd=tmp_path)
    assert_user_error(done, "--depth 7")


def test_an_output_folder_that_cannot_be_written(tissue_npz, tmp_path):
    (tmp_path / "file").write_text("in the way")
    arguments = ("--dataset", tissue_npz, "--output-dir", "file/out")
    done = run_script("classification_main.py", *arguments, cwd=tmp_path)
    assert_user_error(done, "cannot write file/out")


@pytest.fixture(scope="module")
def finished(tissue_npz, tmp_path_factory) -> Path:
    """The folder of a finished two-epoch run of the linear model."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = ("--model", "linear", "--epochs", "2", "--no-plots", "--dataset", tissue_npz)
    done = run_script("classification_main.py", *arguments, "--output-dir", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "out"


def test_a_folder_with_a_run_is_not_overwritten(finished, tissue_npz, tmp_path):
    before = {p.name: p.read_bytes() for p in finished.iterdir()}
    arguments = ("--dataset", tissue_npz, "--output-dir", finished)
    done = run_script("classification_main.py", *arguments, cwd=tmp_path)
    assert_user_error(done, "already holds a run", f"--resume {finished}")
    assert {p.name: p.read_bytes() for p in finished.iterdir()} == before


@pytest.mark.parametrize(
    "flags", [("--model", "cnn"), ("--seed", "3"), ("--epochs", "9"), ("--learning-rate", "1")]
)
def test_a_resumed_run_keeps_its_settings(finished, flags, tmp_path):
    done = run_script("classification_main.py", "--resume", finished, *flags, cwd=tmp_path)
    assert_user_error(done, f"{flags[0]}", "A resumed run keeps its settings")


def test_resuming_the_other_task(finished, tmp_path):
    done = run_script("segmentation_main.py", "--resume", finished, cwd=tmp_path)
    assert_user_error(done, "holds a classification run, not a segmentation run")


def test_a_checkpoint_of_another_model(finished, tmp_path):
    """The folder says MLP, but last.pt was trained by another architecture."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "last.pt").write_bytes((finished / "last.pt").read_bytes())
    config = json.loads((finished / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model": "mlp"}))
    done = run_script("classification_main.py", "--resume", folder, cwd=tmp_path)
    assert_user_error(done, "checkpoint of another model", "'linear'", "'mlp'")


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("last.pt", lambda good: good[:1000], "last.pt cannot be read"),
        ("last.pt", lambda good: b"hello", "last.pt cannot be read"),
        ("best.safetensors", lambda good: good[:100], "best.safetensors cannot be read"),
        ("best.safetensors", None, "best.safetensors cannot be read"),
        ("config.json", lambda good: b"[]", "config.json cannot be read"),
        ("config.json", lambda good: b"{}", "config.json cannot be read"),
        ("config.json", lambda good: good.replace(b'"epochs"', b'"x"'), "it lacks epochs"),
    ],
)
def test_damaged_files_of_a_run(finished, name, content, words, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(finished, folder)
    if content:
        (folder / name).write_bytes(content((folder / name).read_bytes()))
    else:
        (folder / name).unlink()
    arguments = ("--resume", folder, "--no-plots")
    done = run_script("classification_main.py", *arguments, cwd=tmp_path)
    assert_user_error(done, words)


def test_resuming_on_other_data(finished, tmp_path, small_arrays):
    """The file was replaced by another one of the same name."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    np.savez(tmp_path / "other.npz", **small_arrays)
    config = json.loads((folder / "config.json").read_text())
    config["dataset"] = str(tmp_path / "other.npz")
    (folder / "config.json").write_text(json.dumps(config))
    done = run_script("classification_main.py", "--resume", folder, cwd=tmp_path)
    assert_user_error(done, "trained on other data", "num_classes was 9, is 3")
    assert json.loads((folder / "config.json").read_text()) == config


def test_resume_and_another_output_folder(finished, tmp_path):
    arguments = ("--resume", finished, "--output-dir", "elsewhere")
    done = run_script("classification_main.py", *arguments, cwd=tmp_path)
    assert_user_error(done, "leave --output-dir elsewhere out")


def test_resuming_a_finished_run_changes_no_weights(finished, tmp_path):
    weights = (finished / "best.safetensors").read_bytes()
    done = run_script(
        "classification_main.py", "--resume", finished / "last.pt", "--no-plots", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (finished / "best.safetensors").read_bytes() == weights


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_a_loss_that_becomes_nan_stops_with_an_explanation(task, tissue_npz, tmp_path):
    arguments = ("--model", "mlp", "--learning-rate", "1e30", "--dataset", tissue_npz)
    done = run_script(f"{task}_main.py", *arguments, cwd=tmp_path)
    assert_user_error(done, "training stopped", "yours is 1e+30, try --learning-rate 1e+29")
    assert not (tmp_path / "runs" / f"{task}-mlp-1" / "results.json").exists()


# ---- files are whole or not there ----


def test_a_full_disk_leaves_the_previous_checkpoint(tissue_npz, tmp_path):
    """A limit on the size of files stands for the full disk: the CNN's last.pt does not fit."""
    base = ("--dataset", tissue_npz, "--no-plots", "--model", "cnn", "--max-steps", "2")
    first = (*base, "--output-dir", "out", "--epochs", "2")
    done = run_script("classification_main.py", *first, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "epochs": 4}))
    before = (out / "last.pt").read_bytes()
    done = subprocess.run(
        command("classification_main.py", "--resume", "out", "--no-plots"),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20)),
    )
    assert_user_error(done, "cannot write out/last.pt", "Free some space")
    assert (out / "last.pt").read_bytes() == before
    assert not list(out.glob(".*"))
    done = run_script("classification_main.py", "--resume", "out", "--no-plots", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "results.json").read_text())["epochs"] == 4


def test_a_writer_killed_at_any_moment_leaves_an_old_or_a_new_file(tmp_path):
    target = tmp_path / "file"
    write_atomically(target, b"a" * 200_000)
    for trial in range(20):
        child = os.fork()
        if child == 0:
            while True:
                for letter in b"abc":
                    write_atomically(target, bytes([letter]) * 200_000)
        time.sleep(0.02 + 0.002 * trial)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        data = target.read_bytes()
        assert len(data) == 200_000 and len(set(data)) == 1


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        write_atomically(tmp_path / "no" / "such" / "folder", b"")
    with pytest.raises(ZeroDivisionError), folder_written_atomically(tmp_path / "new") as folder:
        (folder / "half").write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for content in ("old", "new"):
        with folder_written_atomically(tmp_path / "set") as folder:
            (folder / content).write_text(content)
    assert [p.name for p in (tmp_path / "set").iterdir()] == ["new"]


def test_the_next_free_folder(tmp_path):
    taken = [make_next_folder(tmp_path / "runs" / "cnn").name for _ in range(3)]
    assert taken == ["cnn-1", "cnn-2", "cnn-3"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        make_next_folder(tmp_path / "file" / "cnn")
