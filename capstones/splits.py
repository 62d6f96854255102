"""Which samples train, which choose the epoch, which are only measured: drawn, kept, looked up."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pandas import DataFrame
from sklearn.model_selection import StratifiedKFold, train_test_split

from capstones.folder import read_table, write_table
from pathlab.errors import UserError


def draw(labels: pd.Series, share: float, seed: int) -> pd.Index:
    """The index of a share of the labels (categorical), alike in all classes.

    Raises UserError for a class of fewer than two, and a share that would be empty or without some
    class.
    """
    check_counts(labels, "training and validation", least=2)
    try:
        _, drawn = train_test_split(
            range(len(labels)), test_size=share, stratify=labels.cat.codes, random_state=seed
        )
    except ValueError as error:
        raise UserError(
            f"the images cannot be split into training and validation: {error}"
        ) from error
    check_classes(labels.iloc[drawn], "validation")
    return labels.index[sorted(drawn)]


def divide(samples: DataFrame, seed: int, validation: float, test: float = 0.0) -> DataFrame:
    """The samples with their parts: those that the data names, else drawn alike in all classes.

    validation, test: shares of all images. Where the data has a test part but no validation part,
    that is drawn from the training images. Raises UserError for too few images, and for a training
    or validation part without some class.
    """
    samples = samples.copy()
    check_several(samples["label"])
    if "part" not in samples:
        samples["part"] = "training"
        if test:
            check_counts(samples["label"], "training, validation and test", least=3)
            if validation + test >= 1:
                raise UserError(
                    f"--validation {validation} and --test {test} leave no image for training: "
                    "their sum must be below 1."
                )
            samples.loc[draw(samples["label"], test, seed), "part"] = "test"
            validation /= (samples["part"] == "training").mean()
    if "validation" not in set(samples["part"]):
        rest = samples.loc[samples["part"] == "training", "label"]
        samples.loc[draw(rest, validation, seed), "part"] = "validation"
    for part in ("training", "validation"):
        check_classes(samples.loc[samples["part"] == part, "label"], part)
    return samples


def divide_by_folds(samples: DataFrame, seed: int, folds: int, fold: int, test: bool) -> DataFrame:
    """The samples with their parts: fold `fold` is for validation, and on `test` the next for test.

    The folds are alike in all classes and depend on their number and the seed alone. Raises
    UserError for a fold that does not exist, and for too few images.
    """
    if fold >= folds:
        raise UserError(f"there is no --fold {fold}: {folds} --folds count from 0.")
    if test and folds < 3:
        raise UserError("--test needs a fold for each part: --folds from 3.")
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    try:
        with warnings.catch_warnings():
            # A class of fewer images than folds is no obstacle to segmentation.
            warnings.filterwarnings("ignore", "The least populated class")
            drawn = [places for _, places in splitter.split(samples, samples["label"].astype(str))]
    except ValueError as error:
        raise UserError(
            f"{len(samples)} images cannot be split into {folds} folds: {error}"
        ) from error
    parts = np.full(len(samples), "training", dtype=object)
    parts[drawn[fold]] = "validation"
    if test:
        parts[drawn[(fold + 1) % folds]] = "test"
    return samples.assign(part=parts)


def check_several(labels: pd.Series) -> None:
    """Raises UserError where there are not two classes (categories of the labels)."""
    if len(names := list(labels.cat.categories)) < 2:
        raise UserError(f"the data has only the class {', '.join(names)}: at least 2 are needed.")


def check_counts(labels: pd.Series, parts: str, least: int) -> None:
    """Raises UserError where a class has fewer than `least` images, one for each of the parts."""
    for name, n in labels.value_counts(sort=False).items():
        if n < least:
            raise UserError(
                f"the class {name} has {n or 'no'} image{'' if n == 1 else 's'}: {parts} need one "
                f"each, so at least {least}."
            )


def check_classes(labels: pd.Series, part: str) -> None:
    """Raises UserError where a class (a category of the labels) has no image in that part."""
    if missing := [name for name in labels.cat.categories if name not in set(labels)]:
        raise UserError(
            f"the {part} images have none of the class {', '.join(missing)}. Nothing measured "
            "there would mean anything: add images of that class or change the split."
        )


def check_split(run: Path, samples: DataFrame, key: str) -> None:
    """Raises UserError where the run's other networks had other images or another split."""
    if (run / "split.csv").exists() and read_parts(run, key) != samples["part"].to_dict():
        raise UserError(
            f"{run / 'split.csv'} was made from other images, or by other flags for the split or "
            "its seed: all networks of a run are trained on the same images. Leave the data and "
            "these flags as they were, or name another --run."
        )


def save_split(run: Path, samples: DataFrame, columns: Sequence[str]) -> None:
    """Write split.csv: the names, in the first of the columns, and these others."""
    key, *others = columns
    write_table(run / "split.csv", samples[others].rename_axis(key), index=True)


def read_parts(run: Path, key: str) -> dict[str, str]:
    """Each image's part in the run, by name, from its split.csv. Raises UserError as read_table."""
    table = read_table(run / "split.csv", {key: (key,), "part": ("part",)})
    return dict(zip(table[key], table["part"], strict=True))


def take_part(samples: DataFrame, part: str, run: Path, key: str) -> DataFrame:
    """The samples that the run's split.csv has in that part; for "all", every one.

    Raises UserError where none is.
    """
    if part == "all":
        return samples
    chosen = samples[samples.index.map(read_parts(run, key)) == part]
    if chosen.empty:
        raise UserError(
            f"the data holds none of the run's {part} images: use --part all for new data."
        )
    return chosen
