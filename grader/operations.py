"""What the trusted side can request of a worker: PyTorch around a submission's models and loops.

Runs inside the sandbox, beside autograde/untrusted/worker.py. Nothing that it returns is believed.
"""

import functools
import inspect
import io
import os
import sys

import numpy as np
import torch
from protocol import DTYPES
from registry import Refused, member, operation, request_batch
from torch import nn
from torch.utils.data import DataLoader, Dataset

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
            raise Refused(f"{name} is a {type(tensor).__name__}, not a tensor")
        tensor = tensor.detach().cpu()
        if str(tensor.dtype).removeprefix("torch.") not in DTYPES:
            raise Refused(f"{name} has dtype {tensor.dtype}")
        out[name] = tensor.numpy()
    return out


def tensors_of(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def number(name: str, value) -> float:
    """A plain float; Refused for anything that is not one number."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return float(value.detach())
    if isinstance(value, (int, float, np.number)):
        return float(value)
    raise Refused(f"{name} is a {type(value).__name__}, not a number")


def finite_or_text(value: float) -> float | str:
    return value if np.isfinite(value) else str(value)


# ---- what the trusted side can ask for: op(args, tensors) -> (head, arrays) ----


@op
def load(args, tensors):
    """Import a module of the submission."""
    __import__(args["module"])
    return None, {}


@op
def members(args, tensors):
    """For each name the kind of thing that it is, and its parameters' names."""
    found = {}
    module = sys.modules[args["module"]]
    for name in args["names"]:
        thing = getattr(module, name, None)
        kind = "class" if isinstance(thing, type) else "function" if callable(thing) else None
        try:
            parameters = list(inspect.signature(thing).parameters) if kind else []
        except (TypeError, ValueError):
            parameters = []
        found[name] = {"kind": kind, "parameters": parameters}
    return found, {}


@op
def build(args, tensors):
    """Make a model (or one of the grader's own probes) from a seed, and keep it by a handle.

    Answers the shapes of the parameters that can be trained.
    """
    torch.manual_seed(args["seed"])
    if args.get("probe"):
        model = PROBES[args["probe"]]()
    else:
        make = member(args["module"], args["name"])
        model = make(*args.get("args", ()), **args.get("kwargs", {}))
    if not isinstance(model, nn.Module):
        raise Refused(f"{args['name']} made {describe(model)}, not an nn.Module")
    models[args["handle"]] = model
    return build_shapes(args, tensors)


@op
def build_shapes(args, tensors):
    """The shapes of a model's parameters that can be trained, by name."""
    named = models[args["handle"]].named_parameters()
    return {name: list(p.shape) for name, p in named if p.requires_grad}, {}


@op
def forward(args, tensors):
    """The model's answer, in evaluation mode, without gradients."""
    model = models[args["handle"]].eval()
    parts = []
    with torch.no_grad():
        for images in tensors["images"].split(64):
            answer = model(images)
            arrays_of(answer=answer)
            parts.append(answer)
    return None, arrays_of(answer=torch.cat(parts))


@op
def state(args, tensors):
    """All parameters and buffers."""
    return None, arrays_of(**models[args["handle"]].state_dict())


@op
def held(args, tensors):
    """The gradients that the parameters hold now; zeros where there is none."""
    named = models[args["handle"]].named_parameters()
    return None, arrays_of(
        **{n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in named}
    )


@op
def learn(args, tensors):
    """Train a model that answers masks, by the grader's own loop: one pass, Adam, BCE."""
    model = models[args["handle"]].train()
    optimizer = torch.optim.Adam(model.parameters(), lr=args["learning_rate"])
    parts = (tensors[name].split(args["batch"]) for name in ("images", "targets"))
    for images, targets in zip(*parts, strict=True):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy(model(images), targets).backward()
        optimizer.step()
    return None, {}


@op
def set_state(args, tensors):
    models[args["handle"]].load_state_dict(tensors)
    return None, {}


@op
def stir(args, tensors):
    """Small noise on every parameter whose numbers are all alike."""
    generator = torch.Generator().manual_seed(args["seed"])
    with torch.no_grad():
        for parameter in models[args["handle"]].parameters():
            if parameter.min() == parameter.max():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return None, {}


@op
def forward_moved(args, tensors):
    """`forward`, with great noise on one parameter meanwhile."""
    parameter = models[args["handle"]].get_parameter(args["name"]).detach()
    numbers, generator = parameter.clone(), torch.Generator().manual_seed(args["seed"])
    parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    try:
        return forward(args, tensors)
    finally:
        parameter.copy_(numbers)


@op
def zero(args, tensors):
    """All parameters and buffers become 0."""
    for tensor in models[args["handle"]].state_dict().values():
        tensor.zero_()
    return None, {}


@op
def gradient(args, tensors):
    """The names of the parameters that a gradient of the mean squared answer, in evaluation mode,
    reaches."""
    model = models[args["handle"]].eval()
    model.zero_grad()
    model(tensors["images"]).square().mean().backward()
    named = model.named_parameters()
    return [name for name, p in named if p.grad is not None and p.grad.any()], {}


@op
def concatenations(args, tensors):
    """Which tensors one forward pass joins along the channels: for each join the channels of its
    parts, and the height."""
    joins = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, call=(), kwargs=None):
            parts = call[0] if call else (kwargs or {}).get("tensors")
            if function in (torch.cat, torch.concat, torch.concatenate) and parts[0].ndim == 4:
                joins.append([[p.shape[1] for p in parts], parts[0].shape[2]])
            return function(*call, **(kwargs or {}))

    with torch.no_grad(), Watch():
        models[args["handle"]].eval()(tensors["images"])
    return joins, {}


