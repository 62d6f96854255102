"""python -m COURSE points | handout | class | gradescope: what an instructor does."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from autograde.assignment import Assignment
from autograde.course.classroom import Classroom, Grading
from autograde.course.gradebook import FAILED
from autograde.course.gradescope import write_autograder
from autograde.course.handout import write_handout
from autograde.course.roster import find_students
from autograde.sandbox.start import NO_ISOLATION, Isolation, best_isolation
from pathlab.arguments import int_from_two, positive_int
from pathlab.engines import add_engine_flags, cores, open_engine, slurm_options
from pathlab.errors import UserError
from pathlab.files import locked, make_folder

DEFAULT = "(default: %(default)s)"


def build_parser(assignment: Assignment) -> argparse.ArgumentParser:
    """The command line of `python -m COURSE`, where COURSE is the assignment's folder."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {assignment.name.replace('/', '.')}",
        description=f"What an instructor does with the assignment {assignment.title}. "
        f"`pytest {assignment.name}` grades one submission.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def add_command(name: str, about: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=about, description=about, allow_abbrev=False)

    add_command("points", "print the tests and their points as a Markdown table")
    handout = add_command("handout", "write the folder that students get: all but the solutions")
    handout.add_argument("folder", metavar="DIR", type=Path, help="new, or empty")
    goes_on = "the same command again goes on where it was stopped"
    many = add_command("class", f"grade a folder of submissions; {goes_on}")
    _add_class_flags(many, assignment)
    zipped = add_command("gradescope", "write the autograder zip that Gradescope takes")
    zipped.add_argument("file", metavar="FILE.zip", type=Path)
    minutes, about = assignment.gradescope.minutes, "minutes that Gradescope allows a submission"
    zipped.add_argument("--minutes", type=int_from_two, default=minutes, help=f"{about} {DEFAULT}")
    for command in (many, zipped):
        command.add_argument(
            "--isolation",
            choices=[kind.value for kind in Isolation],
            help="how submissions are kept apart (default: the strongest way that works there); "
            "with `none` they run with all rights of the grader",
        )
    return parser


def _add_class_flags(parser: argparse.ArgumentParser, assignment: Assignment) -> None:
    add, threads = parser.add_argument, assignment.limits.threads
    add("submissions", type=Path, help="a folder with a folder or a zip for each student")
    add("--out", type=Path, required=True, help="where gradebook.csv and report.html are written")
    add("--jobs", type=positive_int, help="gradings at a time (default: half of the cores)")
    add_engine_flags(parser)
    add("--fast", action="store_true", help="leave the trainings out (no points)")
    if assignment.open_data:
        about = f"what private images are made of, as for `pytest {assignment.name}` {DEFAULT}"
        add("--dataset", default=assignment.dataset, help=about)
    about = f"threads of each grading {DEFAULT}"  # as a student has them at home
    add("--threads", type=positive_int, default=threads, help=about)
    about = f"seconds after which a whole grading is stopped {DEFAULT}"
    add("--limit", type=positive_int, default=3600, metavar="SECONDS", help=about)


def main(assignment: Assignment, argv: Sequence[str] | None = None) -> int:
    """Run the command line argv, sys.argv without one; the exit code. Raises UserError."""
    args = build_parser(assignment).parse_args(argv)
    if args.command == "class":
        return _grade_class(assignment, args)
    if args.command == "points":
        print(assignment.points_table())
    elif args.command == "handout":
        blanks = write_handout(assignment, args.folder)
        grading = f"`pytest {assignment.name} --fast`"
        print(f"{args.folder}: {blanks} blanks to fill in. {grading} there gives 0 points.")
    else:
        options = [f"--isolation={args.isolation}"] if args.isolation else []
        write_autograder(assignment, args.file, args.minutes, options)
        print(f"{args.file}: upload it as the autograder, and set its limit to {args.minutes} min.")
    return 0


def _grade_class(assignment: Assignment, args: argparse.Namespace) -> int:
    source, out = args.submissions.resolve(), args.out.resolve()
    if out.is_relative_to(source) or source.is_relative_to(out):
        raise UserError(
            f"--out {args.out} and {args.submissions} must not contain each other: results need a "
            "folder of their own, where no submission can come."
        )
    students, others = find_students(source)
    if others:
        print(f"neither folder nor zip, left out: {', '.join(others)}", file=sys.stderr)
    options = _options(assignment, args)
    make_folder(out)
    with locked(out, wait=False):
        room = Classroom(Grading(assignment, out, options, args.threads, args.limit), students)
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
                room.run(engine)
            except KeyboardInterrupt:
                raise KeyboardInterrupt("The same command again goes on from here.") from None
    failed = [row for row in room.rows.values() if row.status == FAILED]
    for row in failed:
        print(f"{row.student.id} could not be graded: {row.note}", file=sys.stderr)
    if failed:
        print("The same command again repeats these only.", file=sys.stderr)
    print(f"{out / 'gradebook.csv'}\n{out / 'report.html'}")
    return int(bool(failed))


def _options(assignment: Assignment, args: argparse.Namespace) -> dict[str, str | bool]:
    """What pytest is told. Tries it first: else every grading would fail."""
    if args.isolation is None and best_isolation() is Isolation.NONE:
        raise UserError(NO_ISOLATION)
    options: dict[str, str | bool] = {"fast": args.fast, "isolation": args.isolation or ""}
    if assignment.open_data:
        # Gradings run in the repository, where a relative path would be another.
        path = Path(args.dataset)
        options["dataset"] = dataset = str(path.resolve()) if path.is_file() else args.dataset
        assignment.open_data(dataset)
    return options
