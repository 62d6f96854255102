"""Classifiers as tutorials write them: one attribute for each layer."""

import torch
import torch.nn as nn


class LinearModel(nn.Module):
    def __init__(self, num_classes=9):
        super().__init__()
        self.linear = nn.Linear(28 * 28 * 3, num_classes)

    def forward(self, x):
        x = x.view(x.size(0), -1)
        return self.linear(x)


class MLPModel(nn.Module):
    def __init__(self, num_classes=9):
        super().__init__()
        self.fc1 = nn.Linear(28 * 28 * 3, 128)
        self.fc2 = nn.Linear(128, num_classes)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.3)

    def forward(self, x):
        x = x.view(x.size(0), -1)
        return self.fc2(self.dropout(self.relu(self.fc1(x))))


class CNNModel(nn.Module):
    """Three blocks of convolution, ReLU and max-pool, and two linear layers."""

    def __init__(self, num_classes=9):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(16), nn.BatchNorm2d(32), nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Linear(64 * 3 * 3, 128)
        self.fc2 = nn.Linear(128, num_classes)

    def forward(self, x):
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        x = self.pool(torch.relu(self.bn2(self.conv2(x))))
        x = self.pool(torch.relu(self.bn3(self.conv3(x))))
        x = x.view(x.size(0), -1)
        return self.fc2(torch.relu(self.fc1(x)))


def get_model(model_name, num_classes=9):
    if model_name == "linear":
        return LinearModel(num_classes)
    if model_name == "mlp":
        return MLPModel(num_classes)
    if model_name == "cnn":
        return CNNModel(num_classes)
    raise ValueError(f"Unknown model: {model_name}")


def count_parameters(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
