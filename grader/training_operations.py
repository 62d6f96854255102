"""What the trusted side can request of a worker: a submission's training loops, batch by batch.

Runs inside the sandbox, beside operations.py. Nothing that it returns is believed.
"""

import torch
from operations import describe, models, number, op, tensors_of
from registry import Refused, member, request_batch
from torch import nn
from torch.utils.data import DataLoader, Dataset


@op
def build_probe(args, tensors):
    """Keep one of the grader's own models, with these weights, by a handle."""
    models[args["handle"]] = Probe(tensors, args["modes"])
    return None, {}


@op
def train_on_masks(args, tensors):
    """Train a model that outputs masks, by the grader's own loop: one pass, Adam, BCE."""
    model = models[args["handle"]].train()
    optimizer = torch.optim.Adam(model.parameters(), lr=args["learning_rate"])
    parts = (tensors[name].split(args["batch_size"]) for name in ("images", "targets"))
    for images, targets in zip(*parts, strict=True):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy(model(images), targets).backward()
        optimizer.step()
    return None, {}


@op
def train_epoch(args, tensors):
    """Run a training epoch of the submission with the grader's optimizer: loss, metric, and how
    often backward() was called. leftover: what every gradient holds before."""
    model, backwards = models[args["handle"]], []
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[args["optimizer"]]
    optimizer = kind(model.parameters(), lr=args["learning_rate"])
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, args["leftover"])
    if args["leftover"]:
        next(model.parameters()).register_hook(lambda gradient: backwards.append(None))
    run = (optimizer, CRITERIA[args["criterion"]](), torch.device("cpu"), args["max_steps"])
    function = member(args["module"], args["name"])
    means = loss_and_metric(args["name"], function(model, remote_loader(args, "train"), *run))
    return [*means, len(backwards)], {}


@op
def validate_epoch(args, tensors):
    """Run a validation epoch of the submission: loss and metric."""
    run = (CRITERIA[args["criterion"]](), torch.device("cpu"))
    function = member(args["module"], args["name"])
    result = function(models[args["handle"]], remote_loader(args, "val"), *run)
    return loss_and_metric(args["name"], result), {}


def loss_and_metric(function: str, result) -> list[float | str]:
    """What an epoch's function has to return; Refused for anything else."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise Refused(f"{function} returned {describe(result)}, not (loss, metric)")
    return [number(name, value) for name, value in zip(("loss", "metric"), result, strict=True)]


@op
def train_model(args, tensors):
    """Run the submission's whole training: the lists of its history, and the model's device."""
    model, function = models[args["handle"]], member(args["module"], args["name"])
    loaders = remote_loader(args, "train"), remote_loader(args, "val")
    history = function(model, *loaders, *args["budget"])
    if not isinstance(history, dict):
        raise Refused(f"{args['name']} returned {describe(history)}, not a dict of lists")
    lists = {}
    for name in args["lists"]:
        if name not in history:
            continue
        if not isinstance(history[name], (list, tuple)):
            raise Refused(f"history[{name!r}] is {describe(history[name])}, not a list")
        lists[name] = [number(name, value) for value in history[name]]
    return [lists, str(next(model.parameters()).device)], {}


@op
def evaluate(args, tensors):
    """What evaluate_segmentation_model returns: mean, deviation, number of images."""
    result = member(args["module"], args["name"])(
        models[args["handle"]], remote_loader(args, "test"), "hidden"
    )
    if not isinstance(result, dict):
        raise Refused(f"{args['name']} returned {describe(result)}, not a dict")
    wanted = ("mean_iou", "std_iou", "total_samples")
    missing = [name for name in wanted if name not in result]
    if missing:
        raise Refused(f"the dict lacks {', '.join(missing)}")
    return [number(name, result[name]) for name in wanted], {}


class RemoteDataset(Dataset):
    """Requests every batch from the trusted side; knows nothing else of the data."""

    def __init__(self, split: str, images: int, is_mask: bool):
        self.split, self.images, self.is_mask = split, images, is_mask

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, batch):
        tensors = tensors_of(request_batch(self.split, batch))
        images, targets = tensors["images"], tensors["targets"]
        if not self.is_mask:
            return images, targets
        labels = torch.zeros(len(images), dtype=torch.int64)
        has_box = torch.ones(len(images), dtype=torch.bool)
        return {"image": images, "mask": targets, "pathmnist_label": labels, "has_box": has_box}


def remote_loader(args, split: str) -> DataLoader:
    """A loader of the batches of args["sizes"][split], which is (batches, images)."""
    batches, images = args["sizes"][split]
    dataset = RemoteDataset(split, images, args["is_mask"])
    return DataLoader(dataset, sampler=range(batches), batch_size=None)


class Probe(nn.Module):
    """A model so small that NumPy can train it too: softmax regression, or, with a weight of four
    dimensions, logistic regression on the channels of each pixel.

    With modes, its output is shifted: by bias[0] in training mode, by bias[1] where gradients are
    recorded. The trusted side knows both numbers, which are from 0 to 4 together. Of logits the
    first one is raised (all of them alike would change nothing); probabilities move towards 1.
    """

    def __init__(self, weights: dict[str, torch.Tensor], modes: bool):
        super().__init__()
        self.modes, shape = modes, weights["layer.weight"].shape
        self.is_mask = len(shape) == 4
        self.layer = nn.Conv2d(shape[1], 1, 1) if self.is_mask else nn.Linear(shape[1], shape[0])
        if modes:
            self.bias = nn.Parameter(torch.zeros(2))
            self.register_buffer("seen", torch.zeros(1))
        self.load_state_dict(weights)

    def forward(self, images):
        out = torch.sigmoid(self.layer(images)) if self.is_mask else self.layer(images.flatten(1))
        if not self.modes:
            return out
        if self.training:
            self.seen += 1
        shift = self.training * self.bias[0] + torch.is_grad_enabled() * self.bias[1]
        if self.is_mask:
            return out + (1 - out) * shift / 4
        return torch.cat([out[:, :1] + shift, out[:, 1:]], dim=1)


class Combined(nn.Module):
    """The grader's own half BCE, half Dice, so that a wrong loss costs its own points only."""

    def forward(self, predicted, true):
        p, t = predicted.flatten(1), true.flatten(1)
        dice = (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)
        return 0.5 * nn.functional.binary_cross_entropy(p, t) + 0.5 * (1 - dice.mean())


CRITERIA = {"cross entropy": nn.CrossEntropyLoss, "bce": nn.BCELoss, "combined": Combined}
