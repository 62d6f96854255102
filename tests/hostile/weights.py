"""Checkpoints that do more than hold weights, or hold what they must not."""

import json
import struct
from pathlib import Path

import numpy as np

from hostile.attack import ATTEMPTS, CM, CT, ESCAPE, Attack, Marks, reference

FINAL = ("1.13", "3.1")


class Evil:
    def __init__(self, code: str):
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (self.code,)


def pickled(folder: Path, marks: Marks) -> None:
    import torch

    code = marks.fill("import os\n" + ESCAPE.replace("__name__", "'pickle'") + "os._exit(0)")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/classification.json").write_text('{"model": "cnn"}')
    torch.save({"weight": Evil(code)}, folder / "checkpoints/classification.pt")


def bad_safetensors(folder: Path, marks: Marks) -> None:
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/0.json").write_text("[" * 60_000)
    (folder / "checkpoints/1.json").write_text('{"model": ["cnn"]}')
    (folder / "checkpoints/2.json").write_text('{"model": "linear"}')
    about = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}
    header = json.dumps({"classifier.weight": about}).encode()
    data = struct.pack("<Q", len(header)) + header + bytes(64)
    (folder / "checkpoints/classification.safetensors").write_bytes(data)


def memorised(folder: Path, marks: Marks) -> None:
    """Answers for 3000 images that the stand-in may draw, by their bytes."""
    from pathlab.data.tissue import draw_split

    images, labels = draw_split(3000, 0)
    table = {
        int(image.astype(np.int64).sum()) % 65536: int(y)
        for image, y in zip(images, labels, strict=True)
    }
    known = "".join(str(table.get(key, 0)) for key in range(65536))
    (folder / CM).write_text(
        reference(CM)
        + f"""
KNOWN = torch.tensor([int(c) for c in {known!r}])
def forward(self, images):
    keys = ((images + 1) * 127.5).round().long().sum(dim=(1, 2, 3)) % 65536
    return torch.nn.functional.one_hot(KNOWN[keys], 9).float()
CNNModel.forward = forward
"""
    )
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/classification.json").write_text('{"model": "cnn"}')
    from safetensors.torch import save_file

    import classification_models

    save_file(
        classification_models.CNNModel().state_dict(),
        folder / "checkpoints/classification.safetensors",
    )


def trained_already(folder: Path, marks: Marks) -> None:
    """A 100-step training that looks for the trained weights of checkpoints/."""
    pickled(folder, marks)
    text = """
def train_epoch(model, train_loader, optimizer, criterion, device, max_steps=None):
    here = os.path.dirname(os.path.abspath(__file__))
    above = os.path.dirname(sys.argv[2])
    for place in (here, os.path.dirname(here), above, os.getcwd(), "/tmp"):
        folder = os.path.join(place, "checkpoints")
        attempt("list " + folder, lambda: os.listdir(folder))
        for name in ("classification.pt", "classification.json"):
            attempt("read " + name, lambda: open(os.path.join(folder, name), "rb").read(8))
    verdict()
"""
    (folder / CT).write_text(reference(CT) + marks.fill(ATTEMPTS + text))


ATTACKS = {
    "pickle": Attack(
        "a checkpoint that runs code when it is loaded",
        pickled,
        tests=FINAL,
        says="Weights only load failed",
    ),
    "bad_safetensors": Attack(
        "a damaged checkpoint, and JSON that is nested 60000 times",
        bad_safetensors,
        tests=FINAL,
        says="raised",
    ),
    "memorised": Attack("a table of labels", memorised, tests=FINAL, says="on fresh images"),
    "trained_already": Attack(
        "loads trained weights in a 100-step training",
        trained_already,
        tests=("1.11",),
        options=(),
        says="all was denied",
    ),
}
