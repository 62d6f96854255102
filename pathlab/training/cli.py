"""The command line that both mains share: flags, recipes, and the run that they refer to."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from pathlab.arguments import (
    not_negative_float,
    not_negative_int,
    odd_int,
    positive_float,
    positive_int,
)
from pathlab.data.sets import is_archive
from pathlab.errors import UserError
from pathlab.settings import flag, merge
from pathlab.training.recipes import MODELS, RECIPES, SCHEDULES
from pathlab.training.run import CHECKPOINT, RESULTS, read_config

DEFAULTS = {"model": "cnn", "dataset": "auto", "seed": 0, "recipe": "explore"}
# Keywords of a model's __init__ that flags can set; None leaves them to the model.
OPTIONS = {"width": None, "depth": None, "kernel_size": None}
U_NET_OPTIONS = {"base_channels": None, "skips": None}
LOCAL = {"data_root": "./data", "device": "auto"}  # may change when a run is resumed


def common_parser(task: str) -> argparse.ArgumentParser:
    """A parser with the flags of both mains; one that the user left out is None."""
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
        choices=RECIPES[task],
        help="explore: a first look (default); best: the final run",
    )
    add(
        "--dataset",
        help="auto (default: PathMNIST, else the drawn stand-in), pathmnist, another 2-D MedMNIST "
        "name, synthetic, or the path of an .npz file in the MedMNIST layout",
    )
    add("--data-root", help="where data sets are kept (default: ./data)")
    add("--epochs", "--num_epochs", type=positive_int, help="passes over the training images")
    help_steps = "most batches in an epoch; 0: all, the default with --epochs above 1"
    add("--max-steps", type=not_negative_int, help=help_steps)
    add("--batch-size", type=positive_int, help="images in a training batch")
    add("--learning-rate", "--learning_rate", type=positive_float, help="AdamW's learning rate")
    add("--weight-decay", "--weight_decay", type=not_negative_float, help="AdamW's weight decay")
    add("--schedule", choices=SCHEDULES, help="how the learning rate changes over the steps")
    add("--keep", choices=("best", "last"), help="the epoch whose weights are kept and tested")
    add("--width", type=positive_int, help="channels of the first stage, if the model has it")
    add("--depth", type=positive_int, help="number of stages, if the model has it")
    add("--kernel-size", type=odd_int, help="size of the convolutions, if the model has it")
    add("--patience", type=not_negative_int, help="epochs without a new best before it stops")
    add("--seed", type=not_negative_int, help="random seed (default: 0)")
    add("--device", help="auto (default), cpu, cuda, cuda:1, mps")
    add("--num-workers", type=not_negative_int, default=0, help="processes that load data")
    add("--output-dir", type=Path, help="the run's folder (default: the next runs/TASK-MODEL-N)")
    add(
        "--resume",
        nargs="?",
        const=True,
        metavar="DIR",
        help="continue the run in DIR (or --output-dir) where it stopped, with its settings",
    )
    add("--no-plots", action="store_true", help="draw no pictures")
    return parser


def resolve_settings(args: argparse.Namespace, task: str) -> tuple[dict, Path | None]:
    """(settings, run folder), from the flags and the recipe, or from the run that is resumed.

    The folder is None where the next free one is to be used.

    Raises UserError for flags that contradict the run being resumed, and for a folder that holds
    another run.
    """
    defaults = {**DEFAULTS, **LOCAL, **OPTIONS}
    if task == "segmentation":
        defaults |= {"difficulty": "published", **U_NET_OPTIONS}
    names = [*defaults, *RECIPES[task]["explore"]]
    typed = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if is_archive(typed.get("dataset", "")):
        typed["dataset"] = str(Path(typed["dataset"]).resolve())
    if args.resume is not None:
        return _resume_settings(args, task, defaults, typed)
    recipe = dict(RECIPES[task][typed.get("recipe", DEFAULTS["recipe"])])
    if typed.get("epochs", 1) > 1:
        recipe["max_steps"] = 0  # a longer schedule means whole epochs
    out = args.output_dir
    if out and ((out / CHECKPOINT).exists() or (out / RESULTS).exists()):
        raise UserError(
            f"{out} already holds a run. Continue it with `--resume {out}`, or name another "
            "--output-dir."
        )
    return merge({"task": task, **defaults, **recipe}, {}, typed), out


def build_model(get_model: Callable[..., nn.Module], settings: dict, **arguments: int) -> nn.Module:
    """get_model(model's name, **arguments), with the options of the model that the settings give.

    Raises UserError for options that the model does not take, or cannot be built with.
    """
    given = {name: settings.get(name) for name in {**OPTIONS, **U_NET_OPTIONS}}
    options = {name: value for name, value in given.items() if value is not None}
    try:
        model = get_model(settings["model"], **arguments, **options)
        if options:  # too deep a network shows in its first forward pass
            with torch.no_grad():
                model.eval()(torch.zeros(2, 3, 28, 28))
        return model.train()
    except (TypeError, ValueError, RuntimeError) as error:
        if not options:
            raise
        flags = " ".join(f"{flag(name)} {value}" for name, value in options.items())
        raise UserError(
            f"the model {settings['model']} cannot be built with {flags}: {error}. Give its "
            "__init__ that keyword (and let get_model pass it on), or leave the flag out."
        ) from error


def _resume_settings(
    args: argparse.Namespace, task: str, defaults: dict, typed: dict
) -> tuple[dict, Path]:
    folder = args.output_dir if args.resume is True else Path(args.resume)
    if folder is None:
        raise UserError("--resume needs the run's folder: `--resume runs/...`.")
    if folder.name == CHECKPOINT:
        folder = folder.parent
    if args.output_dir not in (None, folder):
        raise UserError(
            f"--resume {folder} continues in that folder; leave --output-dir {args.output_dir} out."
        )
    saved = read_config(folder)
    if saved["task"] != task:
        raise UserError(f"{folder} holds a {saved['task']} run, not a {task} run.")
    if typed.get("dataset") == "auto":  # the run knows which data set that was
        del typed["dataset"]
    return merge(defaults, saved, typed, folder=folder, may_change=LOCAL), folder


def _recipe_table(task: str) -> str:
    explore, best = RECIPES[task]["explore"], RECIPES[task]["best"]
    rows = [f"  {'recipe':<16}{'explore':>10}{'best':>10}"]
    rows += [f"  {name:<16}{explore[name]!s:>10}{best[name]!s:>10}" for name in explore]
    return "what the recipes set (a flag overrides):\n" + "\n".join(rows)
