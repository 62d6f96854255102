"""What the trusted side can request of a worker: PyTorch around a submission's models and scores.

Runs inside the sandbox, beside autograde/untrusted/worker.py. Nothing that it returns is believed.
An operation is f(args, tensors) -> (what JSON can say, arrays).
"""

import functools
import inspect
import io
import os
import sys

import numpy as np
import torch
from protocol import DTYPES
from registry import Refused, member, operation
from torch import nn

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
models: dict[str, nn.Module] = {}  # by handle


def op(function):
    """An operation on tensors, with gradients on, whatever the submission did in an earlier one."""

    @functools.wraps(function)
    def on_arrays(args, arrays):
        torch.set_grad_enabled(True)
        return function(args, tensors_of(arrays))

    operation(on_arrays)
    return function


def arrays_of(**tensors) -> dict[str, np.ndarray]:
    """Tensors as arrays; Refused with a description for anything else."""
    out = {}
    for name, tensor in tensors.items():
        if type(tensor) is not torch.Tensor and not isinstance(tensor, torch.Tensor):
            raise Refused(f"{name} is {describe(tensor)}, not a tensor")
        tensor = tensor.detach().cpu()
        if str(tensor.dtype).removeprefix("torch.") not in DTYPES:
            raise Refused(f"{name} has dtype {tensor.dtype}")
        out[name] = tensor.numpy()
    return out


def tensors_of(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Arrays as tensors of their own."""
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def number(name: str, value) -> float | str:
    """A plain float, as text if JSON cannot say it; Refused for anything that is not one number."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = float(value.detach())
    if not isinstance(value, (int, float, np.number)):
        raise Refused(f"{name} is {describe(value)}, not a number")
    value = float(value)
    return value if np.isfinite(value) else str(value)


def describe(value) -> str:
    """The kind of thing that was returned, for a message."""
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


# ---- models ----


@op
def load(args, tensors):
    """Import a module of the submission."""
    __import__(args["module"])
    return None, {}


@op
def members(args, tensors):
    """For each name the kind of thing that it is, "" for nothing, and its parameters' names."""
    found = {}
    for name in args["names"]:
        thing = getattr(sys.modules[args["module"]], name, None)
        kind = "class" if isinstance(thing, type) else "function" if callable(thing) else ""
        try:
            parameters = list(inspect.signature(thing).parameters) if kind else []
        except (TypeError, ValueError):
            parameters = []
        found[name] = [kind, parameters]
    return found, {}


@op
def build(args, tensors):
    """Build a model from a seed and keep it by a handle: the shapes of its trainable parameters."""
    torch.manual_seed(args["seed"])
    model = member(args["module"], args["name"])(*args["args"], **args["kwargs"])
    if not isinstance(model, nn.Module):
        raise Refused(f"{args['name']} returned {describe(model)}, not an nn.Module")
    models[args["handle"]] = model
    return {n: list(p.shape) for n, p in model.named_parameters() if p.requires_grad}, {}


@op
def perturb(args, tensors):
    """Add small noise to every parameter whose numbers are all alike."""
    generator = torch.Generator().manual_seed(args["seed"])
    with torch.no_grad():
        for parameter in models[args["handle"]].parameters():
            if parameter.min() == parameter.max():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return None, {}


@op
def forward(args, tensors):
    """The model's output, in evaluation mode, without gradients."""
    model, parts = models[args["handle"]].eval(), []
    with torch.no_grad():
        for images in tensors["images"].split(64):
            output = model(images)
            arrays_of(output=output)
            parts.append(output)
    return None, arrays_of(output=torch.cat(parts))


@op
def forward_perturbed(args, tensors):
    """`forward`, with strong noise on one parameter meanwhile."""
    parameter = models[args["handle"]].get_parameter(args["parameter"]).detach()
    before, generator = parameter.clone(), torch.Generator().manual_seed(args["seed"])
    parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    try:
        return forward(args, tensors)
    finally:
        parameter.copy_(before)


@op
def state(args, tensors):
    """All parameters and buffers."""
    return None, arrays_of(**models[args["handle"]].state_dict())


@op
def set_to_zero(args, tensors):
    """All parameters and buffers become 0."""
    for tensor in models[args["handle"]].state_dict().values():
        tensor.zero_()
    return None, {}


@op
def read_gradients(args, tensors):
    """The gradients that the parameters hold now; zeros where there is none."""
    named = models[args["handle"]].named_parameters()
    return None, arrays_of(
        **{n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in named}
    )


@op
def parameters_with_gradient(args, tensors):
    """The names of the parameters that a gradient of the mean squared output, in evaluation mode,
    reaches."""
    model = models[args["handle"]].eval()
    model.zero_grad()
    model(tensors["images"]).square().mean().backward()
    named = model.named_parameters()
    return [name for name, p in named if p.grad is not None and p.grad.any()], {}


@op
def concatenations(args, tensors):
    """Which tensors one forward pass joins along the channels: for each join the height."""
    heights = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, call=(), kwargs=None):
            parts = call[0] if call else (kwargs or {}).get("tensors")
            if function in (torch.cat, torch.concat, torch.concatenate) and parts[0].ndim == 4:
                heights.append(parts[0].shape[2])
            return function(*call, **(kwargs or {}))

    with torch.no_grad(), Watch():
        models[args["handle"]].eval()(tensors["images"])
    return heights, {}


@op
def count_parameters(args, tensors):
    """What the submission's function of that name returns for a model."""
    value = member(args["module"], "count_parameters")(models[args["handle"]])
    return number("count_parameters", value), {}


@op
def load_weights(args, tensors):
    """Load a submitted checkpoint, a file's bytes, into a model. Its format is safe or it is not
    loaded."""
    data = tensors["file"].numpy().tobytes()
    if args["suffix"] == ".safetensors":
        from safetensors.torch import load

        weights = load(data)
    else:
        weights = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(weights, dict):
        raise Refused(f"the file holds {describe(weights)}, not a model's state_dict()")
    model = models[args["handle"]]
    known = model.state_dict()
    others = [str(name) for name in weights if name not in known]
    if others:
        raise Refused(f"the file holds {', '.join(others[:3])}, and the model has nothing so named")
    model.load_state_dict(weights)
    return None, {}


# ---- scores and losses ----


@op
def score(args, tensors):
    """The number that a function of the submission returns for a prediction and the truth."""
    function = member(args["module"], args["name"])
    value = function(tensors["predicted"], tensors["true"], **args["kwargs"])
    if not isinstance(value, float):
        raise Refused(f"{args['name']} returned {describe(value)}, not a float")
    return number(args["name"], value), {}


@op
def loss(args, tensors):
    """The value of a loss of the submission, and its gradient for the prediction."""
    criterion = member(args["module"], args["name"])(**args["kwargs"])
    predicted = tensors["predicted"].requires_grad_()
    value = criterion(predicted, tensors["true"])
    if not isinstance(value, torch.Tensor) or value.ndim != 0:
        shape = list(value.shape) if isinstance(value, torch.Tensor) else describe(value)
        raise Refused(f"the loss is {shape}, not a tensor of one number")
    value.backward()
    return number(args["name"], value), arrays_of(gradient=predicted.grad)
