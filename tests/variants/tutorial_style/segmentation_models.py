"""Segmenters as tutorials write them, with a U-Net of two levels and no batch norm."""

import torch
import torch.nn as nn


class LinearSegmentation(nn.Module):
    def __init__(self, in_channels=3, out_channels=1):
        super().__init__()
        self.linear = nn.Linear(in_channels * 784, out_channels * 784)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x):
        batch = x.size(0)
        return self.sigmoid(self.linear(x.view(batch, -1))).view(batch, -1, 28, 28)


class MLPSegmentation(nn.Module):
    def __init__(self, in_channels=3, out_channels=1):
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(in_channels * 784, 256),
            nn.ReLU(),
            nn.Linear(256, out_channels * 784),
            nn.Sigmoid(),
            nn.Unflatten(1, (out_channels, 28, 28)),
        )

    def forward(self, x):
        return self.net(x)


class CNNSegmentation(nn.Module):
    def __init__(self, in_channels=3, out_channels=1):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(64, 32, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(32, out_channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return self.net(x)


def block(i, o):
    return nn.Sequential(
        nn.Conv2d(i, o, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(o, o, 3, padding=1),
        nn.ReLU(inplace=True),
    )


class TinyUNet(nn.Module):
    """Two levels, no batch norm."""

    def __init__(self, in_channels=3, out_channels=1, base_channels=16):
        super().__init__()
        c = base_channels
        self.enc1, self.enc2 = block(in_channels, c), block(c, c * 2)
        self.bottleneck = block(c * 2, c * 4)
        self.pool = nn.MaxPool2d(2)
        self.upconv2 = nn.ConvTranspose2d(c * 4, c * 2, 2, stride=2)
        self.dec2 = block(c * 4, c * 2)
        self.upconv1 = nn.ConvTranspose2d(c * 2, c, 2, stride=2)
        self.dec1 = block(c * 2, c)
        self.final = nn.Conv2d(c, out_channels, 1)

    def forward(self, x):
        e1 = self.enc1(x)
        e2 = self.enc2(self.pool(e1))
        b = self.bottleneck(self.pool(e2))
        d2 = self.dec2(torch.cat((self.upconv2(b), e2), 1))
        d1 = self.dec1(torch.cat((self.upconv1(d2), e1), 1))
        return torch.sigmoid(self.final(d1))


def get_segmentation_model(model_name, in_channels=3, out_channels=1):
    models = {
        "linear": LinearSegmentation,
        "mlp": MLPSegmentation,
        "cnn": CNNSegmentation,
        "unet": TinyUNet,
    }
    if model_name not in models:
        raise ValueError(model_name)
    return models[model_name](in_channels, out_channels)


def count_parameters(model):
    return sum(p.numel() for p in model.parameters())


def calculate_iou(pred_mask, true_mask, threshold=0.5):
    pred = (pred_mask > threshold).float()
    intersection = (pred * true_mask).sum(dim=(1, 2, 3))
    union = pred.sum(dim=(1, 2, 3)) + true_mask.sum(dim=(1, 2, 3)) - intersection
    return ((intersection + 1e-6) / (union + 1e-6)).mean().item()


class DiceLoss(nn.Module):
    def __init__(self, smooth=1.0):
        super().__init__()
        self.smooth = smooth

    def forward(self, pred, target):
        pred = pred.view(pred.size(0), -1)
        target = target.view(target.size(0), -1)
        intersection = (pred * target).sum(1)
        dice = (2.0 * intersection + self.smooth) / (pred.sum(1) + target.sum(1) + self.smooth)
        return (1 - dice).mean()


class CombinedLoss(nn.Module):
    def __init__(self, bce_weight=0.5, dice_weight=0.5):
        super().__init__()
        self.a, self.b = bce_weight, dice_weight
        self.bce, self.dice = nn.BCELoss(), DiceLoss()

    def forward(self, pred, target):
        return self.a * self.bce(pred, target) + self.b * self.dice(pred, target)
