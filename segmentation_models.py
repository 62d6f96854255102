"""Part 2: four segmenters that find a box on a 28x28 tissue image, and the ways to score a mask.

Every model takes images float32 [B, 3, 28, 28] and returns probabilities float32 [B, 1, 28, 28]:
how likely each pixel is to belong to the box. The sigmoid is inside the model.

What you write stands between ### BEGIN SOLUTION and ### END SOLUTION.
"""

import torch
import torch.nn.functional as F
from torch import nn

IMAGE_SIZE = 28  # pixels, height and width


class LinearSegmentation(nn.Module):
    """Flatten the image; one linear layer from its 3 * 28 * 28 values to 28 * 28 logits; sigmoid.

    The logits [B, out_channels * 28 * 28] are unflattened to the mask's shape, self.out_shape.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 1):
        super().__init__()
        self.out_shape = (out_channels, IMAGE_SIZE, IMAGE_SIZE)
        ### BEGIN SOLUTION
        pixels = IMAGE_SIZE * IMAGE_SIZE
        self.layer = nn.Linear(in_channels * pixels, out_channels * pixels)
        ### END SOLUTION

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images float32 [B, in_channels, 28, 28] -> probabilities [B, out_channels, 28, 28]."""
        ### BEGIN SOLUTION
        logits = self.layer(images.flatten(start_dim=1))
        return torch.sigmoid(logits.unflatten(1, self.out_shape))
        ### END SOLUTION


class MLPSegmentation(nn.Module):
    """Flatten the image; linear layers with a ReLU between each two; sigmoid.

    The reference has two hidden layers of 512: 2352 -> 512 -> 512 -> 784. The last layer's logits
    are unflattened to the mask's shape, self.out_shape.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 1):
        super().__init__()
        self.out_shape = (out_channels, IMAGE_SIZE, IMAGE_SIZE)
        ### BEGIN SOLUTION
        pixels = IMAGE_SIZE * IMAGE_SIZE
        self.layers = nn.Sequential(
            nn.Linear(in_channels * pixels, 512),
            nn.ReLU(),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Linear(512, out_channels * pixels),
        )
        ### END SOLUTION

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images float32 [B, in_channels, 28, 28] -> probabilities [B, out_channels, 28, 28]."""
        ### BEGIN SOLUTION
        logits = self.layers(images.flatten(start_dim=1))
        return torch.sigmoid(logits.unflatten(1, self.out_shape))
        ### END SOLUTION


def two_convolutions(in_channels: int, out_channels: int, kernel_size: int = 3) -> nn.Sequential:
    """Two convolutions, each with batch norm and ReLU. The image keeps its size.

    [B, in_channels, H, W] -> [B, out_channels, H, W]. kernel_size is odd, and half of it is padded
    on each side. The convolutions need no bias, since batch norm has one. The building block of the
    two models below.
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


class CNNSegmentation(nn.Module):
    """Encoder-decoder: convolutions shrink the image and grow it again. No skip connections.

    The reference: two_convolutions to 32 channels at 28x28, max-pool, to 64 at 14x14, max-pool, to
    128 at 7x7; then a 2x2 transposed convolution with stride 2 and two_convolutions to 64 at
    14x14, the same to 32 at 28x28, and a 1x1 convolution to the logits. Everything that the decoder
    knows has passed through the 7x7 bottleneck.

    Keywords that segmentation_main.py can set (`--width`, `--kernel-size`): width, the channels at
    28x28, of which each level below has twice as many, and the size of all two_convolutions.
    """

    def __init__(
        self, in_channels: int = 3, out_channels: int = 1, *, width: int = 32, kernel_size: int = 3
    ):
        super().__init__()
        ### BEGIN SOLUTION
        w, k = width, kernel_size
        self.encoder = nn.Sequential(
            two_convolutions(in_channels, w, k),
            nn.MaxPool2d(2),
            two_convolutions(w, 2 * w, k),
            nn.MaxPool2d(2),
            two_convolutions(2 * w, 4 * w, k),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(4 * w, 2 * w, kernel_size=2, stride=2),
            two_convolutions(2 * w, 2 * w, k),
            nn.ConvTranspose2d(2 * w, w, kernel_size=2, stride=2),
            two_convolutions(w, w, k),
            nn.Conv2d(w, out_channels, kernel_size=1),
        )
        ### END SOLUTION

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images float32 [B, in_channels, 28, 28] -> probabilities [B, out_channels, 28, 28]."""
        ### BEGIN SOLUTION
        return torch.sigmoid(self.decoder(self.encoder(images)))
        ### END SOLUTION


