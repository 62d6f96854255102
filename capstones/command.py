"""The command line that the four systems share: flags, run folders, demos."""

import argparse
import json
import shlex
from collections.abc import Callable
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from pathlab.arguments import (
    not_negative_float,
    not_negative_int,
    number,
    positive_float,
    positive_int,
)
from pathlab.errors import UserError
from pathlab.files import make_folder, make_next_folder, write_json

share = number(float, "a share between 0 and 1, such as 0.1", lambda value: 0 < value < 1)

SETTINGS = "settings.json"
# May differ when a run is resumed: they say how and how long, not what.
RUNTIME = {"data", "run", "resume", "workers", "accelerator", "devices", "nodes", "precision"}
RUNTIME |= {"epochs", "patience", "execute", "command"}


def build_parser(
    name: str, about: str
) -> tuple[argparse.ArgumentParser, Callable[..., argparse.ArgumentParser]]:
    """(parser, add_command). add_command(name, help, function) returns that command's parser.

    The parsed flags hold the function as `execute`.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m capstones {name}", description=about, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add_command(command: str, help: str, function: Callable) -> argparse.ArgumentParser:
        added = commands.add_parser(
            command,
            help=help,
            description=help,
            allow_abbrev=False,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        added.set_defaults(execute=function)
        return added

    return parser, add_command


def add_data_flags(parser: argparse.ArgumentParser, name: str) -> None:
    """--data, --run, and how a batch is computed: for every command that reads images."""
    add = parser.add_argument
    add("--data", type=Path, required=True, help="the folder with the images and their table")
    add("--run", type=Path, default=Path(f"runs/capstone-{name}"), help="the run's folder")
    add("--workers", type=not_negative_int, default=0, help="processes that load images")
    add("--accelerator", default="auto", help="of Lightning: auto, cpu, gpu, mps")
    add("--devices", type=positive_int, default=1, help="of this node, one process each")
    add("--nodes", type=positive_int, default=1, help="machines, each started with this command")
    add(
        "--precision",
        default="auto",
        choices=("auto", "32", "16-mixed", "bf16-mixed"),
        help="auto: 16-mixed on an NVIDIA GPU, 32 elsewhere",
    )


def add_training_flags(
    parser: argparse.ArgumentParser,
    *,
    epochs: int,
    batch_size: int | dict[str, int],
    learning_rate: float,
    weight_decay: float | dict[str, float],
    patience: int = 0,
    clip: float = 0.0,
) -> None:
    """The flags of a training, with the system's own defaults; a dictionary has one per network."""
    add = parser.add_argument
    add("--epochs", type=positive_int, default=epochs, help="passes over the training images")
    add("--batch-size", type=positive_int, default=batch_size, help="images in a batch")
    add("--learning-rate", "--lr", type=positive_float, default=learning_rate, help="at the start")
    add("--weight-decay", type=not_negative_float, default=weight_decay, help="of the optimizer")
    add(
        "--patience",
        type=not_negative_int,
        default=patience,
        help="epochs without a new best; 0: never stop early",
    )
    add("--clip", type=not_negative_float, default=clip, help="largest norm of a gradient; 0: any")
    add("--accumulate", type=positive_int, default=1, help="batches for each optimizer step")
    add("--seed", type=not_negative_int, default=0, help="of everything random")
    add("--no-pretrained", action="store_true", help="start from random weights")
    add("--resume", action="store_true", help="go on with the run in --run, with its settings")


def add_part_flag(parser: argparse.ArgumentParser, *more: str) -> None:
    """--part, of every `evaluate`; more: parts that only this system's splits have."""
    parser.add_argument(
        "--part",
        choices=("validation", *more, "all"),
        default="validation",
        help="the images that the run kept out of its training, or (for new data) all",
    )


def add_demo_flags(parser: argparse.ArgumentParser, name: str) -> None:
    """--output, where the demo draws its data and trains."""
    parser.add_argument(
        "--output",
        type=Path,
        default=argparse.SUPPRESS,
        help=f"a new folder (default: the next runs/capstone-{name}-demo-N)",
    )
    parser.set_defaults(system=name)


def parse(
    parser: argparse.ArgumentParser, arguments: list[str], separate: str | None = None
) -> argparse.Namespace:
    """The flags; for a resumed training with the run's own settings as the defaults.

    separate: a flag of the training; one run's folder takes a training for each of its values, and
    each has settings of its own. Give the same name to start_run.

    Raises UserError where --resume finds no run, or is given flags that contradict it.
    """
    args = parser.parse_args(arguments)
    if args.command == "demo" and "output" not in args:
        args.output = make_next_folder(Path(f"runs/capstone-{args.system}-demo"))
    if not getattr(args, "resume", False):
        return args
    saved = read_settings(args.run, _training_name(args, separate))
    given = _given(parser, arguments)
    for name, value in saved.items():
        if name in RUNTIME and name in given:
            continue
        if name in given and _plain(given[name]) != value:
            raise UserError(
                f"the run in {args.run} was started with --{name.replace('_', '-')} {value}. Leave "
                "that flag out, or train in another --run."
            )
        setattr(args, name, value)
    args.data, args.run = Path(args.data), Path(args.run)
    return args


def start_run(args: argparse.Namespace, separate: str | None = None) -> None:
    """Make the run's folder and write its settings, or check that it may be resumed.

    separate: as in parse. Raises UserError where the folder already holds a training by this
    command and --resume was not given.
    """
    if rank_zero_only.rank != 0:  # another process of the same training
        return
    path = args.run / f"{_training_name(args, separate)}-{SETTINGS}"
    if args.resume:
        return
    if path.exists():
        raise UserError(
            f"{args.run} already holds a run. Go on with it by --resume, or name another --run."
        )
    make_folder(args.run)
    settings = {name: _plain(value) for name, value in vars(args).items()}
    write_json(path, {k: v for k, v in settings.items() if k not in ("execute", "resume")})


def read_settings(run: Path, command: str) -> dict:
    """The settings that start_run wrote. Raises UserError where there is no such run."""
    path = run / f"{command}-{SETTINGS}"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{run} holds no run that can be resumed ({path.name} cannot be read). Start one by "
            "leaving --resume out."
        ) from error


def run_demo(main: Callable[[list[str]], None], name: str, commands: list[list[str]]) -> None:
    """Run the system's own commands one after the other, showing each as it would be typed."""
    for i, command in enumerate(commands, 1):
        typed = shlex.join(["python", "-m", "capstones", name, *command])
        print(f"\n[{i}/{len(commands)}] {typed}", flush=True)
        main(command)


def _training_name(args: argparse.Namespace, separate: str | None) -> str:
    return f"{args.command}-{getattr(args, separate)}" if separate else args.command


def _given(parser: argparse.ArgumentParser, arguments: list[str]) -> dict:
    """The flags that the user typed: those whose value does not depend on the defaults."""
    marker = object()
    names = vars(parser.parse_args(arguments))
    (subparsers,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    command = subparsers.choices[names["command"]]
    defaults = {name: command.get_default(name) for name in names if name != "command"}
    command.set_defaults(**dict.fromkeys(defaults, marker))
    try:
        typed = vars(parser.parse_args(arguments))
    finally:
        command.set_defaults(**defaults)
    return {name: value for name, value in typed.items() if value is not marker}


def _plain(value: object) -> object:
    """As JSON has it."""
    return str(value) if isinstance(value, Path) else value
