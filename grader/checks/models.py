"""Checks of models: their names, outputs, parameters and gradients. All inputs are drawn fresh."""

import numpy as np

from autograde.feedback import Lost
from grader.checks.student import Array, Model, Student
from grader.checks.tasks import DEFAULT_CLASSES


def check_names(student: Student) -> None:
    """Every name of the handout is there, with the functions' parameters in the right order."""
    task = student.task
    found = student.members(task.models, [*task.classes, task.factory, *task.others])
    found |= student.members(task.training, list(task.functions))
    missing = [name for name, (kind, _) in found.items() if not kind]
    if missing:
        raise Lost(
            "the names of the handout",
            f"{', '.join(missing)} missing",
            "a name is missing or misspelt; compare with the handout.",
        )
    for name, parameters in task.functions.items():
        got = found[name][1]
        if tuple(got[: len(parameters)]) != parameters:
            raise Lost(
                f"{name}({', '.join(parameters)})",
                f"{name}({', '.join(got)})",
                "the parameters have other names, or another order, than in the handout.",
            )


def check_count(model: Model, name: str) -> None:
    """count_parameters of a model whose parameters have the shapes that the worker names."""
    right = sum(int(np.prod(shape)) for shape in model.shapes.values())
    count = model.count()
    if count != right:
        cause = "add up parameter.numel() over model.parameters()."
        if count == len(model.shapes):
            cause = "this counts the tensors, not their elements: add up parameter.numel()."
        raise Lost(f"count_parameters of {name}: {right}", f"{count:g}", cause)


def logits_of(
    model: Model, images: Array, name: str = "the model", classes: int = DEFAULT_CLASSES
) -> Array:
    """The model's logits float32 [N, classes], finite, or Lost."""
    return checked_output(model.forward(images), (len(images), classes), f"{name}'s logits")


def probabilities_of(model: Model, images: Array, name: str) -> Array:
    """The model's probabilities float32 [N, 1, 28, 28], from 0 to 1, or Lost."""
    shape = (len(images), 1, 28, 28)
    output = checked_output(model.forward(images), shape, f"{name}'s probabilities")
    if output.min() < 0 or output.max() > 1:
        raise Lost(
            f"{name}'s probabilities, from 0 to 1",
            f"values from {output.min():.2f} to {output.max():.2f}",
            "these are logits: the sigmoid at the model's end is missing.",
        )
    return output


def output_of(model: Model, images: Array, name: str) -> Array:
    """The model's logits or probabilities, as its task has it."""
    return (probabilities_of if model.task.is_mask else logits_of)(model, images, name)


def checked_output(output: Array, shape: tuple[int, ...], what: str) -> Array:
    """The output, if it is float32 of this shape and finite, or Lost."""
    if output.dtype != np.float32 or output.shape != shape:
        raise Lost(
            f"{what}: float32 of shape {list(shape)}",
            f"{output.dtype} of shape {list(output.shape)}",
            _shape_cause(output, shape),
        )
    if not np.isfinite(output).all():
        raise Lost(f"{what}: finite numbers", "NaN or infinite values")
    return output


def _shape_cause(output: Array, shape: tuple[int, ...]) -> str:
    if output.ndim == 4 and output.shape[1:] == (*shape[2:], shape[1]):
        return "channels come last in your output (NHWC); PyTorch wants them second (NCHW)."
    if output.ndim == 4 and output.shape[2] == shape[2] - 1:
        return (
            f"the output is cropped to {output.shape[2]}x{output.shape[3]}: a pixel is lost on the "
            "way down and up, where an odd size was halved and doubled."
        )
    if output.shape == (shape[0], *shape[2:]):
        return "the dimension of the channels is gone: unsqueeze(1) gives it back."
    if len(shape) == 2 and output.ndim == 2 and output.shape[0] == shape[0]:
        return (
            "num_classes is not used for the last layer, or the layers are shared with another "
            "model (a mutable default argument, a list at class level)."
        )
    if output.shape[:1] != shape[:1] or output.ndim < 2:
        return "the batch was flattened away, or averaged; use flatten(start_dim=1)."
    return ""


