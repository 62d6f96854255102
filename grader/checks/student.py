"""The submission as the checks see it: its models and functions, in a worker that is not believed.

What a worker replies is checked here for its form, once. Whether it is right, the checks find out.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from autograde.feedback import Lost, find_definition
from autograde.replies import Reply
from autograde.student import Session
from grader.checks.tasks import Task

Array = np.ndarray
State = dict[str, Array]
Batch = tuple[Array, Array]  # images and targets
MAX_REQUESTS = 1000  # batches that one call of the submission's code may take


class BatchServer:
    """Hands out batches one by one. taken: (split, number) of each, in order."""

    def __init__(self, **splits: list[Batch]):
        self.splits = splits
        self.taken: list[tuple[str, int]] = []

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """For each split the numbers of batches and of images."""
        return {s: (len(b), sum(len(x) for x, _ in b)) for s, b in self.splits.items()}

    def __call__(self, split: str, number: object) -> dict[str, Array]:
        """One batch, for the worker. Raises Lost for what no loader would request."""
        batches = self.splits.get(split, [])
        if type(number) is not int or not 0 <= number < len(batches):
            got = f"a request for batch {str(number)[:50]}"
            raise Lost(f"batches 0 to {len(batches) - 1}", got)
        self.taken.append((split, number))
        if len(self.taken) > MAX_REQUESTS:
            raise Lost(f"{len(batches)} batches an epoch", f"{len(self.taken)} batch requests")
        images, targets = batches[number]
        return {"images": images, "targets": targets}


class Means(NamedTuple):
    """What an epoch returned. backwards: how often backward() was called, of the worker's probe."""

    loss: float
    metric: float
    backwards: int = 0


class Model:
    """A model in the worker, until another one is built with its handle.

    shapes: of the parameters that can be trained, by name.
    """

    def __init__(self, session: Session, task: Task, handle: str, shapes: dict[str, list[int]]):
        self.session, self.task, self.handle, self.shapes = session, task, handle, shapes

    def _request(
        self,
        operation: str,
        arguments: dict[str, Any] | None = None,
        arrays: State | None = None,
        seconds: float = 60,
    ) -> Reply:
        arguments = {"handle": self.handle, **(arguments or {})}
        return self.session.request(operation, arguments, arrays, seconds=seconds)

    def _run(
        self,
        operation: str,
        name: str,
        batches: BatchServer,
        seconds: float = 60,
        **arguments: object,
    ) -> Reply:
        """Let a loop of the submission run over batches that are handed out one by one."""
        arguments |= {"handle": self.handle, "module": self.task.training, "name": name}
        arguments |= {"is_mask": self.task.is_mask, "sizes": batches.sizes}
        return self.session.request(operation, arguments, seconds=seconds, batches=batches)

    def perturb(self, seed: int) -> None:
        """Add small noise to every parameter whose numbers are all alike."""
        self._request("perturb", {"seed": seed})

    def forward(self, images: Array) -> Array:
        """The output for images [N, 3, 28, 28], in evaluation mode; of any shape and dtype."""
        return self._request("forward", None, {"images": images}).array("output")

    def forward_perturbed(self, images: Array, parameter: str, seed: int) -> Array:
        """The output with strong noise on one parameter meanwhile."""
        arguments: dict[str, Any] = {"parameter": parameter, "seed": seed}
        return self._request("forward_perturbed", arguments, {"images": images}).array("output")

    def state(self) -> State:
        """All parameters and buffers, by name."""
        return self._request("state").arrays

    def set_to_zero(self) -> None:
        """All parameters and buffers become 0."""
        self._request("set_to_zero")

    def gradients(self) -> State:
        """The gradients that the parameters hold now, by name; zeros where there is none."""
        return self._request("read_gradients").arrays

    def parameters_with_gradient(self, images: Array) -> list[str]:
        """The names of the parameters that a gradient of the mean squared output reaches."""
        reply = self._request("parameters_with_gradient", None, {"images": images})
        return reply.result(list[str])

    def concatenations(self, images: Array) -> list[int]:
        """The heights of the feature maps that one forward pass joins with torch.cat."""
        return self._request("concatenations", None, {"images": images}).result(list[int])

    def count(self) -> float:
        """What the submission's count_parameters returns for this model."""
        return self._request("count_parameters", {"module": self.task.models}).result(float)

    def load_weights(self, file: Path) -> None:
        """Load a checkpoint. The worker gets its bytes; the trusted side never opens them."""
        data = np.frombuffer(file.read_bytes(), np.uint8)
        self._request("load_weights", {"suffix": file.suffix}, {"file": data})

    def train_on_masks(self, images: Array, masks: Array, learning_rate: float, size: int) -> None:
        """One pass of the grader's own loop over the images, in batches of this size."""
        arguments: dict[str, Any] = {"learning_rate": learning_rate, "batch_size": size}
        arrays = {"images": images, "targets": masks}
        self._request("train_on_masks", arguments, arrays, seconds=200)

    def train_epoch(
        self,
        batches: BatchServer,
        learning_rate: float,
        max_steps: int | None = None,
        leftover: float = 0.0,
    ) -> Means:
        """One training epoch of the submission on "train", with plain gradient descent.

        leftover: what every gradient holds before.
        """
        run: dict[str, Any] = {
            "optimizer": "sgd",
            "learning_rate": learning_rate,
            "leftover": leftover,
        }
        run |= {"criterion": self.task.criterion, "max_steps": max_steps}
        reply = self._run("train_epoch", self.task.train_epoch, batches, **run)
        return Means(*reply.result(tuple[float, float, int]))

    def train_steps(self, batches: BatchServer, steps: int) -> None:
        """The same for so many steps of Adam, at learning rate 1e-3."""
        run: dict[str, Any] = {"optimizer": "adam", "learning_rate": 1e-3, "leftover": 0.0}
        run |= {"criterion": self.task.long_criterion, "max_steps": steps}
        self._run("train_epoch", self.task.train_epoch, batches, 300, **run)

    def validate_epoch(self, batches: BatchServer) -> Means:
        """One validation epoch of the submission on "val"."""
        run: dict[str, Any] = {"criterion": self.task.criterion}
        reply = self._run("validate_epoch", self.task.validate_epoch, batches, **run)
        return Means(*reply.result(tuple[float, float]))

    def train_model(
        self, batches: BatchServer, lists: tuple[str, ...], *budget: float
    ) -> tuple[dict[str, list[float]], str]:
        """The submission's whole training on "train" and "val": (those of these lists that its
        history has, the model's device). budget: epochs, rate, decay, steps an epoch."""
        run: dict[str, Any] = {"lists": lists, "budget": budget}
        reply = self._run("train_model", self.task.train_model, batches, **run)
        return reply.result(tuple[dict[str, list[float]], str])

    def evaluate(self, batches: BatchServer, name: str) -> tuple[float, float, float]:
        """Mean IoU, its deviation and the number of images of "test", by this function."""
        return self._run("evaluate", name, batches).result(tuple[float, float, float])


