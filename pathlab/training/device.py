"""The one way to pick a device and to set the random seed."""

import torch

from pathlab.errors import UserError


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name ("cpu", "cuda", "cuda:1", "mps"), or for "auto" the best one here:
    CUDA, else Apple's MPS, else the CPU.

    Raises UserError where it is unknown or not on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("it is none of cpu, cuda, cuda:1, mps")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--device {name} cannot be used here ({reason}). "
            "Leave --device out to use the best one that works."
        ) from error
    return device


def make_deterministic(seed: int) -> None:
    """Seed the generators behind initial weights and dropout, and ask for repeatable kernels.

    Batches, augmentation and boxes do not use these generators: they are given their own seed.
    """
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
