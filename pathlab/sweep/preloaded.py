"""What the fork server of pathlab.sweep.scripts imports and does once, before it forks."""

import gc
import os
import weakref

os.setsid()  # Ctrl-C in a terminal is for the dispatcher alone

from pathlab.sweep import scripts  # noqa: E402

scripts.server_pid = os.getpid()

# isort: split
import torch  # noqa: E402
import torch.utils.data  # noqa: E402

# The first step of any optimizer imports half of torch again, which takes most of a second.
parameter = torch.nn.Parameter(torch.zeros(1))
parameter.grad = torch.zeros(1)
torch.optim.AdamW([parameter]).step()

for finalizer in list(getattr(weakref.finalize, "_registry", ())):
    finalizer.atexit = False  # torch would take its operators apart at the end of every script
gc.collect()
gc.freeze()  # pages that no collection touches stay shared with the forks