class Student:
    """A submission's modules of one task. rng: what is drawn from it cannot be known before."""

    def __init__(self, session: Session, task: Task, rng: np.random.Generator):
        self.session, self.task, self.rng = session, task, rng

    def new_seed(self) -> int:
        """A seed that the submission cannot know."""
        return int(self.rng.integers(1 << 31))

    def load(self, module: str) -> None:
        """Import a module of the submission."""
        self.session.request("load", {"module": module})

    def members(self, module: str, names: list[str]) -> dict[str, tuple[str, list[str]]]:
        """For each name ("class", "function" or "" for nothing, its parameters)."""
        self.load(module)
        reply = self.session.request("members", {"module": module, "names": names})
        return reply.result(dict[str, tuple[str, list[str]]])

    def build(
        self,
        name: str,
        *arguments: str,
        options: Mapping[str, object] | None = None,
        handle: str = "model",
    ) -> Model:
        """A new model of a class, or by a function, of the task's models. It takes the place of
        an older one with the same handle."""
        self.load(self.task.models)
        request = {"module": self.task.models, "name": name, "seed": self.new_seed()}
        request |= {"handle": handle, "args": arguments, "kwargs": dict(options or {})}
        shapes = self.session.request("build", request).result(dict[str, list[int]])
        return Model(self.session, self.task, handle, shapes)

    def build_perturbed(
        self, name: str, handle: str = "model", options: Mapping[str, object] | None = None
    ) -> Model:
        """`build`, and then noise on parameters whose numbers are all alike, such as a last layer
        that starts at zero: right, but its outputs would say nothing about the layers before."""
        model = self.build(name, handle=handle, options=options)
        model.perturb(self.new_seed())
        return model

    def build_probe(self, state: State, modes: bool = False) -> Model:
        """The grader's own small model with these weights, to be trained by the submission. modes:
        its output depends on training mode and on whether gradients are recorded."""
        self.load(self.task.training)
        self.session.request("build_probe", {"handle": "probe", "modes": modes}, state)
        return Model(self.session, self.task, "probe", {})

    def score(self, name: str, predicted: Array, true: Array, **options: float) -> float:
        """The number that a function of the task's models returns."""
        return self._score("score", name, predicted, true, options).result(float)

    def loss(
        self, name: str, predicted: Array, true: Array, **options: float
    ) -> tuple[float, Array]:
        """The value of a loss made with these options, and its gradient for the prediction."""
        reply = self._score("loss", name, predicted, true, options)
        return reply.result(float), reply.array("gradient")

    def _score(self, operation: str, name: str, predicted: Array, true: Array, options) -> Reply:
        self.load(self.task.models)
        request = {"module": self.task.models, "name": name, "kwargs": options}
        return self.session.request(operation, request, {"predicted": predicted, "true": true})

    @contextmanager
    def explaining(self, name: str) -> Iterator[None]:
        """Points lost inside are explained with the line where the submission defines `name`."""
        module = self.task.training if name in self.task.functions else self.task.models
        try:
            yield
        except Lost as lost:
            lost.args = (f"{lost}{find_definition(self.session.submission, module, name)}",)
            raise

    def noise(self, n: int) -> Array:
        """Images float32 [n, 3, 28, 28], uniform in [-1, 1]."""
        return self.rng.uniform(-1, 1, (n, 3, 28, 28)).astype(np.float32)
