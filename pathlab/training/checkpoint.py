"""What a training leaves on the disk: its whole state (last.pt), its weights (best.safetensors)."""

import contextlib
import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from pathlab.errors import UserError
from pathlab.files import write_atomically

# What reading a damaged file can raise.
_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, ValueError, TypeError, KeyError, AttributeError),
    *(zipfile.BadZipFile, pickle.UnpicklingError, safetensors.SafetensorError),
)


def write_torch(path: Path, value: object) -> None:
    """Write a value as torch.save does, atomically. Raises UserError as write_atomically does."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    write_atomically(path, buffer.getvalue())


def save_state(path: Path, model: str, parts: dict[str, Any], rest: dict) -> None:
    """Write all that resuming needs: the model's name, the state_dict() of each part, the state
    of PyTorch's own generators (which dropout draws from), and `rest`. "weights" is the model.

    Raises UserError for a full disk.
    """
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state()
    states = {name: part.state_dict() for name, part in parts.items()}
    write_torch(path, {"model": model, **states, "random": random, **rest})


def load_state(path: Path, model: str, parts: dict[str, Any]) -> dict:
    """Load what save_state wrote into the given parts, and return all of it.

    Raises UserError if it belongs to another model or cannot be read.
    """
    with _readable(path):
        state = torch.load(path, map_location="cpu", weights_only=True)
        _check_model(path, state["model"], state["weights"], model, parts["weights"].state_dict())
        for name, part in parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["random"]["cpu"])
        if "cuda" in state["random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["random"]["cuda"])
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
