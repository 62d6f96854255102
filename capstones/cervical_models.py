"""The two networks of `cervical`: a U-Net with attention and two heads, and a classifier."""

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import SEModule
from timm.layers.cbam import CbamModule
from torch import nn
from torch.nn import functional as F

from capstones.backbones import make_backbone
from pathlab.errors import UserError

HEADS = ("cytoplasm", "nucleus")  # in the order of the masks' channels
STRIDES = [4, 8, 16, 32]
WIDTHS = (256, 128, 64)
DETAIL = 16  # channels of the features at the image's own resolution
REDUCTION = 1 / 16  # of the channels, in CBAM and in squeeze-and-excitation


class AttentionGate(nn.Module):
    """Lets through what the coarser level asks for: alpha * skip, alpha in (0, 1) for each pixel.

    alpha = sigmoid(psi(relu(W_g gate + W_x skip + b))), all of them 1x1 convolutions (Oktay et al.,
    "Attention U-Net", 2018, equations 1 and 2). gate: float [B, G, H, W]; skip: float [B, C, H, W].
    """

    def __init__(self, gate_channels: int, skip_channels: int) -> None:
        super().__init__()
        between = max(skip_channels // 2, 1)
        self.from_gate = nn.Conv2d(gate_channels, between, 1)
        self.from_skip = nn.Conv2d(skip_channels, between, 1, bias=False)
        self.psi = nn.Conv2d(between, 1, 1)

    def forward(self, gate: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """float [B, C, H, W]: the skip, weighted."""
        both = F.relu(self.from_gate(gate) + self.from_skip(skip))
        return skip * self.psi(both).sigmoid()


class DecoderLevel(nn.Module):
    """float [B, C_in, h, w] and the skip [B, C_skip, H, W] -> [B, C_out, H, W]."""

    def __init__(self, channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.gate = AttentionGate(channels, skip_channels)
        self.convolutions = nn.Sequential(
            *conv_bn_relu(channels + skip_channels, out_channels),
            *conv_bn_relu(out_channels, out_channels),
            CbamModule(out_channels, rd_ratio=REDUCTION),
        )

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """x enlarged to the skip's size, joined with it and narrowed."""
        x = resize(x, skip.shape[-2:])
        return self.convolutions(torch.cat([x, self.gate(x, skip)], dim=1))


class Decoder(nn.Module):
    """One head: the encoder's features, finest first, and `detail` -> logits [B, 1, H, W].

    detail: float [B, DETAIL, H, W], at the image's resolution. The levels end at a quarter of it,
    where the encoder's first features are; `detail` puts the border where the image has it.
    """

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        *skips, deepest = channels
        inputs = (deepest, *WIDTHS[:-1])
        self.levels = nn.ModuleList(
            DecoderLevel(*widths) for widths in zip(inputs, skips[::-1], WIDTHS, strict=True)
        )
        self.narrow = nn.Conv2d(WIDTHS[-1], DETAIL, 1)  # before it is enlarged: 16 times cheaper
        self.refine = nn.Sequential(*conv_bn_relu(2 * DETAIL, DETAIL), nn.Conv2d(DETAIL, 1, 1))

    def forward(self, features: list[torch.Tensor], detail: torch.Tensor) -> torch.Tensor:
        """Logits of the head."""
        *skips, x = features
        for level, skip in zip(self.levels, skips[::-1], strict=True):
            x = level(x, skip)
        x = resize(self.narrow(x), detail.shape[-2:])
        return self.refine(torch.cat([x, detail], dim=1))


class DualHeadAttConvNeXtUNet(nn.Module):
    """float [B, 3, H, W] -> logits [B, 2, H, W], cytoplasm and nucleus; H and W from 32, any.

    One encoder from timm, with features of [96, 192, 384, 768] channels at strides 4, 8, 16 and 32
    for ConvNeXt-Tiny, and a decoder for each head. Raises UserError as make_backbone, and for a
    backbone without features at these strides.
    """

    def __init__(self, backbone: str, pretrained: bool) -> None:
        super().__init__()
        self.encoder = make_backbone(backbone, pretrained, features_only=True)
        info: Any = self.encoder.feature_info
        if info.reduction()[-4:] != STRIDES:
            raise UserError(
                f"--backbone {backbone} has features at strides {info.reduction()}; a U-Net needs "
                f"{STRIDES}, as the convnext family has them (convnext_tiny, convnext_atto, ...)."
            )
        self.detail = nn.Sequential(*conv_bn_relu(3, DETAIL), *conv_bn_relu(DETAIL, DETAIL))
        self.decoders = nn.ModuleDict({head: Decoder(info.channels()[-4:]) for head in HEADS})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of both heads, in the order of HEADS."""
        features, detail = self.encoder(images)[-4:], self.detail(images)
        return torch.cat([self.decoders[head](features, detail) for head in HEADS], dim=1)


class SelfAttention(nn.Module):
    """Self-attention inside one feature vector, float [B, F] -> [B, F]: x + attention, normalized.

    Attention over a sequence of one is a linear layer, so the vector is cut into `tokens` pieces,
    which attend to each other.
    """

    def __init__(self, features: int, tokens: int = 8, heads: int = 4) -> None:
        super().__init__()
        self.tokens = tokens
        self.attention = nn.MultiheadAttention(features // tokens, heads, batch_first=True)
        self.norm = nn.LayerNorm(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float [B, F], the same size."""
        pieces = x.unflatten(1, (self.tokens, -1))
        attended, _ = self.attention(pieces, pieces, pieces, need_weights=False)
        return self.norm(x + attended.flatten(1))


class ConvNeXtAttentionClassifier(nn.Module):
    """float [B, C, H, W] -> logits [B, n_classes]; C = 5: an RGB image and two masks.

    A timm backbone (768 features for ConvNeXt-Tiny), squeeze-and-excitation, the mean over all
    pixels, and 512 -> self-attention -> 256 -> n_classes.
    """

    def __init__(self, backbone: str, channels: int, n_classes: int, pretrained: bool) -> None:
        super().__init__()
        self.backbone = make_backbone(
            backbone, pretrained, in_chans=channels, num_classes=0, global_pool=""
        )
        features: Any = self.backbone.num_features
        self.squeeze = SEModule(features, rd_ratio=REDUCTION, rd_divisor=1)
        self.head = nn.Sequential(
            *dense(features, 512, dropout=0.4),
            SelfAttention(512),
            *dense(512, 256, dropout=0.3),
            nn.Linear(256, n_classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [B, n_classes]."""
        return self.head(self.squeeze(self.backbone(images)).mean((2, 3)))


def conv_bn_relu(channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    """A 3x3 convolution, batch norm, ReLU."""
    convolution = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)


def dense(features: int, out_features: int, dropout: float) -> tuple[nn.Module, ...]:
    """A linear layer, batch norm, ReLU, dropout."""
    linear = nn.Linear(features, out_features)
    return linear, nn.BatchNorm1d(out_features), nn.ReLU(inplace=True), nn.Dropout(dropout)


def resize(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Bilinear, float [B, C, h, w] -> [B, C, H, W]."""
    return F.interpolate(x, list(size), mode="bilinear", align_corners=False)