def check_logits(name: str, outputs: list[Array]) -> None:
    """A softmax, sigmoid or ReLU at the end shows in three models' outputs for many images."""
    low, high = min(a.min() for a in outputs), max(a.max() for a in outputs)
    if low >= 0 and high <= 1 and all(np.allclose(a.sum(axis=1), 1, atol=1e-3) for a in outputs):
        raise Lost(
            f"{name}'s logits, which may be any numbers",
            "rows of numbers from 0 to 1 that sum to 1",
            "there is a softmax in the model; CrossEntropyLoss applies it itself.",
        )
    if low == 0:
        raise Lost(
            f"{name}'s logits, which may be any numbers",
            "no negative number, and some that are exactly 0",
            "there is a ReLU after the last layer.",
        )


def check_sigmoid(name: str, output: Array, strong: Array) -> None:
    """One sigmoid, of any number. strong: the output for images of a contrast so great that a new
    model's logits are far from 0 (of 100 new models each, 0 were accused, and 1 missed)."""
    both = np.stack([output, strong])
    if both.min() >= 0.5 and both.max() <= 0.7311 and np.ptp(strong) > 0.1:
        raise Lost(
            f"{name}'s probabilities, from 0 to 1",
            f"values from {both.min():.2f} to {both.max():.2f} only",
            "a sigmoid is applied to what are probabilities already.",
        )
    if both.min() >= 0.5 and np.mean(both == 0.5) > 0.01:
        raise Lost(
            f"{name}'s probabilities, from 0 to 1",
            "none below 0.5, and many of exactly 0.5",
            "there is a ReLU after the last layer, before the sigmoid.",
        )


def check_independence(model: Model, together: Array, images: Array, name: str) -> None:
    """An image's output does not depend on the other images. together: the outputs in a batch."""
    gap = np.abs(together - np.concatenate([output_of(model, x[None], name) for x in images])).max()
    if gap > 1e-4 * max(1, np.abs(together).max()):
        raise Lost(
            f"the same output of {name} for an image alone and in a batch",
            f"outputs that differ by {gap:.2g}",
            "the batch is mixed, by flatten() without start_dim=1 or a mean over dimension 0.",
        )


def check_linear(student: Student, name: str, linear: bool) -> None:
    """Whether the logits of images, of other images, and of the means of both are on a line."""
    a, b = student.noise(8), student.noise(8)
    with student.explaining(name):
        model, logits = student.build_perturbed(name), []
        for images in (a, b, (a + b) / 2):
            output = output_of(model, images, name).astype(np.float64)
            if student.task.is_mask:
                output = output.clip(1e-9, 1 - 1e-9)
                output = np.log(output / (1 - output))
            logits.append(output)
        x, y, middle = logits
        gap, span = np.abs(middle - (x + y) / 2).max(), np.abs(x - y).max()
        if linear and (gap > 1e-3 * span or span == 0):
            raise Lost(
                f"{name}'s logits of the mean of two images: the mean of both images' logits",
                "other logits",
                f"there is an activation or another layer in {name}.",
            )
        if not linear and gap <= 1e-3 * span:
            raise Lost(
                f"{name} to be more than one linear map",
                "logits that are linear in the image",
                "the ReLU between the layers is missing.",
            )


def check_locality(model: Model, student: Student) -> None:
    """Two patches side by side have a greater joint effect on the logits than far apart."""
    near = joint_effect(model, student, (12, 12), (12, 15))
    far = joint_effect(model, student, (3, 3), (21, 21))
    if far > 0.92 * near:
        raise Lost(
            "two patches side by side to have a joint effect on the logits that is greater "
            "than that of two patches far apart",
            f"a joint effect of {far:.3g} far apart and {near:.3g} side by side",
            "the network has no convolutions: to a linear layer, all pixels are neighbours.",
        )


