"""The one reader of data folders: which images belong to a sample, and what its table says of it.

Samples are a data frame with a row for each. Its index holds the names; `images` the files of a
sample in the order of the channels, or its pixels (uint8 [C, H, W]); with a table, `label` is
categorical, the categories in the order of their codes; where parts are known, `part` is
"training", "validation" or "test".
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pandas import DataFrame

from capstones.images import find_images, stem
from pathlab.errors import UserError
from pathlab.files import write_atomically

PARTS = {"train": "training", "val": "validation", "valid": "validation"}  # spelled otherwise


@dataclass(frozen=True)
class Channel:
    """Images of one kind: FOLDER/NAME.png, or FOLDER/NAME_ENDING.png with one of the endings."""

    folder: str
    endings: tuple[str, ...] = ("",)

    def file_of(self, name: str) -> str:
        """The file that a sample of that name should have, without its suffix."""
        return f"{self.folder}/" + "_".join(filter(None, (name, self.endings[0])))


@dataclass(frozen=True)
class Layout:
    """How a data folder is laid out.

    table: a CSV file. columns: our name of a column -> the spellings that the file may use, in
    lower case; the first is a sample's name, the second its label, and "split" may be missing.
    channels: the images of each sample; ignored: endings of files that are passed over. positive or
    negative: for two classes, how the one or the other may be spelled, in lower case.
    """

    table: str
    columns: dict[str, tuple[str, ...]]
    channels: tuple[Channel, ...] = (Channel("images"),)
    ignored: str = ""
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()


def read_samples(
    data: Path, layout: Layout, labelled: bool = True, classes: Sequence[str] = ()
) -> DataFrame:
    """The samples of a folder: with labels in the order of the table, else by name without labels.

    classes: those that the labels may have; if none are given, the labels say which there are.
    Without labels, a folder may hold its images itself, where there is one channel.

    Raises UserError for images that are missing, labels without an image, images without a label,
    labels that are not as expected, and a table that cannot be used.
    """
    alone = len(layout.channels) == 1 and not (data / layout.channels[0].folder).is_dir()
    if alone and not labelled:
        layout = dataclasses.replace(layout, channels=(Channel("."),))
    files = find_files(data, layout)
    if not labelled:
        return DataFrame({"images": files})
    path = data / layout.table
    table = read_table(path, layout.columns)
    name, label = list(layout.columns)[:2]
    names = table[name].map(stem)
    check_names(path, names, files, data)
    labels = categorical(table[label], layout, path, classes)
    samples = DataFrame({"images": names.map(files), "label": labels})
    if "split" in table:
        samples["part"] = table["split"].str.lower().replace(PARTS)
        if unknown := sorted(set(samples["part"]) - {"training", "validation", "test"}):
            raise UserError(f"{path} has the split {unknown[0]!r}: expected train, val or test.")
    return samples.set_axis(names)


def find_files(data: Path, layout: Layout) -> pd.Series:
    """Each sample's files, a tuple in the order of the channels, by its name.

    Raises UserError for a file that belongs to no channel, two files of one channel, and channels
    that are missing, all by name.
    """
    found: dict[str, dict[Channel, Path]] = {}
    for folder in dict.fromkeys(channel.folder for channel in layout.channels):
        channels = {
            ending: channel
            for channel in layout.channels
            for ending in channel.endings
            if channel.folder == folder
        }
        for path in find_images(data / folder).values():
            name, _, ending = (path.stem, "", "") if "" in channels else path.stem.rpartition("_")
            if name and layout.ignored and ending.lower() == layout.ignored:
                continue
            channel = channels.get(ending.lower())
            if not name or channel is None:
                raise UserError(
                    f"{path} belongs to no channel: expected a name such as "
                    f"ID_{next(iter(channels))}.png. The channels are {', '.join(channels)}."
                )
            other = found.setdefault(name, {}).setdefault(channel, path)
            if other != path:
                raise UserError(
                    f"{data / folder} has two images of the {channel.endings[0]} of {name}: "
                    f"{other.name} and {path.name}. Keep one."
                )
    names = sorted(found)
    lacking = [c.file_of(name) for name in names for c in layout.channels if c not in found[name]]
    if lacking:
        raise UserError(
            f"{data} lacks {listed(lacking)}. Add the missing images, or take the other images of "
            "the same names away."
        )
    files = [tuple(found[name][channel] for channel in layout.channels) for name in names]
    return pd.Series(files, index=names, dtype=object)


def read_table(path: Path, columns: dict[str, tuple[str, ...]]) -> DataFrame:
    """A CSV's columns as text, under our names for them.

    columns: as in Layout. Raises UserError for a missing or unreadable file, a missing column, an
    empty cell, no rows, or a name (the first of the columns) that appears twice.
    """
    needed = {name: spellings for name, spellings in columns.items() if name != "split"}
    expected = " and ".join(spellings[0] for spellings in needed.values())
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"there is no {path}. It should have the columns {expected}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a CSV file: {error}") from error
    spelled = {column.strip().lower(): column for column in reversed(table.columns)}
    found = {
        spelled[spelling]: name
        for name, spellings in columns.items()
        for spelling in spellings
        if spelling in spelled
    }
    if missing := [name for name in needed if name not in found.values()]:
        raise UserError(
            f"{path} has no column for the {missing[0]}: its columns are "
            f"{', '.join(table.columns)}. Expected {expected}."
        )
    table = table[list(found)].rename(columns=found).apply(lambda column: column.str.strip())
    if table.empty:
        raise UserError(f"{path} has no rows below its header.")
    for name in table.columns:
        if (empty := table.index[table[name] == ""]).size:
            raise UserError(f"{path}, line {empty[0] + 2}: the {name} is empty.")
    check_unique(path, table[next(iter(columns))])
    return table


def write_table(path: Path, table: DataFrame, index: bool = False) -> None:
    """Write a CSV atomically. Raises UserError if it cannot be written."""
    write_atomically(path, table.to_csv(index=index).encode())


def check_unique(path: Path, names: pd.Series) -> None:
    """Raises UserError for a name that appears twice."""
    if (twice := names[names.duplicated()]).size:
        raise UserError(f"{path} has the {names.name} {twice.iloc[0]!r} more than once.")


def check_names(path: Path, labelled: pd.Series, found: pd.Series, folder: Path) -> None:
    """Compare the names in a table with those in the folder.

    Raises UserError that names labels without an image, images without a label, and an image that
    is labelled twice, with its suffix and without.
    """
    check_unique(path, labelled)
    if missing := sorted(set(labelled) - set(found.index)):
        raise UserError(f"{path} has labels without an image in {folder}: {listed(missing)}.")
    if missing := sorted(set(found.index) - set(labelled)):
        raise UserError(
            f"{path} has no label for the image {listed(missing)}. Label it, or move it away: "
            "`predict` takes a folder without labels."
        )


def listed(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def categorical(
    labels: pd.Series, layout: Layout, source: Path, classes: Sequence[str] = ()
) -> pd.Categorical:
    """Labels with their classes: those that are given, else those that are found.

    Found classes are sorted, whole numbers by size, names by the alphabet, or as the layout says
    which of two is the positive one. Raises UserError for a label that is not one of the given
    classes, and where the layout expects two others than are found.
    """
    if classes:
        if unknown := sorted(set(labels) - set(classes)):
            raise UserError(
                f"{source} has the label {unknown[0]!r}; the classes are {', '.join(classes)}."
            )
        return pd.Categorical(labels.tolist(), list(classes))
    numbers = {name for name in labels if name.isdecimal()}
    found = sorted(numbers, key=int) + sorted(set(labels) - numbers)
    if spelled := layout.positive or layout.negative:
        known = [name for name in found if name.lower() in spelled]
        if len(found) != 2 or len(known) != 1:
            raise UserError(
                f"{source} has the labels {', '.join(found)}: expected two, one of them spelled "
                f"{' or '.join(spelled)}."
            )
        found.sort(key=lambda name: (name in known) == bool(layout.positive))
    return pd.Categorical(labels.tolist(), found)
