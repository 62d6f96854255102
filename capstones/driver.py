"""The one driver of the four systems: commands and flags, training, evaluation, prediction, demo.

A system is a subclass of System, which says what is its own; cell_lines.py is the plainest.
"""

import argparse
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from pandas import DataFrame

from capstones import flags
from capstones.checkpoints import load_best
from capstones.evaluation import report_classification
from capstones.folder import Layout, read_samples, write_table
from capstones.images import check_images
from capstones.network import Network, Training, prepare, probabilities
from capstones.runs import resume_run, start_run
from capstones.splits import check_split, divide, save_split, take_part
from pathlab.files import make_next_folder
from pathlab.training.evaluate import Predictions


class System:
    """A published system. Subclasses say what is its own; the methods here are for one network.

    name: on the command line. purposes: each command, a method of that name, and its help;
    trainings: those of them that train; parts: those that take a part of the run's split, and which
    (the first by default). defaults: of a command's flags, where the shared ones are not right.
    network: the only one, if there is one. layout: of the data folder. split_columns: of split.csv,
    first the names'. submission: the file that `predict` writes. draw: fills a folder with a small
    data set; demo_commands: what the demo runs; {data} stands for that folder.
    """

    name = ""
    purposes: ClassVar[dict[str, str]] = {}
    trainings: Sequence[str] = ("train",)
    parts: ClassVar[dict[str, tuple[str, ...]]] = {"evaluate": ("validation", "all")}
    defaults: ClassVar[dict[str, dict]] = {}
    network: Network
    layout: Layout
    split_columns: tuple[str, ...] = ("image", "part")
    submission = ""
    draw: Callable[[Path], None]
    demo_commands: Sequence[str] = ()

    def add_flags(self, command: str, parser: ArgumentParser, data_required: bool = True) -> None:
        """Add a command's flags. Subclasses add their own."""
        flags.add_data_flags(parser, data_required)
        if command in self.trainings:
            flags.add_training_flags(parser)
        else:
            flags.add_batch_flag(parser)
        if command in self.parts:
            flags.add_part_flag(parser, self.parts[command])
        parser.set_defaults(**self.defaults.get(command, {}))

    def results(self, samples: DataFrame, found: np.ndarray, classes: list[str]) -> DataFrame:
        """The table that `predict` writes. found: float64 [N, n_classes], probabilities."""
        raise NotImplementedError

    def networks(self, args: Namespace) -> list[Network]:
        """The networks that `train` trains, one after the other."""
        return [self.network]

    def training_name(self, args: Namespace) -> str:
        """What the settings of a training are called in its run's folder."""
        return args.command

    def layout_for(self, args: Namespace) -> Layout:
        """The layout of the data that a command takes."""
        return self.layout

    def divide(self, args: Namespace, samples: DataFrame) -> DataFrame:
        """The samples with their parts. Raises UserError where they cannot be divided."""
        return divide(samples, args.seed, args.validation)

    def load(self, args: Namespace, samples: DataFrame) -> DataFrame:
        """The samples, of which every file was read once. Raises UserError for a damaged one."""
        check_images(samples["images"])
        return samples

    def start(self, args: Namespace, samples: DataFrame) -> None:
        """Make the run's folder with its settings and split."""
        start_run(args, self.training_name(args))
        save_split(args.run, samples, self.split_columns)

    def finish(self, args: Namespace, samples: DataFrame) -> None:
        """What follows when all networks are trained."""

    def read(self, args: Namespace, labelled: bool = True) -> DataFrame:
        """The samples in --data, with --part those of that part. Raises as read_samples."""
        classes = getattr(args, "classes", ())
        samples = read_samples(args.data, self.layout_for(args), labelled, classes)
        part = getattr(args, "part", "all")
        return take_part(samples, part, args.run, self.split_columns[0])

    def prepare(self, args: Namespace) -> tuple[DataFrame, list[Training]]:
        """All that can go wrong before a training: data read, split checked, models built."""
        samples = self.divide(args, self.read(args))
        check_split(args.run, samples, self.split_columns[0])
        loaded = self.load(args, samples)
        return samples, [prepare(network, args, loaded) for network in self.networks(args)]

    def train(self, args: Namespace) -> None:
        """Train the networks, or go on with their training."""
        self.run(args, *self.prepare(args))

    def run(self, args: Namespace, samples: DataFrame, trainings: list[Training]) -> None:
        """What was prepared."""
        self.start(args, samples)
        while trainings:
            trainings.pop(0).run()  # and forget the model
        self.finish(args, samples)

    def predict(self, args: Namespace) -> None:
        """Write the results for a folder without labels."""
        args = self.as_trained(args, self.network)
        samples = self.load(args, self.read(args, labelled=False))
        found = probabilities(self.network, args, samples)
        table = self.results(samples, found, args.classes)
        write_table(args.run / self.submission, table)
        print(f"predictions of {len(table)} samples: {args.run / self.submission}")

    def evaluate(self, args: Namespace) -> None:
        """Score the network on labelled images."""
        args = self.as_trained(args, self.network)
        self.report(self.network, args, self.read(args), args.run / "evaluation")

    def as_trained(self, args: Namespace, network: Network) -> Namespace:
        """The flags, and of the run's network the settings that a command has no flags for.

        Raises UserError where it is not trained.
        """
        return Namespace(**{**load_best(args.run, network.name)["settings"], **vars(args)})

    def report(self, network: Network, args: Namespace, samples: DataFrame, folder: Path) -> dict:
        """Score a classifier on labelled samples; print, write and return the scores."""
        labels = samples["label"].cat.codes.to_numpy(np.int64)
        found = probabilities(network, args, self.load(args, samples))
        test = Predictions(found, labels, args.part)
        return report_classification(test, list(samples["label"].cat.categories), folder)

    def demo(self, args: Namespace) -> None:
        """Draw a small data set and run the system's own commands, shown as they would be typed."""
        data, run = args.output / "data", args.output / "run"
        self.draw(data)
        for i, command in enumerate(self.demo_commands, 1):
            arguments = [word.format(data=data) for word in shlex.split(command)]
            arguments += ["--run", str(run)]
            typed = shlex.join(["python", "-m", "capstones", self.name, *arguments])
            print(f"\n[{i}/{len(self.demo_commands)}] {typed}", flush=True)
            self.main(arguments)

    def main(self, arguments: list[str]) -> None:
        """Run a command. Raises UserError for anything that a user can cause."""
        args = self.parse(arguments)
        args.execute(args)

    def parse(self, arguments: list[str]) -> Namespace:
        """The flags; for a resumed training with the run's own settings as the defaults.

        Raises UserError where --resume finds no run, or is given flags that contradict it.
        """
        parser, parsers = self._parsers()
        args = parser.parse_args(arguments)
        if args.command == "demo" and "output" not in args:
            args.output = make_next_folder(Path(f"runs/capstone-{self.name}-demo"))
        if not getattr(args, "resume", False):
            return args
        untyped = object()  # as every default: what the user typed is then all the rest
        parsers[args.command].set_defaults(**dict.fromkeys(vars(args), untyped))
        typed = {k: v for k, v in vars(parser.parse_args(arguments)).items() if v is not untyped}
        return resume_run(args, typed, self.training_name(args))

    def _parsers(self) -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
        """The parser, and that of each command."""
        about = (self.__doc__ or "").splitlines()[0]
        parser = ArgumentParser(
            f"python -m capstones {self.name}", description=about, allow_abbrev=False
        )
        commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
        demo = {"demo": "draw a small data set and do all of it, offline"}
        for name, purpose in {**self.purposes, **demo}.items():
            own = commands.add_parser(
                name,
                help=purpose,
                description=purpose,
                allow_abbrev=False,
                formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            )
            own.set_defaults(execute=getattr(self, name))
            if name in demo:
                folder = f"a new folder (default: the next runs/capstone-{self.name}-demo-N)"
                own.add_argument("--output", type=Path, default=argparse.SUPPRESS, help=folder)
            else:
                self.add_flags(name, own)
                own.set_defaults(run=Path(f"runs/capstone-{self.name}"))
        return parser, commands.choices
