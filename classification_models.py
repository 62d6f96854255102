"""Part 1: three classifiers for 28x28 tissue images, from a straight line to a CNN.

Every model takes images float32 [B, 3, 28, 28] in [-1, 1] and returns logits float32
[B, num_classes]: one raw score for each class, before any softmax. `nn.CrossEntropyLoss` applies
the softmax itself.

What you write stands between ### BEGIN SOLUTION and ### END SOLUTION.
"""

import torch
from torch import nn

NUM_PIXELS = 3 * 28 * 28


class LinearModel(nn.Module):
    """Logistic regression: flatten the image, then one linear layer.

    Parameters: 2352 * num_classes weights and num_classes biases, and nothing else. There is no
    activation: the logits are a linear function of the pixels.
    """

    def __init__(self, num_classes: int = 9):
        super().__init__()
        ### BEGIN SOLUTION
        self.classifier = nn.Linear(NUM_PIXELS, num_classes)
        ### END SOLUTION

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images float32 [B, 3, 28, 28] -> logits float32 [B, num_classes]."""
        ### BEGIN SOLUTION
        return self.classifier(images.flatten(start_dim=1))
        ### END SOLUTION


class MLPModel(nn.Module):
    """Multi-layer perceptron: flatten, then linear layers with a ReLU between each two.

    The reference has two hidden layers, 2352 -> 512 -> 256 -> num_classes. There is no activation
    after the last layer.
    """

    def __init__(self, num_classes: int = 9):
        super().__init__()
        ### BEGIN SOLUTION
        self.layers = nn.Sequential(
            nn.Linear(NUM_PIXELS, 512),
            nn.ReLU(),
            nn.Linear(512, 256),
            nn.ReLU(),
            nn.Linear(256, num_classes),
        )
        ### END SOLUTION

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images float32 [B, 3, 28, 28] -> logits float32 [B, num_classes]."""
        ### BEGIN SOLUTION
        return self.layers(images.flatten(start_dim=1))
        ### END SOLUTION


def two_convolutions(in_channels: int, out_channels: int, kernel_size: int = 3) -> nn.Sequential:
    """Two convolutions, each followed by batch norm and ReLU. The image keeps its size.

    [B, in_channels, H, W] -> [B, out_channels, H, W]. kernel_size is odd, and half of it is padded
    on each side. The convolutions need no bias, since batch norm has one. This is a building block
    for your CNN, if you want one.
    """
    ### BEGIN SOLUTION
    k, pad = kernel_size, kernel_size // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, k, padding=pad, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, k, padding=pad, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
    ### END SOLUTION


class CNNModel(nn.Module):
    """A convolutional network of your own design. The reference:

    - three stages of two_convolutions, with 32, 64 and 128 channels;
    - a 2x2 max-pool after the first and the second stage: 28x28 -> 14x14 -> 7x7;
    - the mean of each channel over the 7x7 positions (global average pooling): it matters what is
      seen, not where. That suits tissue, which has no up and no centre;
    - dropout of 0.2, then one linear layer from 128 channels to the logits.

    Keywords of __init__ can be set by `--width`, `--depth` and `--kernel-size` of
    classification_main.py, and searched by a sweep. The reference's are the channels of the first
    stage (each later one has twice as many), the number of stages, and the size of all kernels.
    """

    def __init__(
        self, num_classes: int = 9, *, width: int = 32, depth: int = 3, kernel_size: int = 3
    ):
        super().__init__()
        ### BEGIN SOLUTION
        stages = [two_convolutions(3, width, kernel_size)]
        for _ in range(depth - 1):
            stages += [nn.MaxPool2d(2), two_convolutions(width, 2 * width, kernel_size)]
            width = 2 * width
        self.features = nn.Sequential(*stages)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, num_classes))
        ### END SOLUTION

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images float32 [B, 3, 28, 28] -> logits float32 [B, num_classes]."""
        ### BEGIN SOLUTION
        features = self.features(images)  # [B, 128, 7, 7]
        return self.classifier(features.mean(dim=(2, 3)))
        ### END SOLUTION


MODELS = {"linear": LinearModel, "mlp": MLPModel, "cnn": CNNModel}


def get_model(model_name: str, num_classes: int = 9, **options: int) -> nn.Module:
    """A new model by name: "linear", "mlp" or "cnn". Raises ValueError for any other name.

    options: keywords of that model's own, such as width=64.
    """
    if model_name not in MODELS:
        raise ValueError(f"unknown model {model_name!r}: choose one of {', '.join(MODELS)}")
    return MODELS[model_name](num_classes, **options)


def count_parameters(model: nn.Module) -> int:
    """How many numbers training can change: the elements of all parameters that need a gradient."""
    ### BEGIN SOLUTION
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    ### END SOLUTION
