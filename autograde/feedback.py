"""Words for a student at midnight: what was expected, what came, the likely cause, and where."""

import re
from pathlib import Path

from autograde.course.handout import FILES, FOLDERS
from autograde.submission import MODULES

MISSING_MODULE = re.compile(r"No module named '([\w.]+)'")


def indented(text: object) -> str:
    """Text that a submission may have had a say in, so that none of its lines looks like ours."""
    return str(text).replace("\n", "\n    ")


class Lost(Exception):
    """Points that were not earned. fraction: the share in [0, 1) that was, all the same."""

    def __init__(self, expected: str, got: str, cause: str = "", fraction: float = 0.0):
        lines = [f"Expected: {indented(expected)}", f"Got: {indented(got)}"]
        if cause:
            lines.append(f"Likely cause: {indented(cause)}")
        super().__init__("\n".join(lines))
        self.fraction = fraction


def place(folder: Path, module: str, name: str) -> str:
    """A last line for a message: where a submission defines a function or class; "" if nowhere."""
    try:
        lines = (folder / f"{module}.py").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    pattern = re.compile(rf"(async )?(def|class) {re.escape(name)}\b")
    for number, line in enumerate(lines, 1):
        if pattern.match(line):
            return f"\nWhere: {module}.py, line {number}: {line[:200]}"
    return ""


def explain(problem: dict) -> str:
    """The message for an exception of the submission (session.StudentError.problem)."""
    kind, message = problem["type"], problem["message"]
    lines = [f"Your code raised {kind}: {message}".rstrip(": ")]
    if problem["refused"]:
        lines = [f"Your code's answer cannot be used: {message}."]
    lines += [f"Where: {f['file']}, line {f['line']}: {f['text']}" for f in problem["frames"][-1:]]
    cause = _cause(kind, message)
    if cause:
        lines.append(f"Likely cause: {cause}")
    return "\n".join(map(indented, lines))


def _cause(kind: str, message: str) -> str:
    missing = MISSING_MODULE.search(message)
    file = f"{missing[1].split('.')[0]}.py" if missing else ""
    if file in MODULES:
        return f"the file {file} is missing from the submission."
    if file in FILES or file.removesuffix(".py") in FOLDERS:
        return (
            f"the handout's {missing[1]} is not there where submissions are graded, since a model "
            "and its training need none of it; import it inside the function that does."
        )
    if missing:
        return (
            f"the package {missing[1]!r} is not installed where submissions are graded; use only "
            "torch, numpy, tqdm and your own four files."
        )
    for kinds, words, cause in CAUSES:
        if (not kinds or kind in kinds.split()) and re.search(words, message):
            return cause
    return ""


CAUSES = (  # (types of the exception, "" for any; what its message matches; the likely cause)
    (
        "",
        "meta tensor|CUDA|NVIDIA|expected device|on the same device",
        "a tensor or the model is on the wrong device, one that is written into the code. Use the "
        "device that is handed in, or next(model.parameters()).device.",
    ),
    (
        "NotImplementedError",
        r"is missing the required .forward. function",
        "the model has no forward(self, images).",
    ),
    (
        "NotImplementedError",
        "",
        "this blank is not filled in yet: a `raise NotImplementedError` is still there.",
    ),
    (
        "SyntaxError IndentationError TabError",
        "",
        "Python cannot read the file; nothing in it could be graded. Mend that line first.",
    ),
    (
        "AttributeError",
        r"before Module.__init__\(\) call|has no attribute '_(modules|parameters|buffers)'",
        "super().__init__() is missing: it must be the first line of the model's __init__.",
    ),
    (
        "",
        "mat1 and mat2 shapes cannot be multiplied",
        "a linear layer got another number of features than it was made for. Flatten each image by "
        "itself, images.flatten(start_dim=1), and check the layer's first number.",
    ),
    (
        "",
        "Dimension out of range|unflatten: Provided sizes|shape '.*' is invalid for input",
        "a tensor has fewer dimensions, or numbers, than the code expects. Was the batch flattened "
        "away? Use flatten(start_dim=1).",
    ),
    (
        "",
        "expected input.* channels",
        "a convolution got another number of channels than it was made for. Images are [B, "
        "channels, height, width] (NCHW): channels come second, not last.",
    ),
    (
        "",
        "multi-target not supported|0D or 1D target",
        "labels must have shape [B]; yours have one dimension more (squeeze it away).",
    ),
    (
        "",
        r"Using a target size \(.*\) that is different to the input size",
        "predictions and masks have different shapes; both must be [B, 1, H, W].",
    ),
    (
        "",
        "Sizes of tensors must match|must match the size of tensor",
        "two feature maps of different sizes meet. 28 -> 14 -> 7 -> 3: from 3, doubling gives 6, "
        "not 7; and each skip belongs to the level of the same size.",
    ),
    (
        "",
        "all elements of input should be between 0 and 1",
        "the loss got values outside of [0, 1]: the model needs a sigmoid at its end.",
    ),
    (
        "",
        "does not require grad",
        "the loss does not depend on the weights: no_grad(), detach(), .item() or a threshold is "
        "in between.",
    ),
    (
        "",
        "backward through the graph a second time",
        "losses of several steps are kept together; add up loss.item(), and call backward() on "
        "each batch's own loss.",
    ),
    (
        "ZeroDivisionError",
        "",
        "nothing was counted: no batch was used, perhaps because the loop ends one step too early.",
    ),
    (
        "",
        r"the file holds module\.",
        "the weights were saved from a model inside nn.DataParallel: save "
        "model.module.state_dict().",
    ),
    (
        "",
        "the file holds .*(state_dict|optimizer|epoch|model)",
        "the file holds more than weights: save model.state_dict() alone.",
    ),
    ("SystemExit", "", "your code calls exit(); an imported module must not end the program."),
    ("NameError", "", "a name is misspelt, or not imported at the top of the file."),
    ("AttributeError", "has no attribute", "a name is missing or misspelt; compare the handout."),
    (
        "TypeError",
        "positional argument|keyword argument",
        "the function's parameters are not those of the handout.",
    ),
)
