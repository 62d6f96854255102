"""The cervical system on white blood cells: cross-validation of both stages, as Markdown tables.

python -m benchmarks.wbc DATA RUNS --segment="FLAGS" --classify="FLAGS"

DATA is a folder as `python -m capstones cervical` takes it. For each fold: `segment`, and for each
kind of masks `classify`, with --test: one fold in five chooses the epoch, another is measured, and
over all runs every image is measured once. Finished steps are skipped and interrupted ones resumed,
so the command may be repeated, and several may share the work by --fold and --masks. A stage
without flags is left as it is; the tables show what there is.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import mean

REPO = Path(__file__).resolve().parents[1]
FOLDS = 5
HEAD_SCORES = {"dice": "Dice", "iou": "IoU", "pixel_accuracy": "pixel accuracy"}
CLASS_SCORES = {"accuracy": "accuracy", "f1": "macro F1", "auroc": "ROC-AUC"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--segment", default="", help="flags of that stage, in one string")
    parser.add_argument("--classify", default="", help="likewise")
    parser.add_argument("--masks", nargs="+", default=["predicted", "none"])
    parser.add_argument("--fold", type=int, nargs="+", default=list(range(FOLDS)))
    args = parser.parse_args()
    for fold in args.fold:
        run = args.runs / f"fold-{fold}"
        if args.segment:
            step(args, run, fold, "segment", args.segment)
        for masks in args.masks if args.classify else []:
            # Predicted masks are found beside the checkpoint of stage one.
            its_run = run if masks == "predicted" else args.runs / f"fold-{fold}-{masks}"
            step(args, its_run, fold, "classify", f"{args.classify} --masks {masks}")
    print(table(segmentation_rows(args), ["head", "folds", *HEAD_SCORES.values()]))
    print(table(classification_rows(args), ["masks", "folds", *CLASS_SCORES.values()]))


def step(args: argparse.Namespace, run: Path, fold: int, stage: str, flags: str) -> None:
    """One stage of one fold, trained and evaluated; its scores in RUN/STAGE-scores.json."""
    if scores(run, stage):
        return
    common = ["--data", str(args.data), "--run", str(run)]
    split = ["--folds", str(FOLDS), "--fold", str(fold), "--test"]
    begun = (run / f"{stage}-settings.json").exists()
    capstone(stage, *common, *split, *shlex.split(flags), *["--resume"] * begun)
    capstone("evaluate", *common, "--part", "test")
    found = json.loads((run / "evaluation" / "evaluation.json").read_text())
    name = "segmentation" if stage == "segment" else "classification"
    (run / f"{stage}-scores.json").write_text(json.dumps(found[name]))


def capstone(*arguments: str) -> None:
    command = [sys.executable, "-m", "capstones", "cervical", *arguments]
    print(shlex.join(command), file=sys.stderr, flush=True)
    subprocess.run(command, cwd=REPO, check=True, stdout=sys.stderr)


def scores(run: Path, stage: str) -> dict | None:
    path = run / f"{stage}-scores.json"
    return json.loads(path.read_text()) if path.exists() else None


def segmentation_rows(args: argparse.Namespace) -> list[list[str]]:
    found = [scores(args.runs / f"fold-{fold}", "segment") for fold in args.fold]
    found = [one for one in found if one]
    return [
        row(head, [one[head] for one in found], HEAD_SCORES)
        for head in ("cytoplasm", "nucleus")
        if found
    ]


def classification_rows(args: argparse.Namespace) -> list[list[str]]:
    rows = []
    for masks in args.masks:
        suffix = "" if masks == "predicted" else f"-{masks}"
        found = [scores(args.runs / f"fold-{fold}{suffix}", "classify") for fold in args.fold]
        if found := [one for one in found if one]:
            rows.append(row(masks, found, CLASS_SCORES))
    return rows


def row(name: str, found: list[dict], columns: dict[str, str]) -> list[str]:
    """The name, how many folds, and each score's mean over them with minimum and maximum."""
    return [name, str(len(found)), *(spread([one[column] for one in found]) for column in columns)]


def spread(values: list[float]) -> str:
    return f"{mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def table(rows: list[list[str]], names: list[str]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    main()
