"""Whether the trainings of one grading fail together: three of a model in each of many gradings.

python -m benchmarks.repeated_trainings GRADINGS SUBMISSION NAME [NAME ...]

NAME is CNNModel, CNNSegmentation or TinyUNet. Sandbox, images and trainings are the grader's own;
only the rule that the first success ends them is left out. Up to 70 CPU seconds a grading.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from autograde.fixtures import fresh_rng
from autograde.sandbox.start import Limits, best_isolation
from autograde.student import Session
from autograde.submission import copy_submission
from benchmarks.threshold import ASSIGNMENT, SCHEDULE, target_of
from grader import test_part1_classification as part1
from grader import test_part2_segmentation as part2
from grader.checks.images import PrivateImages
from grader.checks.student import Student

SHORT = {"CNNModel": "cnn", "CNNSegmentation": "segmentation-cnn", "TinyUNet": "unet"}


def grading(submission: Path, name: str) -> list[float]:
    """The scores of all trainings of one grading."""
    task, train = part2.TASK, part2.iou_after_training
    if name == "CNNModel":
        task, train = part1.TASK, part1.accuracy_after_training
    scores = []
    with tempfile.TemporaryDirectory() as workspace:
        copy = copy_submission(submission, Path(workspace), ASSIGNMENT)
        session = Session(copy, ASSIGNMENT.operations, best_isolation(), Limits(), threads=1)
        student, data = Student(session, task, fresh_rng()), PrivateImages("synthetic")
        for _ in range(SCHEDULE.count):
            with session.fresh(SCHEDULE.cpu_seconds):
                scores.append(train(student, data, SCHEDULE, name))
    return scores


def main() -> None:
    gradings, submission, *names = int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
    print(
        "| model | gradings | mean | minimum | trainings that miss | gradings with 0, 1, 2, 3 of "
        "them |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name in names:
        scores = np.array([grading(submission, name) for _ in range(gradings)])
        missed = scores < target_of(SHORT[name])
        counts = ", ".join(map(str, np.bincount(missed.sum(axis=1), minlength=SCHEDULE.count + 1)))
        print(
            f"| {name} | {gradings} | {scores.mean():.3f} | {scores.min():.3f} | "
            f"{missed.mean():.1%} | {counts} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
