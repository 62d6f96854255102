"""The two networks of `cervical`, the segmentation's loss and scores, and how it is trained."""

import math
from collections.abc import Callable

import lightning as L
import torch
from timm.layers import SEModule
from timm.layers.cbam import CbamModule
from torch import nn
from torch.nn import functional as F

from capstones.backbones import make_backbone
from capstones.cervical_data import HEADS
from capstones.cervical_scores import count_pixels, overlap_scores
from capstones.training import finite
from pathlab.errors import UserError

STRIDES = [4, 8, 16, 32]
WIDTHS = (256, 128, 64)
DETAIL = 16  # channels of the features at the image's own resolution
REDUCTION = 1 / 16  # of the channels, in CBAM and in squeeze-and-excitation


class AttentionGate(nn.Module):
    """Lets through what the coarser level asks for: alpha * skip, alpha in (0, 1) for each pixel.

    alpha = sigmoid(psi(relu(W_g gate + W_x skip + b))), all of them 1x1 convolutions (Oktay et al.,
    "Attention U-Net", 2018, equations 1 and 2). gate: float [B, G, H, W]; skip: float [B, C, H, W].
    """

    def __init__(self, gate_channels: int, skip_channels: int):
        super().__init__()
        between = max(skip_channels // 2, 1)
        self.from_gate = nn.Conv2d(gate_channels, between, 1)
        self.from_skip = nn.Conv2d(skip_channels, between, 1, bias=False)
        self.psi = nn.Conv2d(between, 1, 1)

    def forward(self, gate: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        both = F.relu(self.from_gate(gate) + self.from_skip(skip))
        return skip * self.psi(both).sigmoid()


class DecoderLevel(nn.Module):
    """float [B, C_in, h, w] and the skip [B, C_skip, H, W] -> [B, C_out, H, W]."""

    def __init__(self, channels: int, skip_channels: int, out_channels: int):
        super().__init__()
        self.gate = AttentionGate(channels, skip_channels)
        self.convolutions = nn.Sequential(
            *conv_bn_relu(channels + skip_channels, out_channels),
            *conv_bn_relu(out_channels, out_channels),
            CbamModule(out_channels, rd_ratio=REDUCTION),
        )

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = resize(x, skip.shape[-2:])
        return self.convolutions(torch.cat([x, self.gate(x, skip)], dim=1))


class Decoder(nn.Module):
    """One head: the encoder's features, finest first, and `detail` -> logits [B, 1, H, W].

    detail: float [B, DETAIL, H, W], at the image's resolution. The levels end at a quarter of it,
    where the encoder's first features are; `detail` puts the border where the image has it.
    """

    def __init__(self, channels: list[int]):
        super().__init__()
        *skips, deepest = channels
        inputs = (deepest, *WIDTHS[:-1])
        self.levels = nn.ModuleList(
            DecoderLevel(*widths) for widths in zip(inputs, skips[::-1], WIDTHS, strict=True)
        )
        self.narrow = nn.Conv2d(WIDTHS[-1], DETAIL, 1)  # before it is enlarged: 16 times cheaper
        self.refine = nn.Sequential(*conv_bn_relu(2 * DETAIL, DETAIL), nn.Conv2d(DETAIL, 1, 1))

    def forward(self, features: list[torch.Tensor], detail: torch.Tensor) -> torch.Tensor:
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

    def __init__(self, backbone: str, pretrained: bool):
        super().__init__()
        self.encoder = make_backbone(backbone, pretrained, features_only=True)
        info = self.encoder.feature_info
        if info.reduction()[-4:] != STRIDES:
            raise UserError(
                f"--backbone {backbone} has features at strides {info.reduction()}; a U-Net needs "
                f"{STRIDES}, as the convnext family has them (convnext_tiny, convnext_atto, ...)."
            )
        self.detail = nn.Sequential(*conv_bn_relu(3, DETAIL), *conv_bn_relu(DETAIL, DETAIL))
        self.decoders = nn.ModuleDict({head: Decoder(info.channels()[-4:]) for head in HEADS})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features, detail = self.encoder(images)[-4:], self.detail(images)
        return torch.cat([self.decoders[head](features, detail) for head in HEADS], dim=1)


class SelfAttention(nn.Module):
    """Self-attention inside one feature vector, float [B, F] -> [B, F]: x + attention, normalized.

    Attention over a sequence of one is a linear layer, so the vector is cut into `tokens` pieces,
    which attend to each other.
    """

    def __init__(self, features: int, tokens: int = 8, heads: int = 4):
        super().__init__()
        self.tokens = tokens
        self.attention = nn.MultiheadAttention(features // tokens, heads, batch_first=True)
        self.norm = nn.LayerNorm(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pieces = x.unflatten(1, (self.tokens, -1))
        attended, _ = self.attention(pieces, pieces, pieces, need_weights=False)
        return self.norm(x + attended.flatten(1))


class ConvNeXtAttentionClassifier(nn.Module):
    """float [B, C, H, W] -> logits [B, n_classes]; C = 5: an RGB image and two masks.

    A timm backbone (768 features for ConvNeXt-Tiny), squeeze-and-excitation, the mean over all
    pixels, and 512 -> self-attention -> 256 -> n_classes.
    """

    def __init__(self, backbone: str, channels: int, n_classes: int, pretrained: bool):
        super().__init__()
        self.backbone = make_backbone(
            backbone, pretrained, in_chans=channels, num_classes=0, global_pool=""
        )
        features = self.backbone.num_features
        self.squeeze = SEModule(features, rd_ratio=REDUCTION, rd_divisor=1)
        self.head = nn.Sequential(
            *dense(features, 512, dropout=0.4),
            SelfAttention(512),
            *dense(512, 256, dropout=0.3),
            nn.Linear(256, n_classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.squeeze(self.backbone(images)).mean((2, 3)))


def conv_bn_relu(channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)


def dense(features: int, out_features: int, dropout: float) -> tuple[nn.Module, ...]:
    linear = nn.Linear(features, out_features)
    return linear, nn.BatchNorm1d(out_features), nn.ReLU(inplace=True), nn.Dropout(dropout)


def resize(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear, float [B, C, h, w] -> [B, C, H, W]."""
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def dice_and_bce(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss of each head, float32 [2]: 1 - soft Dice, a mean over the images, plus BCE.

    logits and targets, from 0 to 1: [B, 2, H, W]. Soft Dice of an image is
    (2 sum(p t) + 1) / (sum(p) + sum(t) + 1), which is 1 where both are empty (Milletari et al.,
    "V-Net", 2016, with smoothing).
    """
    logits, targets = logits.float(), targets.float()
    p = logits.sigmoid()
    overlap, sizes = (p * targets).sum((2, 3)), (p + targets).sum((2, 3))
    dice = (2 * overlap + 1) / (sizes + 1)
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return 1 - dice.mean(0) + bce.mean((0, 2, 3))


def cosine(optimizer: torch.optim.Optimizer, epochs: int) -> torch.optim.lr_scheduler.LambdaLR:
    """From the learning rate to nearly 0, half a cosine over the epochs.

    Unlike CosineAnnealingLR's, its length is not part of a checkpoint: a training that is resumed
    with more --epochs gets the longer curve.
    """
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda epoch: (1 + math.cos(math.pi * min(epoch / epochs, 1))) / 2
    )


class Segmenter(L.LightningModule):
    """Trains `model`, images [B, 3, H, W] -> logits [B, 2, H, W], with Dice + BCE for each head.

    Batches are (images, masks float32 [B, 2, H, W]). Logged in validation: val_loss, val_iou and
    val_dice as means over the images and both heads, and val_dice_HEAD. In prediction, batches are
    (images, places int64 [B]), and `finish` gets each place with its probabilities, float32
    [2, H, W] on the CPU: maps of a whole data set do not fit into memory.
    """

    def __init__(self, model: nn.Module, make_optimizer: Callable, finish: Callable | None = None):
        super().__init__()
        self.model, self.make_optimizer, self.finish = model, make_optimizer, finish

    def configure_optimizers(self):
        return self.make_optimizer(self.model.parameters())

    def training_step(self, batch, index: int) -> torch.Tensor:
        images, masks = batch
        loss = finite(dice_and_bce(self.model(images), masks).mean())
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch, index: int) -> None:
        images, masks = batch
        logits = self.model(images)
        scores = overlap_scores(count_pixels(logits > 0, masks > 0.5))
        dice = scores["dice"].float().mean(0)
        metrics = {
            "val_loss": dice_and_bce(logits, masks).mean(),
            "val_dice": dice.mean(),
            "val_iou": scores["iou"].float().mean(),
            **{f"val_dice_{head}": dice[i] for i, head in enumerate(HEADS)},
        }
        self.log_dict(metrics, batch_size=len(images), sync_dist=True)

    def predict_step(self, batch, index: int) -> torch.Tensor:
        images, places = batch
        for place, maps in zip(places.tolist(), self.model(images).float().sigmoid(), strict=True):
            self.finish(place, maps.cpu())
        return places