@op
def count_parameters(args, tensors):
    value = member(args["module"], "count_parameters")(models[args["handle"]])
    return number("count_parameters", value), {}


@op
def score(args, tensors):
    """A number that a function or loss of the submission gives for two arrays, and a loss's
    gradient for the first one."""
    made = member(args["module"], args["name"])
    function = made(**args.get("kwargs", {})) if args.get("is_class") else made
    predicted = tensors["predicted"].requires_grad_(bool(args.get("is_class")))
    value = function(predicted, tensors["true"], **args.get("call", {}))
    arrays = {}
    if args.get("is_class"):
        if not isinstance(value, torch.Tensor) or value.ndim != 0:
            shape = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise Refused(f"the loss is {shape}, not a tensor of one number")
        value.backward()
        arrays = arrays_of(gradient=predicted.grad)
    elif not isinstance(value, float):
        raise Refused(f"{args['name']} returned a {type(value).__name__}, not a float")
    return finite_or_text(number(args["name"], value)), arrays


@op
def epoch(args, tensors):
    """Run a training or validation epoch of the submission on batches that are fetched one by one
    from the trusted side, with the grader's optimizer: loss, metric, and calls of backward()."""
    model = models[args["handle"]]
    loader = fetched(args["batches"], args["images"], args["is_mask"])
    function = member(args["module"], args["name"])
    device, criterion = torch.device("cpu"), CRITERIA[args["criterion"]]()
    backwards = []
    if args["training"]:
        kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[args["optimizer"]]
        optimizer = kind(model.parameters(), lr=args["learning_rate"])
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, args.get("leftover", 0.0))
        if "leftover" in args:
            next(model.parameters()).register_hook(lambda gradient: backwards.append(None))
        result = function(model, loader, optimizer, criterion, device, args["max_steps"])
    else:
        result = function(model, loader, criterion, device)
    if not isinstance(result, tuple) or len(result) != 2:
        raise Refused(f"{args['name']} returned {describe(result)}, not (loss, metric)")
    loss, metric = (number(n, v) for n, v in zip(("loss", "metric"), result, strict=True))
    return [finite_or_text(loss), finite_or_text(metric), len(backwards)], {}


