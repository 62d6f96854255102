"""Four published systems for medical images, rebuilt on the field's own tools.

python -m capstones NAME COMMAND. A module for each system (multimodal, cell_lines, cervical,
spine), its networks beside it; what all share is the driver (commands, flags, runs), folder and
splits (what is read), network, classifier, training and checkpoints (Lightning), evaluation (what
is reported) and drawings (the demos' data).
"""

# torchvision first, in the way that also works beside a CPU-only torch: timm, Lightning and
# torchmetrics import it by themselves.
import pathlab.torchvision_import  # noqa: F401
