"""What scripts import, imported once by the server before it forks."""

import pathlab  # noqa: F401  before torch: it says how torch's threads wait

# isort: split
import torch
import torch.utils.data

# The first step of any optimizer imports half of torch again, which takes most of a second.
parameter = torch.nn.Parameter(torch.zeros(1))
parameter.grad = torch.zeros(1)
torch.optim.AdamW([parameter]).step()


def plumbing() -> None:
    """What classification_main.py and segmentation_main.py use beside torch."""
    import sklearn.metrics  # noqa: F401
