"""What most scripts import, imported once by the server before it forks."""

import contextlib

import pathlab

# isort: split
import matplotlib
import torch
import torch.utils.data  # noqa: F401

matplotlib.use("agg")

with contextlib.suppress(ImportError):  # a script of another project may do without these
    import sklearn.metrics  # noqa: F401

    import pathlab.cli
    import pathlab.evaluate
    import pathlab.plots
    import pathlab.run
    import pathlab.training  # noqa: F401
