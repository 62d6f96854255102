"""What a training leaves on the disk: its whole state (last.pt), its weights (best.safetensors)."""

import contextlib
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from pathlab.errors import UserError
from pathlab.files import write_atomically, write_torch

# What reading a damaged file can raise.
_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, ValueError, TypeError, KeyError, AttributeError),
    *(zipfile.BadZipFile, pickle.UnpicklingError, safetensors.SafetensorError),
)


def save_state(
    path: Path,
    name: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    rest: dict,
) -> None:
    """Write all that resuming needs: the model called `name`, optimizer, schedule, the state of
    PyTorch's own generators (which dropout draws from), and `rest`. Raises UserError for a full
    disk."""
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state()
    state = {"model": name, "weights": model.state_dict(), "optimizer": optimizer.state_dict()}
    state |= {"scheduler": scheduler.state_dict(), "random": random}
    write_torch(path, {**state, **rest})


def load_state(
    path: Path,
    name: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> dict:
    """Load what save_state wrote into the given objects; the rest of it is returned.

    Raises UserError if it belongs to another model or cannot be read.
    """
    with _readable(path):
        state = torch.load(path, map_location="cpu", weights_only=True)
        _check_model(path, state.pop("model"), state["weights"], name, model.state_dict())
        model.load_state_dict(state.pop("weights"))
        optimizer.load_state_dict(state.pop("optimizer"))
        scheduler.load_state_dict(state.pop("scheduler"))
        random = state.pop("random")
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and torch.cuda.is_available():
            torch.cuda.set_rng_state(random["cuda"])
        return state


def save_weights(path: Path, model: nn.Module, about: dict[str, str]) -> None:
    """Write a model's weights and these notes as safetensors. Raises UserError for a full disk."""
    weights = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    write_atomically(path, safetensors.torch.save(weights, about))


def load_weights(path: Path, model: nn.Module) -> None:
    """Load what save_weights wrote into `model`. Raises UserError if it cannot be read."""
    with _readable(path):
        model.load_state_dict(safetensors.torch.load_file(path))


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Start again in another "
            "--output-dir."
        ) from error


def _check_model(path: Path, name: str, weights: Mapping, own_name: str, own: Mapping) -> None:
    shapes, own_shapes = ({n: t.shape for n, t in w.items()} for w in (weights, own))
    if name != own_name or shapes != own_shapes:
        size, own_size = (sum(t.numel() for t in w.values()) for w in (weights, own))
        raise UserError(
            f"{path} is a checkpoint of another model: it holds {name!r} with {size} values, but "
            f"this run trains {own_name!r} with {own_size}. Resume with the model and the code "
            "that it was trained with, or start again in another --output-dir."
        )
