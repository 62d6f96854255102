"""Whether the trainings of one grading fail together: three of a model in each of many gradings.

python -m benchmarks.repeated_trainings GRADINGS SUBMISSION NAME [NAME ...]

NAME is CNNModel, CNNSegmentation or TinyUNet. Sandbox, images and trainings are the grader's own;
only the rule that the first success ends them is left out. Up to 70 CPU seconds a grading.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from autograde.sandbox.start import Limits, best_isolation
from autograde.student import Session
from autograde.submission import take
from benchmarks.threshold import CNN_TARGET, TARGETS
from grader import test_part1_classification as part1
from grader import test_part2_segmentation as part2
from grader.checks.images import PrivateImages
from grader.checks.models import SEEDS, fresh_rng

TARGET = {
    "CNNModel": CNN_TARGET,
    "CNNSegmentation": TARGETS["segmentation-cnn"],
    "TinyUNet": TARGETS["unet"],
}


def grading(submission: Path, name: str) -> list[float]:
    """The scores of SEEDS trainings of one grading."""
    after_100_steps = part2.iou_after_100_steps
    if name == "CNNModel":
        after_100_steps = part1.accuracy_after_100_steps
    with tempfile.TemporaryDirectory() as workspace:
        student = Session(take(submission, Path(workspace)), best_isolation(), Limits(), threads=1)
        private, rng = PrivateImages("synthetic"), fresh_rng()
        try:
            return [after_100_steps(student, rng, private, name) for _ in range(SEEDS)]
        finally:
            student.end()


def main() -> None:
    gradings, submission, *names = int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
    print(
        "| model | gradings | mean | minimum | trainings that miss | gradings with 0, 1, 2, 3 of "
        "them |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name in names:
        scores = np.array([grading(submission, name) for _ in range(gradings)])
        missed = scores < TARGET[name]
        counts = ", ".join(map(str, np.bincount(missed.sum(axis=1), minlength=SEEDS + 1)))
        print(
            f"| {name} | {gradings} | {scores.mean():.3f} | {scores.min():.3f} | "
            f"{missed.mean():.1%} | {counts} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