class TinyUNet(nn.Module):
    """U-Net (Ronneberger et al., 2015): an encoder-decoder whose decoder also sees the encoder.

    With c = base_channels, two_convolutions gives c channels at 28x28, 2c at 14x14, 4c at 7x7 and
    8c at 3x3, with a 2x2 max-pool before each of the last three. On the way up, a transposed
    convolution with stride 2 doubles the size and halves the channels (kernel 2, but kernel 3 for
    3x3 -> 7x7, since 7 is odd); its output is concatenated along the channels with the encoder's
    features of the same size, not added; and two_convolutions merges both to the same number of
    channels as the encoder has there. A 1x1 convolution makes the logits. Its bias starts at -1.7,
    the logit of 0.15, which is the share of pixels in a box: from even odds, one training in four
    spends its first hundred steps on learning that boxes are rare (the prior of RetinaNet, Lin et
    al., 2017).

    Keywords that segmentation_main.py can set (`--kernel-size`, `--no-skips`): the size of all
    two_convolutions, and skips=False, which replaces the encoder's features by zeros: the same
    network without what the skips carry.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        base_channels: int = 16,
        *,
        kernel_size: int = 3,
        skips: bool = True,
    ):
        super().__init__()
        ### BEGIN SOLUTION
        c, k = base_channels, kernel_size
        self.skips = skips
        self.down1 = two_convolutions(in_channels, c, k)
        self.down2 = two_convolutions(c, 2 * c, k)
        self.down3 = two_convolutions(2 * c, 4 * c, k)
        self.bottom = two_convolutions(4 * c, 8 * c, k)
        self.grow3 = nn.ConvTranspose2d(8 * c, 4 * c, kernel_size=3, stride=2)
        self.up3 = two_convolutions(8 * c, 4 * c, k)
        self.grow2 = nn.ConvTranspose2d(4 * c, 2 * c, kernel_size=2, stride=2)
        self.up2 = two_convolutions(4 * c, 2 * c, k)
        self.grow1 = nn.ConvTranspose2d(2 * c, c, kernel_size=2, stride=2)
        self.up1 = two_convolutions(2 * c, c, k)
        self.head = nn.Conv2d(c, out_channels, kernel_size=1)
        nn.init.constant_(self.head.bias, -1.7)
        ### END SOLUTION

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images float32 [B, in_channels, 28, 28] -> probabilities [B, out_channels, 28, 28]."""
        ### BEGIN SOLUTION
        skip1 = self.down1(images)  # [B, c, 28, 28]
        skip2 = self.down2(F.max_pool2d(skip1, 2))  # [B, 2c, 14, 14]
        skip3 = self.down3(F.max_pool2d(skip2, 2))  # [B, 4c, 7, 7]
        x = self.bottom(F.max_pool2d(skip3, 2))  # [B, 8c, 3, 3]
        if not self.skips:
            skip1, skip2, skip3 = (torch.zeros_like(skip) for skip in (skip1, skip2, skip3))
        x = self.up3(torch.cat([self.grow3(x), skip3], dim=1))  # [B, 4c, 7, 7]
        x = self.up2(torch.cat([self.grow2(x), skip2], dim=1))  # [B, 2c, 14, 14]
        x = self.up1(torch.cat([self.grow1(x), skip1], dim=1))  # [B, c, 28, 28]
        return torch.sigmoid(self.head(x))
        ### END SOLUTION


