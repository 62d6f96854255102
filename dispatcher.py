"""Try many settings of a script, and see what they change (provided).

python dispatcher.py --config sweeps/optimiser.json

The same command again goes on where it was stopped, whatever stopped it. See docs/dispatcher.md.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pathlab.arguments import positive_int
from pathlab.engines import add_engine_flags, cores, open_engine, slurm_options
from pathlab.errors import UserError, run_command
from pathlab.sweep.config import PRUNERS, SEARCHES

if TYPE_CHECKING:
    from pathlab.sweep.config import Part
    from pathlab.sweep.run import Sweep

Slots = list[str | None]  # a device for each trial that runs at a time; None is the script's choice


def build_parser() -> argparse.ArgumentParser:
    """The command line of the dispatcher."""
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=about, allow_abbrev=False)
    add = parser.add_argument
    add("--config", "--config_path", type=Path, required=True, help="the sweep's JSON file")
    add(
        "--output-dir",
        "--log_dir",
        type=Path,
        help="where everything is kept (default: runs/sweep-NAME for NAME.json)",
    )
    add(
        "--workers",
        "--num_workers",
        type=positive_int,
        help="trials at a time (default: one for each of --devices, else one for each core)",
    )
    add("--search", choices=SEARCHES, default="grid", help="which values to try (default: grid)")
    add("--trials", type=positive_int, help="configurations of random and tpe (default: 20)")
    add("--pruner", choices=PRUNERS, default="none", help="stops bad trials early (default: none)")
    add(
        "--seeds", type=positive_int, help="seeds for each configuration, where the file names none"
    )
    add("--search-seed", type=int, default=0, help="random seed of random and tpe (default: 0)")
    add_engine_flags(parser)
    add(
        "--threads",
        type=positive_int,
        help="threads of a trial (default: the cores, shared out)",
    )
    add(
        "--devices",
        metavar="LIST",
        help="such as cuda:0,cuda:1; trials share them out (on a cluster: how many GPUs)",
    )
    add("--per-device", type=positive_int, default=1, help="trials at a time on each of --devices")
    add("--grid_search_results_path", type=Path, help="a second place for results.csv")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the sweep that the command line asks for, or what is missing of it, and report.

    0, or 1 if a trial failed. Raises UserError for what the user can fix.
    """
    args = build_parser().parse_args(argv)
    slots = _slots(args)
    threads = args.threads or max(1, cores() // len(slots))
    from pathlab.files import locked, make_folder
    from pathlab.sweep.config import read_parts
    from pathlab.sweep.scripts import prepare

    parts = read_parts(args.config, args.seeds)
    prepare(threads, [part.script for part in parts])
    # While another process imports torch, this one imports all that it will need, to the report.
    import optuna.importance  # noqa: F401

    import pathlab.sweep.report  # noqa: F401

    folder = (args.output_dir or Path("runs") / f"sweep-{args.config.stem}").resolve()
    make_folder(folder)
    with locked(folder, wait=False):
        sweep = _open_sweep(args, parts, folder, slots, threads)
        print(f"{sweep.total} trials, {len(slots)} at a time ({threads} threads each) -> {folder}")
        engine = open_engine(
            args.engine,
            len(slots),
            folder,
            threads=threads,
            gpus=1 / args.per_device if args.devices else 0,
            address=args.address,
            options=slurm_options(args.slurm),
        )
        try:
            sweep.run(engine)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("The same command again goes on from here.") from None
        finally:
            engine.shutdown(wait=False, cancel_futures=True)
            _report(folder, args.grid_search_results_path)
        return _summary(sweep)


def _open_sweep(
    args: argparse.Namespace, parts: "list[Part]", folder: Path, slots: Slots, threads: int
) -> "Sweep":
    """The sweep in its folder, after all checks. Raises UserError for what does not fit."""
    from pathlab.sweep.config import remember
    from pathlab.sweep.parser import check_part
    from pathlab.sweep.run import STUDY, Sweep
    from pathlab.sweep.search import Search, check_search, open_storage

    needed = ["output_dir"] if slots[0] is None else ["output_dir", "device"]
    for part in parts:
        check_search(part, args.search)
        check_part(part, folder, [*needed, "seed"] if part.seeds else needed, threads)
    about = {name: vars(args)[name] for name in ("search", "trials", "pruner", "search_seed")}
    remember(folder, parts, about)
    storage = open_storage(folder / STUDY)
    searches = [
        Search(part, storage, args.search, args.trials, args.pruner, args.search_seed)
        for part in parts
    ]
    return Sweep(folder, searches, args.pruner != "none", slots, threads)


def _report(folder: Path, copy: Path | None) -> None:
    from pathlab.files import write_atomically
    from pathlab.sweep.report import write_report
    from pathlab.sweep.run import TABLE

    if copy:
        write_atomically(copy, (folder / TABLE).read_bytes())
    print(f"report: {write_report(folder)}")


def _summary(sweep: "Sweep") -> int:
    """Print the best configuration of each part; 1 if a trial failed, else 0."""
    for part in sweep.parts:
        best = sweep.best(part)
        if best is None:
            continue
        values = ", ".join(f"{value:.4f}" for value in best["values"])
        spread = f" (seeds: {values})" if part.seeds else ""
        settings = ", ".join(f"{name} {value}" for name, value in best["params"].items())
        print(f"{part.name}: best {part.metric} {best['mean']:.4f}{spread}: {settings}")
    failed = [row for row in sweep.rows.values() if row["state"] == "failed"]
    if failed:
        print(
            f"{len(failed)} trials failed; the first, {failed[0]['folder']}:\n"
            f"{failed[0]['error']}\nFix the cause; the same command again repeats only the "
            "trials that failed.",
            file=sys.stderr,
        )
    return int(bool(failed))


def _slots(args: argparse.Namespace) -> Slots:
    """What --workers, --devices and --per-device ask for."""
    if args.devices is None:
        return [None] * (args.workers or cores())
    devices = [device.strip() for device in args.devices.split(",")]
    if not all(devices) or len(set(devices)) != len(devices):
        raise UserError(f"--devices {args.devices} should be a list such as cuda:0,cuda:1.")
    if args.engine != "local":  # a call there sees only the GPU that it is given, whichever it is
        devices = [device.partition(":")[0] for device in devices]
    slots = devices * args.per_device
    if args.workers and args.workers != len(slots):
        raise UserError(
            f"--workers {args.workers} does not fit --devices {args.devices} with "
            f"{args.per_device} trials on each; leave --workers out."
        )
    return slots


if __name__ == "__main__":
    run_command(main)
