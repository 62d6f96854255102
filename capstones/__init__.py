"""Four published systems for medical images, rebuilt on the field's own tools.

python -m capstones NAME COMMAND. One module for each system (multimodal, cell_lines, cervical,
spine), beside what they share: command (flags and run folders), training (Lightning), checkpoints,
tables and images (what is read), backbones (timm), evaluation (what is reported), drawn (the
demos' pictures).
"""

# torchvision first, in the way that also works beside a CPU-only torch: timm, Lightning and
# torchmetrics import it by themselves.
import pathlab.torchvision_import  # noqa: F401