def joint_effect(
    model: Model, student: Student, first: tuple[int, int], second: tuple[int, int]
) -> float:
    """How much two patches change the logits together, beyond what each does by itself.

    Far apart it is as great as side by side for an MLP (ratio 0.95 to 1.05 over many draws), and
    smaller for convolutions (0.55 for a single one before linear layers, 0.42 for a ResNet-18, 0.36
    for instance norm, less for others). The patches are no stronger than the noise around them:
    what strong ones do to the statistics of group norm is a joint effect too, however far apart.
    """
    images, patches = student.noise(256), []
    for row, column in (first, second):
        patch = np.zeros_like(images)
        signs = student.rng.choice([-1, 1], (len(images), 3, 3, 3))
        patch[:, :, row : row + 3, column : column + 3] = signs
        patches.append(patch)
    a, b = patches
    both, one, other, none = (
        logits_of(model, images + patch).astype(np.float64) for patch in (a + b, a, b, 0 * a)
    )
    return float(np.sqrt(np.square(both - one - other + none).mean()))


def check_parameters(student: Student, name: str) -> None:
    """A model's parameters: the same at every call, all used, and its own.

    The weights stay in the worker: a model may be large, and a claim about a parameter is not
    worth more if its numbers come along.
    """
    model, images = student.build_perturbed(name), student.noise(4)
    first = model.forward(images)
    if not np.array_equal(first, model.forward(images)):
        raise Lost(
            f"{name} in evaluation mode to give the same output twice",
            "two different outputs",
            "a layer is created in forward(), with new weights at every call, or dropout works in "
            "evaluation mode too (F.dropout needs training=self.training).",
        )
    # In evaluation mode: batch norm cancels the bias of the convolution before it in training mode.
    reached = model.parameters_with_gradient(images)
    dead = [parameter for parameter in model.shapes if parameter not in reached]
    if dead or not model.shapes:
        raise Lost(
            f"a gradient for every parameter of {name}",
            f"none for {', '.join(dead[:3])}" + (" and more" if len(dead) > 3 else ""),
            "a layer is made in __init__ and never used in forward, or the output is detached.",
        )
    for parameter in model.shapes:
        changed = model.forward_perturbed(images, parameter, student.new_seed())
        if np.array_equal(changed, first):
            raise Lost(
                f"an output of {name} that depends on the parameter {parameter}",
                "the same output whatever it is",
                "the layer's output is not used.",
            )
    second = student.build_perturbed(name, "second")
    before = second.forward(images)
    model.set_to_zero()
    if not np.array_equal(second.forward(images), before):
        raise Lost(
            f"two models of {name} with weights of their own",
            "a change of one model changes the other",
            "layers are shared: a mutable default argument (`layers=[]`), a list at class level, "
            "or layers that are made outside of __init__.",
        )


def check_skips(heights: list[int], iou: float) -> None:
    """A U-Net joins features at two sizes or more, and single pixels get through it.

    heights: of the feature maps that it joins; iou: after a short training to tell each pixel's
    sign.
    """
    if iou < 0.85 and 28 in heights:
        cause = "the skip at 28x28 is taken from the wrong level, or does not reach the output."
    elif iou < 0.85:
        cause = "the skip at 28x28 is missing."
    elif 28 not in heights:
        cause = "the skip at 28x28 is added instead of concatenated."
    elif len(heights) < 2:
        cause = "the skips at smaller sizes are missing, or added instead of concatenated."
    else:
        return
    got = f"joins at sizes {heights}" if heights else "no torch.cat of feature maps"
    raise Lost(
        "encoder features joined with the decoder's (torch.cat along dim=1) at two sizes or more, "
        "28x28 among them, and single pixels that get through them: after 160 steps the sign of "
        "each pixel, IoU above 0.85",
        f"{got}; IoU {iou:.2f}",
        cause,
    )
