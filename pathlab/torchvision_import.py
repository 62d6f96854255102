"""Import torchvision, also where its compiled extension does not fit the installed torch.

PyPI's torchvision binary is built for a CUDA torch. Beside a CPU-only torch its extension cannot be
loaded, and then `import torchvision` fails with "operator torchvision::nms does not exist",
because it registers shape rules for operators that were never declared. Declaring their schemas,
only when the real extension cannot be loaded, lets the pure-Python rest (transforms, data set
helpers, model definitions) work; the operators themselves stay unavailable.

Use: `from pathlab.torchvision_import import torchvision`.
"""

import importlib.util
from pathlib import Path

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _extension_loads() -> bool:
    """Whether torchvision's own compiled operators can be loaded into this process."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torchvision is not installed: pip install -r requirements.txt")
    for library in Path(spec.origin).parent.glob("_C.*"):
        try:
            torch.ops.load_library(str(library))
            return True
        except OSError:
            continue
    return False


HAS_COMPILED_OPERATORS = _extension_loads()
if not HAS_COMPILED_OPERATORS:
    # The library object must live as long as the process: its schemas vanish with it.
    _library = torch.library.Library("torchvision", "DEF")
    for _schema in SCHEMAS:
        _library.define(_schema)

import torchvision  # noqa: E402  (the schemas must stand before this import)

__all__ = ["HAS_COMPILED_OPERATORS", "torchvision"]
