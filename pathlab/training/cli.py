"""The command line that both mains share: flags, recipes, and which run they mean."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from pathlab.arguments import (
    not_negative_float,
    not_negative_int,
    odd_int,
    positive_float,
    positive_int,
)
from pathlab.data.sets import is_archive
from pathlab.errors import UserError
from pathlab.training.recipes import MODELS, RECIPES, SCHEDULES
from pathlab.training.run import CHECKPOINT, RESULTS, read_config

DEFAULTS = {"model": "cnn", "dataset": "auto", "seed": 0, "recipe": "explore"}
# Keywords of a model's __init__ that can be given as flags; None leaves them to the model.
OPTIONS = {"width": None, "depth": None, "kernel_size": None}
U_NET_OPTIONS = {"base_channels": None, "skips": None}
LOCAL = {"data_root": "./data", "device": "auto"}  # may change when a run is resumed


def common_parser(task: str) -> argparse.ArgumentParser:
    """The flags of both mains. A flag that the user left out is None: the recipe decides."""
    parser = argparse.ArgumentParser(
        description=f"Train a {task} model and look at what it learned.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_recipe_table(task),
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", "--model_name", choices=MODELS[task], help="the model to train (default: cnn)")
    add(
        "--recipe",
        choices=("explore", "best"),
        help="explore: 100 steps, a first look (default); best: the schedule for final results",
    )
    add(
        "--dataset",
        help="auto (default: PathMNIST, else the drawn stand-in), pathmnist, another 2-D MedMNIST "
        "name, synthetic, or the path of an .npz file in the MedMNIST layout",
    )
    add("--data-root", help="where data sets are kept (default: ./data)")
    add("--epochs", "--num_epochs", type=positive_int, help="passes over the training images")
    add(
        "--max-steps",
        type=not_negative_int,
        help="batches per epoch at most; 0 is no limit, as is --epochs above 1",
    )
    add("--batch-size", type=positive_int, help="images in a training batch")
    add("--learning-rate", "--learning_rate", type=positive_float, help="of AdamW")
    add("--weight-decay", "--weight_decay", type=not_negative_float, help="of AdamW")
    add("--schedule", choices=SCHEDULES, help="how the learning rate changes over the steps")
    add(
        "--keep",
        choices=("best", "last"),
        help="whose weights are kept (best.safetensors) and tested: those of the best validation "
        "epoch, or of the last one",
    )
    add("--width", type=positive_int, help="of the network, if the model has that keyword")
    add("--depth", type=positive_int, help="the same; see the docstrings of the models")
    add("--kernel-size", type=odd_int, help="the same")
    add("--patience", type=not_negative_int, help="stop after so many epochs without a new best")
    add("--seed", type=not_negative_int, help="of everything random (default: 0)")
    add("--device", help="auto (default), cpu, cuda, cuda:1, mps")
    add(
        "--num-workers",
        type=not_negative_int,
        default=0,
        help="processes that load data (default: 0, the fastest for images as small as these)",
    )
    add("--output-dir", type=Path, help="the run's folder (default: the next runs/TASK-MODEL-N)")
    add(
        "--resume",
        nargs="?",
        const=True,
        metavar="DIR",
        help="go on where the run in DIR (or --output-dir) stopped, with its settings",
    )
    add("--no-plots", action="store_true", help="draw no pictures")
    return parser


def settle(args: argparse.Namespace, task: str) -> tuple[dict, Path | None]:
    """(settings, run folder), from the flags and the recipe or from the run that is resumed.

    The folder is None where the next free one is to be taken.

    Raises UserError for flags that contradict the run being resumed, and for a folder that holds
    another run.
    """
    defaults = {**DEFAULTS, **LOCAL, **OPTIONS}
    if task == "segmentation":
        defaults |= {"difficulty": "published", **U_NET_OPTIONS}
    names = [*defaults, *RECIPES[task]["explore"]]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.resume is not None:
        return _settle_resume(args, task, given)
    settings = {"task": task, **defaults, **given}
    recipe = dict(RECIPES[task][settings["recipe"]])
    if given.get("epochs", 1) > 1:
        recipe["max_steps"] = 0  # who asks for a longer schedule gets whole epochs
    settings = {**settings, **recipe, **given}
    settings["dataset"] = _absolute_if_file(settings["dataset"])
    out = args.output_dir
    if out and ((out / CHECKPOINT).exists() or (out / RESULTS).exists()):
        raise UserError(
            f"{out} already holds a run. Continue it with `--resume {out}`, or name another "
            "--output-dir."
        )
    return settings, out


def make_model(make: Callable, settings: dict, **arguments):
    """make(model's name, **arguments), with the options of the model that the settings give.

    Raises UserError for options that the model does not take, or cannot be made with.
    """
    given = {name: settings.get(name) for name in {**OPTIONS, **U_NET_OPTIONS}}
    options = {name: value for name, value in given.items() if value is not None}
    try:
        model = make(settings["model"], **arguments, **options)
        if options:  # too deep a network shows in its first forward pass
            with torch.no_grad():
                model.eval()(torch.zeros(2, 3, 28, 28))
        return model.train()
    except (TypeError, ValueError, RuntimeError) as error:
        if not options:
            raise
        flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
        raise UserError(
            f"the model {settings['model']} cannot be made with {flags}: {error}. Give its "
            "__init__ that keyword (and let get_model pass it on), or leave the flag out."
        ) from error


def _settle_resume(args: argparse.Namespace, task: str, given: dict) -> tuple[dict, Path]:
    folder = args.output_dir if args.resume is True else Path(args.resume)
    if folder is None:
        raise UserError("--resume needs the run's folder: `--resume runs/...`.")
    if folder.name == CHECKPOINT:
        folder = folder.parent
    if args.output_dir not in (None, folder):
        raise UserError(
            f"--resume {folder} goes on in that folder; leave --output-dir {args.output_dir} out."
        )
    settings = read_config(folder)
    if settings.get("task") != task:
        raise UserError(f"{folder} holds a {settings.get('task')} run, not a {task} run.")
    if "dataset" in given:
        given["dataset"] = _absolute_if_file(given["dataset"])
    for name, value in given.items():
        if name in LOCAL:
            settings[name] = value
        elif settings.get(name) != value and not (name == "dataset" and value == "auto"):
            flag = "--" + name.replace("_", "-")
            raise UserError(
                f"{folder} was trained with {flag} {settings.get(name)}, not {value}. A resumed "
                f"run keeps its settings: leave {flag} out, or start again in another --output-dir."
            )
    return settings, folder


def _absolute_if_file(dataset: str) -> str:
    return str(Path(dataset).resolve()) if is_archive(dataset) else dataset


def _recipe_table(task: str) -> str:
    explore, best = RECIPES[task]["explore"], RECIPES[task]["best"]
    rows = [f"  {'recipe':<16}{'explore':>10}{'best':>10}"]
    rows += [f"  {name:<16}{explore[name]!s:>10}{best[name]!s:>10}" for name in explore]
    return "what the recipes set (a flag overrides):\n" + "\n".join(rows)
