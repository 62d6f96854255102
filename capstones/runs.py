"""A run's folder and its settings: written when a training starts, the same when it is resumed."""

import argparse
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from pathlab.errors import UserError
from pathlab.files import make_folder, write_json
from pathlab.settings import as_json, merge, read_settings

# May differ when a run is resumed: they say how and how long, not what.
RUNTIME = {"data", "run", "resume", "workers", "accelerator", "devices", "nodes", "precision"}
RUNTIME |= {"epochs", "patience"}


def settings_path(run: Path, name: str) -> Path:
    """Where the settings of the training `name` stand in a run's folder."""
    return run / f"{name}-settings.json"


def is_helper_process() -> bool:
    """Whether this is one more process of a training that another one leads."""
    return getattr(rank_zero_only, "rank", 0) != 0


def start_run(args: argparse.Namespace, name: str) -> None:
    """Make the run's folder and write the settings of the training `name` into it.

    Raises UserError where the folder already holds such a training and --resume was not given.
    """
    if args.resume or is_helper_process():
        return
    path = settings_path(args.run, name)
    if path.exists():
        raise UserError(
            f"{args.run} already holds a run. Go on with it by --resume, or name another --run."
        )
    make_folder(args.run)
    settings = {k: v for k, v in vars(args).items() if k not in ("execute", "resume")}
    write_json(path, as_json(settings))


def resume_run(args: argparse.Namespace, typed: dict, name: str) -> argparse.Namespace:
    """The flags of a resumed training: those typed, else those of the training `name` in --run.

    typed: the flags that the user gave. Raises UserError where there is no such training, and for
    typed flags that contradict its settings.
    """
    advice = f"{args.run} holds no run that can be resumed: start one by leaving --resume out."
    saved = read_settings(settings_path(args.run, name), advice, required=("data",))
    settings = merge(
        vars(args), saved, typed, folder=args.run, folder_flag="--run", may_change=RUNTIME
    )
    paths = {"data": Path(settings["data"]), "run": args.run}
    return argparse.Namespace(**{**settings, **paths})