@op
def fit(args, tensors):
    """Run the submission's whole training function on fetched batches; its history."""
    model = models[args["handle"]]
    train = fetched(args["batches"], args["images"], args["is_mask"], "train")
    val = fetched(args["val_batches"], args["val_images"], args["is_mask"], "val")
    function = member(args["module"], args["name"])
    history = function(model, train, val, *args["budget"])
    if not isinstance(history, dict):
        raise Refused(f"{args['name']} returned {describe(history)}, not a dict of lists")
    plain = {}
    for name in args["lists"]:
        if name not in history:
            continue
        values = history[name]
        if not isinstance(values, (list, tuple)):
            raise Refused(f"history[{name!r}] is a {type(values).__name__}, not a list")
        plain[name] = [finite_or_text(number(name, v)) for v in values]
    return {"history": plain, "device": str(next(model.parameters()).device)}, {}


@op
def evaluate(args, tensors):
    """evaluate_segmentation_model on fetched batches."""
    loader = fetched(args["batches"], args["images"], True)
    result = member(args["module"], args["name"])(models[args["handle"]], loader, "hidden")
    if not isinstance(result, dict):
        raise Refused(f"{args['name']} returned {describe(result)}, not a dict")
    wanted = ("mean_iou", "std_iou", "total_samples")
    missing = [name for name in wanted if name not in result]
    if missing:
        raise Refused(f"the dict lacks {', '.join(missing)}")
    return {name: finite_or_text(number(name, result[name])) for name in wanted}, {}


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


# ---- data that comes from the trusted side, batch by batch ----


class Fetched(Dataset):
    """Asks the trusted side for every batch; knows nothing else of the data."""

    def __init__(self, images: int, is_mask: bool, split: str):
        self.images, self.is_mask, self.split = images, is_mask, split

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, batch):
        tensors = tensors_of(request_batch(self.split, batch))
        if self.is_mask:
            labels = torch.zeros(len(tensors["images"]), dtype=torch.int64)
            has_box = torch.ones(len(labels), dtype=torch.bool)
            return {
                "image": tensors["images"],
                "mask": tensors["targets"],
                "pathmnist_label": labels,
                "has_box": has_box,
            }
        return tensors["images"], tensors["targets"]


def fetched(batches: int, images: int, is_mask: bool, split: str = "train") -> DataLoader:
    dataset = Fetched(images, is_mask, split)
    return DataLoader(dataset, sampler=range(batches), batch_size=None)


class LinearProbe(nn.Module):
    """Softmax regression, which NumPy can train too."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2352, 9)

    def forward(self, images):
        return self.layer(images.flatten(1))


class MaskProbe(nn.Module):
    """Logistic regression on the three channels of each pixel."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 1, kernel_size=1)

    def forward(self, images):
        return torch.sigmoid(self.layer(images))


class ModeProbe(nn.Module):
    """Answers differently in training mode, and where gradients are recorded: `bias[0]` counts in
    training mode, `bias[1]` with gradients. The trusted side knows both numbers, which are from 0
    to 4 together. Logits: the first one is raised. Masks: all are moved towards 1."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body
        self.bias = nn.Parameter(torch.zeros(2))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, images):
        if self.training:
            self.seen += 1
        shift = self.training * self.bias[0] + torch.is_grad_enabled() * self.bias[1]
        answer = self.body(images)
        if answer.ndim == 2:  # move one class's logit only: all of them alike would change nothing
            return torch.cat([answer[:, :1] + shift, answer[:, 1:]], dim=1)
        return answer + (1 - answer) * shift / 4


PROBES = {
    "linear": LinearProbe,
    "mask": MaskProbe,
    "linear mode": lambda: ModeProbe(LinearProbe()),
    "mask mode": lambda: ModeProbe(MaskProbe()),
}


class Combined(nn.Module):
    """The grader's own half BCE, half Dice, so that a wrong loss costs its own points only."""

    def forward(self, predicted, true):
        p, t = predicted.flatten(1), true.flatten(1)
        dice = (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)
        return 0.5 * nn.functional.binary_cross_entropy(p, t) + 0.5 * (1 - dice.mean())


CRITERIA = {"cross entropy": nn.CrossEntropyLoss, "bce": nn.BCELoss, "combined": Combined}


def describe(value) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
