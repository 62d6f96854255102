"""Classifiers of einsum, GELU, module lists and residual blocks."""

import itertools

import torch
import torch.nn.functional as F
from torch import nn


class LinearModel(nn.Module):
    def __init__(self, num_classes=9):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, 2352) * 0.01)
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, images):
        return torch.einsum("bp,kp->bk", images.reshape(len(images), -1), self.weight) + self.bias


class MLPModel(nn.Module):
    def __init__(self, num_classes=9):
        super().__init__()
        sizes = [2352, 200, 100, 50]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.out = nn.Linear(50, num_classes)

    def forward(self, images):
        x = torch.flatten(images, 1)
        for layer in self.hidden:
            x = F.gelu(layer(x))
        return self.out(F.dropout(x, 0.1, self.training))


class Residual(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.a, self.b = nn.Conv2d(i, o, 3, stride, 1), nn.Conv2d(o, o, 3, 1, 1)
        self.norm_a, self.norm_b = nn.BatchNorm2d(o), nn.BatchNorm2d(o)
        self.short = nn.Conv2d(i, o, 1, stride)

    def forward(self, x):
        y = self.norm_b(self.b(F.relu(self.norm_a(self.a(x)))))
        return F.relu(y + self.short(x))


class CNNModel(nn.Module):
    def __init__(self, num_classes=9):
        super().__init__()
        self.blocks = nn.Sequential(Residual(3, 32, 1), Residual(32, 64, 2), Residual(64, 128, 2))
        self.head = nn.Linear(128, num_classes)

    def forward(self, images):
        return self.head(F.adaptive_avg_pool2d(self.blocks(images), 1).flatten(1))


def get_model(model_name, num_classes=9):
    try:
        return {"linear": LinearModel, "mlp": MLPModel, "cnn": CNNModel}[model_name](num_classes)
    except KeyError:
        raise ValueError(model_name) from None


def count_parameters(model):
    count = 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            count += parameter.nelement()
    return count
