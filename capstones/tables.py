"""Tables of images and labels: read, checked and split before a training starts."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from sklearn.model_selection import train_test_split

from pathlab.errors import UserError
from pathlab.files import write_atomically


def read_table(path: Path, columns: dict[str, tuple[str, ...]]) -> pd.DataFrame:
    """A CSV's columns as text, under the names that `columns` gives them.

    columns: our name -> the spellings that a file may use, compared without regard to case. Raises
    UserError for a missing or unreadable file, a missing column, an empty cell, no rows, or an id
    (the first of the columns) that appears twice.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(
            f"there is no {path}. It should have the columns {_spelled(columns)}."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a CSV file: {error}") from error
    found = {}
    for name, spellings in columns.items():
        match = [c for c in table.columns if c.strip().lower() in spellings]
        if not match:
            raise UserError(
                f"{path} has no column for the {name}: its columns are "
                f"{', '.join(table.columns)}. Expected {_spelled(columns)}."
            )
        found[match[0]] = name
    table = table[list(found)].rename(columns=found)
    table = table.apply(lambda column: column.str.strip())
    if table.empty:
        raise UserError(f"{path} has no rows below its header.")
    for name in table.columns:
        if (empty := table.index[table[name] == ""]).size:
            raise UserError(f"{path}, line {empty[0] + 2}: the {name} is empty.")
    key = table.columns[0]
    if (twice := table[key][table[key].duplicated()]).size:
        raise UserError(f"{path} has the {key} {twice.iloc[0]!r} more than once.")
    return table


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV atomically. Raises UserError if it cannot be written."""
    write_atomically(path, table.to_csv(index=False).encode())


def check_matched(
    path: Path, labelled: list[str], found: Iterable[str], folder: Path, what: str = "image"
) -> None:
    """Compare the names in a table with those in the folder.

    Raises UserError that names labels without an image, images without a label, and an image that
    is labelled twice, with its suffix and without.
    """
    if len(set(labelled)) < len(labelled):
        twice = next(name for name in labelled if labelled.count(name) > 1)
        raise UserError(f"{path} has the {what} {twice!r} more than once.")
    one = f"an {what}" if what[0] in "aeiou" else f"a {what}"
    if missing := sorted(set(labelled) - set(found)):
        raise UserError(f"{path} has labels without {one} in {folder}: {listed(missing)}.")
    if missing := sorted(set(found) - set(labelled)):
        raise UserError(
            f"{path} has no label for the {what} {listed(missing)}. Label it, or move it away: "
            "`predict` takes a folder without labels."
        )


def listed(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def read_parts(run: Path, key: str = "image") -> dict[str, str]:
    """Each image's part (training, validation, test) in the run, by name, from its split.csv.

    key: the name of the table's other column. Raises UserError as read_table.
    """
    table = read_table(run / "split.csv", {key: (key,), "part": ("part",)})
    return dict(zip(table[key], table["part"], strict=True))


def places_of(
    part: str, run: Path, names: list[str], source: Path, key: str = "image"
) -> list[int]:
    """Which of the names belong to that part of the run; for "all", every one.

    Raises UserError where none does.
    """
    if part == "all":
        return list(range(len(names)))
    parts = read_parts(run, key)
    places = [i for i, name in enumerate(names) if parts.get(name) == part]
    if not places:
        raise UserError(
            f"{source} holds none of the run's {part} images: use --part all for new data."
        )
    return places


def encode(labels: pd.Series, classes: list[str], source: Path) -> list[int]:
    """Each label's place in `classes`. Raises UserError for a label that is not one of them."""
    places = {name: place for place, name in enumerate(classes)}
    for label in labels:
        if label not in places:
            raise UserError(
                f"{source} has the label {label!r}; the classes are {', '.join(classes)}."
            )
    return [places[label] for label in labels]


def class_names(labels: pd.Series, source: Path, least: int = 2) -> list[str]:
    """The different labels: whole numbers by size, names by the alphabet.

    Raises UserError where there are fewer than `least`.
    """
    numbers = {name for name in labels if name.isdecimal()}
    names = sorted(numbers, key=int) + sorted(set(labels) - numbers)
    if len(names) < least:
        raise UserError(
            f"{source} has {'only the class ' + names[0] if names else 'no class'}: at least "
            f"{least} classes are needed."
        )
    return names


def split(labels: list[int], share: float, seed: int, classes: list[str]) -> tuple[list, list]:
    """(training, validation) places of the labels, the share in validation, alike in all classes.

    Raises UserError for an empty class, one of a single image, and a validation part that would be
    empty or without some class.
    """
    for place, name in enumerate(classes):
        if (n := labels.count(place)) < 2:
            raise UserError(
                f"the class {name} has {n or 'no'} image{'' if n == 1 else 's'}: training and "
                "validation need one each, so at least 2."
            )
    try:
        train, val = train_test_split(
            range(len(labels)), test_size=share, stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise UserError(f"the images cannot be split into training and validation: {error}") from (
            error
        )
    check_classes([labels[i] for i in train], classes, "training")
    check_classes([labels[i] for i in val], classes, "validation")
    return sorted(train), sorted(val)


def check_classes(labels: list[int], classes: list[str], part: str) -> None:
    """Raises UserError where a class has no image in that part of the data."""
    missing = [name for place, name in enumerate(classes) if place not in set(labels)]
    if missing:
        raise UserError(
            f"the {part} images have none of the class {', '.join(missing)}. Nothing measured "
            "there would mean anything: add images of that class or change the split."
        )


def _spelled(columns: dict[str, tuple[str, ...]]) -> str:
    return " and ".join(spellings[0] for spellings in columns.values())
