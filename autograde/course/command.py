"""python -m grader handout | class | gradescope: what an instructor does with the assignment."""

import argparse
import sys
from pathlib import Path

from pathlab.arguments import int_from_two, positive_int
from pathlab.engines import add_engine_flags, cores, open_engine, slurm_options
from pathlab.errors import UserError

THREADS = 2  # of one grading, as `pytest grader` has it: a student sees the same at home


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m grader",
        description="What an instructor does with the assignment. `pytest grader` grades one "
        "submission.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    about = "write the folder that students get: everything but the solutions"
    handout = commands.add_parser("handout", help=about, description=about, allow_abbrev=False)
    handout.add_argument("folder", metavar="DIR", type=Path, help="new, or empty")

    about = "grade a folder of submissions; the same command again goes on where it was stopped"
    many = commands.add_parser("class", help=about, description=about, allow_abbrev=False)
    add = many.add_argument
    add("submissions", type=Path, help="a folder with a folder or a zip for each student")
    add("--out", type=Path, required=True, help="where gradebook.csv and report.html are written")
    add("--jobs", type=positive_int, help="gradings at a time (default: half of the cores)")
    add_engine_flags(many)
    add("--fast", action="store_true", help="leave the trainings out (no points)")
    add("--dataset", default="auto", help="as of `pytest grader` (default: auto)")
    add(
        "--threads",
        type=positive_int,
        default=THREADS,
        help=f"of each grading (default: {THREADS})",
    )
    add(
        "--limit",
        type=positive_int,
        default=3600,
        metavar="SECONDS",
        help="after which a whole grading is stopped (default: 3600; two minutes are usual)",
    )

    about = "write the autograder zip that Gradescope takes"
    zipped = commands.add_parser("gradescope", help=about, description=about, allow_abbrev=False)
    zipped.add_argument("file", metavar="FILE.zip", type=Path)
    zipped.add_argument(
        "--minutes",
        type=int_from_two,
        default=10,
        help="what the assignment's settings allow a submission (default: 10)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.command == "handout":
        from autograde.course.handout import write_handout

        blanks = write_handout(args.folder)
        print(f"{args.folder}: {blanks} blanks to fill in. `pytest grader --fast` there gives 0.")
        return 0
    if args.command == "gradescope":
        from autograde.course.gradescope import write_autograder

        write_autograder(args.file, args.minutes)
        print(f"{args.file}: upload it as the autograder, and set its limit to {args.minutes} min.")
        return 0
    return _grade_class(args)


def _grade_class(args: argparse.Namespace) -> int:
    from autograde.course.classroom import Classroom
    from autograde.course.gradebook import FAILED
    from autograde.course.roster import find_students
    from pathlab.files import locked, make_folder

    source, out = args.submissions.resolve(), args.out.resolve()
    if out.is_relative_to(source) or source.is_relative_to(out):
        raise UserError(
            f"--out {args.out} and {args.submissions} lie in one another: results need a folder "
            "of their own, where no submission can come."
        )
    students, others = find_students(source)
    if others:
        print(f"neither folder nor zip, left out: {', '.join(others)}", file=sys.stderr)
    options = _options(args)
    make_folder(out)
    with locked(out, wait=False):
        room = Classroom(students, out, options)
        # Half of the cores, since each grading has two threads. That keeps the limits of time as
        # far away as they are at home, where a submission is graded alone.
        jobs = args.jobs or max(1, cores() // 2)
        before = len(students) - len(room.waiting)
        print(f"{len(students)} submissions, {before} of them graded before; {jobs} at a time")
        if room.waiting:
            engine = open_engine(
                args.engine,
                min(jobs, len(room.waiting)),
                out,
                threads=args.threads,
                address=args.address,
                options=slurm_options(args.slurm),
            )
            try:
                with engine:
                    room.run(engine, args.threads, args.limit)
            except KeyboardInterrupt:
                raise KeyboardInterrupt("The same command again goes on from here.") from None
    failed = [row for row in room.rows.values() if row.status == FAILED]
    for row in failed:
        print(f"{row.id} could not be graded: {row.note}", file=sys.stderr)
    if failed:
        print("The same command again repeats these only.", file=sys.stderr)
    print(f"{out / 'gradebook.csv'}\n{out / 'report.html'}")
    return int(bool(failed))


def _options(args: argparse.Namespace) -> tuple[str, ...]:
    """What `pytest grader` is told. Looks at the data first: else every grading would fail."""
    from autograde.course.classroom import REPO
    from grader.checks.images import PrivateImages
    from pathlab.data.sets import is_archive

    dataset = args.dataset
    if is_archive(dataset):
        dataset = str(Path(dataset).resolve())  # gradings run in the repository
    PrivateImages(dataset, str(REPO / "data"))
    return (f"--dataset={dataset}", *["--fast"] * args.fast)