MODELS = {
    "linear": LinearSegmentation,
    "mlp": MLPSegmentation,
    "cnn": CNNSegmentation,
    "unet": TinyUNet,
}


def get_segmentation_model(
    model_name: str, in_channels: int = 3, out_channels: int = 1, **options: int
) -> nn.Module:
    """A new model by name: "linear", "mlp", "cnn" or "unet". ValueError for any other name.

    options: keywords of that model's own, such as kernel_size=5.
    """
    if model_name not in MODELS:
        raise ValueError(f"unknown model {model_name!r}: choose one of {', '.join(MODELS)}")
    return MODELS[model_name](in_channels, out_channels, **options)


def count_parameters(model: nn.Module) -> int:
    """How many numbers training can change: the elements of all parameters that need a gradient."""
    ### BEGIN SOLUTION
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    ### END SOLUTION


def calculate_iou(
    pred_mask: torch.Tensor, true_mask: torch.Tensor, threshold: float = 0.5
) -> float:
    """Intersection over union, computed for each image and then averaged over the batch.

    pred_mask: probabilities [B, 1, H, W]; a pixel belongs to the box where it is above threshold.
    true_mask: 0 or 1, same shape. Returns a float in [0, 1]. Where both masks of an image are
    empty, they agree, and that image's IoU is 1.
    """
    ### BEGIN SOLUTION
    predicted = (pred_mask > threshold).flatten(start_dim=1)
    true = (true_mask > 0.5).flatten(start_dim=1)
    intersection = (predicted & true).sum(dim=1)
    union = (predicted | true).sum(dim=1)
    iou = torch.where(union > 0, intersection / union.clamp(min=1), 1.0)
    return iou.mean().item()
    ### END SOLUTION


class DiceLoss(nn.Module):
    """1 - Dice, where Dice = (2 * sum(p * t) + smooth) / (sum(p) + sum(t) + smooth).

    The sums run over the pixels of one image; the loss is the mean over the batch, in [0, 1].
    `smooth` keeps the fraction defined where both masks are empty (V-Net, Milletari et al., 2016,
    with the plain sums of Dice's own coefficient).
    """

    def __init__(self, smooth: float = 1.0):
        super().__init__()
        self.smooth = smooth

    def forward(self, pred_mask: torch.Tensor, true_mask: torch.Tensor) -> torch.Tensor:
        """Probabilities [B, 1, H, W] and masks of 0 and 1, same shape -> a scalar tensor."""
        ### BEGIN SOLUTION
        predicted = pred_mask.flatten(start_dim=1)
        true = true_mask.flatten(start_dim=1)
        overlap = (predicted * true).sum(dim=1)
        total = predicted.sum(dim=1) + true.sum(dim=1)
        dice = (2 * overlap + self.smooth) / (total + self.smooth)
        return 1 - dice.mean()
        ### END SOLUTION


class CombinedLoss(nn.Module):
    """bce_weight * binary cross-entropy + dice_weight * DiceLoss.

    Cross-entropy scores each pixel separately, Dice the overlap as a whole. The predictions are
    probabilities already, so this is BCE, not BCE-with-logits.
    """

    def __init__(self, bce_weight: float = 0.5, dice_weight: float = 0.5):
        super().__init__()
        self.bce_weight = bce_weight
        self.dice_weight = dice_weight
        ### BEGIN SOLUTION
        self.bce = nn.BCELoss()
        self.dice = DiceLoss()
        ### END SOLUTION

    def forward(self, pred_mask: torch.Tensor, true_mask: torch.Tensor) -> torch.Tensor:
        """Probabilities [B, 1, H, W] and masks of 0 and 1, same shape -> a scalar tensor."""
        ### BEGIN SOLUTION
        bce = self.bce(pred_mask, true_mask)
        return self.bce_weight * bce + self.dice_weight * self.dice(pred_mask, true_mask)
        ### END SOLUTION
