"""Correct submissions in other styles than the reference's: none may lose a point.

VARIANTS: name -> file -> a whole file, or changes of the reference's as in mutants.py.
"""

from mutants import CM, CT, FIRST, LINEAR_LAYER, MEAN, NO_GRAD, SM, ST, VAL_START

ORIGINAL_MODELS = '''
import torch
import torch.nn as nn

class LinearModel(nn.Module):
    def __init__(self, num_classes=9):
        super(LinearModel, self).__init__()
        self.linear = nn.Linear(28 * 28 * 3, num_classes)

    def forward(self, x):
        x = x.view(x.size(0), -1)
        return self.linear(x)

class MLPModel(nn.Module):
    def __init__(self, num_classes=9):
        super(MLPModel, self).__init__()
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
        super(CNNModel, self).__init__()
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
    elif model_name == "mlp":
        return MLPModel(num_classes)
    elif model_name == "cnn":
        return CNNModel(num_classes)
    raise ValueError(f"Unknown model: {model_name}")

def count_parameters(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
'''
ORIGINAL_TRAIN = """
import torch
import torch.nn as nn
import torch.optim as optim

def train_epoch(model, train_loader, optimizer, criterion, device, max_steps=None):
    model.train()
    running_loss = 0.0
    correct = 0
    total = 0
    for step, (images, labels) in enumerate(train_loader):
        if max_steps is not None and step >= max_steps:
            break
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        outputs = model(images)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item() * images.size(0)
        _, predicted = torch.max(outputs.data, 1)
        total += labels.size(0)
        correct += (predicted == labels).sum().item()
    return running_loss / total, correct / total

def validate_epoch(model, val_loader, criterion, device):
    model.eval()
    running_loss = 0.0
    correct = 0
    total = 0
    with torch.no_grad():
        for images, labels in val_loader:
            images, labels = images.to(device), labels.to(device)
            outputs = model(images)
            loss = criterion(outputs, labels)
            running_loss += loss.item() * images.size(0)
            predicted = outputs.argmax(1)
            total += labels.size(0)
            correct += predicted.eq(labels).sum().item()
    return running_loss / total, correct / total

def train_model(model, train_loader, val_loader, epochs, learning_rate, weight_decay,
                max_steps_per_epoch):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    history = {"train_loss": [], "train_acc": [], "val_loss": [], "val_acc": []}
    for epoch in range(epochs):
        train_loss, train_acc = train_epoch(model, train_loader, optimizer, criterion, device,
                                            max_steps_per_epoch)
        val_loss, val_acc = validate_epoch(model, val_loader, criterion, device)
        history["train_loss"].append(train_loss)
        history["train_acc"].append(train_acc)
        history["val_loss"].append(val_loss)
        history["val_acc"].append(val_acc)
        print(f"Epoch {epoch + 1}: {train_loss:.4f} {val_acc:.4f}")
    return history
"""
ORIGINAL_MASKS = '''
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
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 784, 256), nn.ReLU(),
                                 nn.Linear(256, out_channels * 784), nn.Sigmoid(),
                                 nn.Unflatten(1, (out_channels, 28, 28)))

    def forward(self, x):
        return self.net(x)

class CNNSegmentation(nn.Module):
    def __init__(self, in_channels=3, out_channels=1):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(),
            nn.Conv2d(64, 32, 5, padding=2), nn.ReLU(),
            nn.Conv2d(32, out_channels, 1), nn.Sigmoid())

    def forward(self, x):
        return self.net(x)

def block(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.ReLU(inplace=True),
                         nn.Conv2d(o, o, 3, padding=1), nn.ReLU(inplace=True))

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
    models = {"linear": LinearSegmentation, "mlp": MLPSegmentation, "cnn": CNNSegmentation,
              "unet": TinyUNet}
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
'''
ORIGINAL_MASK_TRAIN = """
import numpy as np
import torch
import torch.optim as optim
from segmentation_models import CombinedLoss, calculate_iou

def train_segmentation_epoch(model, train_loader, optimizer, criterion, device, max_steps=None):
    model.train()
    total_loss, total_iou, count = 0, 0, 0
    for i, batch in enumerate(train_loader):
        if max_steps and i >= max_steps:
            break
        images = batch["image"].to(device)
        masks = batch["mask"].to(device)
        optimizer.zero_grad()
        outputs = model(images)
        loss = criterion(outputs, masks)
        loss.backward()
        optimizer.step()
        n = images.shape[0]
        total_loss += n * loss.item()
        with torch.no_grad():
            total_iou += n * calculate_iou(outputs, masks)
        count += n
    return total_loss / count, total_iou / count

def validate_segmentation_epoch(model, val_loader, criterion, device):
    model.eval()
    total_loss, total_iou, count = 0, 0, 0
    with torch.no_grad():
        for batch in val_loader:
            images = batch["image"].to(device)
            masks = batch["mask"].to(device)
            outputs = model(images)
            n = images.shape[0]
            total_loss += n * criterion(outputs, masks).item()
            total_iou += n * calculate_iou(outputs, masks)
            count += n
    return total_loss / count, total_iou / count

def train_segmentation_model(model, train_loader, val_loader, epochs, learning_rate, weight_decay,
                             max_steps_per_epoch):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    criterion = CombinedLoss()
    optimizer = optim.Adam(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    history = {"train_loss": [], "train_iou": [], "val_loss": [], "val_iou": []}
    for epoch in range(epochs):
        a, b = train_segmentation_epoch(model, train_loader, optimizer, criterion, device,
                                        max_steps_per_epoch)
        c, d = validate_segmentation_epoch(model, val_loader, criterion, device)
        for key, value in zip(history, (a, b, c, d)):
            history[key].append(value)
    return history

def evaluate_segmentation_model(model, test_loader, dataset_name):
    device = next(model.parameters()).device
    model.eval()
    ious = []
    with torch.no_grad():
        for batch in test_loader:
            outputs = model(batch["image"].to(device))
            for output, mask in zip(outputs, batch["mask"].to(device)):
                ious.append(calculate_iou(output.unsqueeze(0), mask.unsqueeze(0)))
    return {"mean_iou": np.mean(ious), "std_iou": np.std(ious), "total_samples": len(ious),
            "dataset": dataset_name}

def visualize_predictions(model, dataset, num_samples=6, save_path=None):
    pass
"""

FUNCTIONAL_MODELS = """
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
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
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
        return dict(linear=LinearModel, mlp=MLPModel, cnn=CNNModel)[model_name](num_classes)
    except KeyError:
        raise ValueError(model_name) from None

def count_parameters(model):
    count = 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            count += parameter.nelement()
    return count
"""
FUNCTIONAL_TRAIN = '''
import numpy as np
import torch
import torch.nn.functional as F

def _step(model, batch, criterion, device):
    images, labels = (part.to(device) for part in batch)
    logits = model(images)
    return criterion(logits, labels), (logits.argmax(-1) == labels).float(), len(labels)

def train_epoch(model, train_loader, optimizer, criterion, device, max_steps=None):
    """The gradients are cleared at the end of each step, and once before the first."""
    model.train()
    optimizer.zero_grad(set_to_none=False)
    losses, right, sizes = [], [], []
    batches = iter(train_loader)
    while max_steps is None or len(sizes) < max_steps:
        try:
            batch = next(batches)
        except StopIteration:
            break
        loss, hits, size = _step(model, batch, criterion, device)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        losses.append(loss.detach())
        right.append(hits)
        sizes.append(size)
    weights = torch.tensor(sizes, dtype=torch.float32)
    return (torch.stack(losses) @ weights / weights.sum()).item(), torch.cat(right).mean().item()

@torch.inference_mode()
def validate_epoch(model, val_loader, criterion, device):
    was_training = model.training
    model.eval()
    results = [_step(model, batch, criterion, device) for batch in val_loader]
    model.train(was_training)
    loss = np.average([r[0].item() for r in results], weights=[r[2] for r in results])
    return loss, torch.cat([r[1] for r in results]).mean()

def train_model(model, train_loader, val_loader, epochs=1, learning_rate=1e-3, weight_decay=0.0,
                max_steps_per_epoch=None, verbose=False):
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9,
                                weight_decay=weight_decay)
    history = dict(train_loss=[], train_acc=[], val_loss=[], val_acc=[], learning_rate=[])
    for _ in range(epochs):
        scores = train_epoch(model, train_loader, optimizer, F.cross_entropy, "cpu",
                             max_steps_per_epoch)
        scores += validate_epoch(model, val_loader, F.cross_entropy, "cpu")
        for name, score in zip(("train_loss", "train_acc", "val_loss", "val_acc"), scores):
            history[name].append(score)
        history["learning_rate"].append(learning_rate)
    return history
'''
BILINEAR_UNET = '''
class Up(nn.Module):
    """Bilinear upsampling to the skip's size, a convolution, and the skip beside it."""
    def __init__(self, i, o):
        super().__init__()
        self.shrink, self.merge = nn.Conv2d(i, o, 3, padding=1), two_convolutions(2 * o, o)

    def forward(self, x, skip):
        x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        return self.merge(torch.cat([skip, self.shrink(x)], dim=1))


class TinyUNet(nn.Module):
    def __init__(self, in_channels: int = 3, out_channels: int = 1, base_channels: int = 12):
        super().__init__()
        c = base_channels
        self.downs = nn.ModuleList([two_convolutions(in_channels, c), two_convolutions(c, 2 * c),
                                    two_convolutions(2 * c, 4 * c)])
        self.ups = nn.ModuleList([Up(4 * c, 2 * c), Up(2 * c, c)])
        self.head = nn.Sequential(nn.Conv2d(c, out_channels, 1), nn.Sigmoid())

    def forward(self, x):
        skips = []
        for down in self.downs:
            x = down(x if not skips else F.avg_pool2d(x, 2))
            skips.append(x)
        for up, skip in zip(self.ups, skips[-2::-1]):
            x = up(x, skip)
        return self.head(x)


MODELS = {
    "linear"'''
EINSUM_DICE = """        predicted, true = pred_mask, true_mask
        overlap = torch.einsum("bchw,bchw->b", predicted, true)
        total = torch.einsum("bchw->b", predicted + true)
"""
STRIDED_CNN = """self.features = nn.Sequential(
            nn.Conv2d(3, 32, 5, stride=2, padding=2),
            nn.LeakyReLU(),
            nn.Conv2d(32, 64, 5, stride=2, padding=2),
            nn.LeakyReLU(),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(64 * 49, 64), nn.ReLU(), nn.Linear(64, num_classes)
        )
"""
REFERENCE_CNN = """stages = [two_convolutions(3, width, kernel_size)]
        for _ in range(depth - 1):
            stages += [nn.MaxPool2d(2), two_convolutions(width, 2 * width, kernel_size)]
            width = 2 * width
        self.features = nn.Sequential(*stages)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, num_classes))
"""
PLAIN_CNN = """layers, channels = [], 3
        for out in (10, 20, 40):
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
            channels = out
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(9 * channels, num_classes))
"""
FORWARD_CNN = "return self.classifier(features.mean(dim=(2, 3)))"
FLAT_CNN = [(FORWARD_CNN, "return self.classifier(features)")]
IOU_BODY = """    predicted = (pred_mask > threshold).flatten(start_dim=1)
    true = (true_mask > 0.5).flatten(start_dim=1)
    intersection = (predicted & true).sum(dim=1)
    union = (predicted | true).sum(dim=1)
    iou = torch.where(union > 0, intersection / union.clamp(min=1), 1.0)
    return iou.mean().item()
"""
IOU_LOOP = """    scores = []
    for p, t in zip(pred_mask.detach().cpu().numpy(), true_mask.detach().cpu().numpy()):
        p, t = p > threshold, t > 0.5
        union = (p | t).sum()
        scores.append(float((p & t).sum() / union) if union else 1.0)
    return sum(scores) / len(scores)
"""
ADAM = [("torch.optim.AdamW(", "torch.optim.Adam(")]
STEPS = "steps = len(train_loader) if max_steps is None else min(max_steps, len(train_loader))\n"
BAR = (
    'bar = tqdm(islice(train_loader, steps), total=steps, desc="train", leave=False, disable=None)'
)
CAUTIOUS = [  # counters as tensors, enumerate and break, no bar
    ("    " + STEPS, ""),
    ("    " + BAR + "\n", ""),
    (
        "    for images, labels in bar:\n",
        "    for step, (images, labels) in enumerate(train_loader):\n"
        "        if step == max_steps:\n            break\n",
    ),
    ("total_loss += value * len(labels)", "total_loss += loss.detach() * len(labels)"),
    (
        "        total_correct += (logits.argmax(dim=1) == labels).sum().item()\n"
        "        bar.set_post"
        'fix(loss=f"{total_loss / seen:.3f}", acc=f"{total_correct / seen:.3f}")\n',
        "        total_correct += (logits.argmax(dim=1) == labels).sum()\n",
    ),
    ("import math\n", "import math  # noqa\n"),
]

BATCH_NORMS = """
        nn.Conv2d(in_channels, out_channels, k, padding=pad, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, k, padding=pad, bias=False),
        nn.BatchNorm2d(out_channels),
"""
BEST = '    history["best"] = max(history["val_acc"])\n'
ZERO_START = "nn.init.zeros_(self.classifier.weight), nn.init.zeros_(self.classifier.bias)"
FIGURES = """
import pathlib
pathlib.Path(__file__).with_name("figures").mkdir(exist_ok=True)
"""
ZERO_RESIDUAL = """
class Zero(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x):
        return torch.relu(x + self.norm(self.convolution(x)))


class CNNModel(nn.Module):"""

VARIANTS = {
    "the reference": {},
    "original course": {
        CM: ORIGINAL_MODELS,
        CT: ORIGINAL_TRAIN,
        SM: ORIGINAL_MASKS,
        ST: ORIGINAL_MASK_TRAIN,
    },
    "functional style, residual CNN, SGD": {
        CM: FUNCTIONAL_MODELS,
        CT: FUNCTIONAL_TRAIN,
        SM: [(IOU_BODY, IOU_LOOP)],
    },
    "bilinear U-Net, einsum, strided CNN": {
        CM: [(REFERENCE_CNN, STRIDED_CNN), *FLAT_CNN],
        CT: ADAM,
        SM: [
            ("class TinyUNet(nn.Module):", "class Unused(nn.Module):"),
            ('MODELS = {\n    "linear"', BILINEAR_UNET.lstrip()),
            (
                "        predicted = pred_mask.flatten(start_dim=1)\n"
                "        true = true_mask.flatten(start_dim=1)\n"
                "        overlap = (predicted * true).sum(dim=1)\n"
                "        total = predicted.sum(dim=1) + true.sum(dim=1)\n",
                EINSUM_DICE,
            ),
        ],
        ST: ADAM,
    },
    "plain three-block CNN, tensors as counters": {
        CM: [(REFERENCE_CNN, PLAIN_CNN), *FLAT_CNN],
        CT: CAUTIOUS,
    },
    "functional losses, small U-Net, one-cycle": {
        CM: [
            (
                "return self.classifier(images.flatten(start_dim=1))",
                "return self.classifier(images.view(-1, 2352))",
            ),
        ],
        CT: [
            (
                "criterion = criterion or nn.CrossEntropyLoss()",
                "criterion = nn.functional.cross_entropy",
            ),
            ("schedule or (lambda step: 1.0)", "lambda step: 0.5 if step > 15 else 1.0"),
        ],
        SM: [
            ("base_channels: int = 16", "base_channels: int = 8"),
            ("        self.bce = nn.BCELoss()\n        self.dice = DiceLoss()\n", ""),
            (
                "bce = self.bce(pred_mask, true_mask)",
                "bce = F.binary_cross_entropy(pred_mask, true_mask)",
            ),
            ("self.dice(pred_mask, true_mask)", "DiceLoss()(pred_mask, true_mask)"),
            (
                "dice = (2 * overlap + self.smooth) / (total + self.smooth)\n"
                "        return 1 - dice.mean()",
                "return ((total - 2 * overlap) / (total + self.smooth)).mean()",
            ),
        ],
        ST: [
            ("optimizer.zero_grad()", "model.zero_grad()"),
            ("ious.std(correction=0)", "ious.std()"),
        ],
    },
    "zero starts, group norm, a layer with two names, habits": {
        CM: [
            ("NUM_PIXELS = 3 * 28 * 28\n", f"NUM_PIXELS = 3 * 28 * 28\n{FIGURES}"),
            (LINEAR_LAYER, f"{LINEAR_LAYER}\n        {ZERO_START}"),
            (
                "        self.layers = nn.Sequential(\n            nn.Linear(NUM_PIXELS, 512),\n",
                "        self.first = nn.Linear(NUM_PIXELS, 512)\n"
                "        self.layers = nn.Sequential(\n            self.first,\n",
            ),
            (
                BATCH_NORMS,
                BATCH_NORMS.replace("nn.BatchNorm2d(", "nn.GroupNorm(8, "),
            ),
        ],
        CT: [
            (FIRST, f"{FIRST}    torch.set_grad_enabled(True)\n"),
            (NO_GRAD, NO_GRAD.removeprefix("@torch.no_grad()\n")),
            (VAL_START, f"{VAL_START}    torch.set_grad_enabled(False)\n"),
            (
                "    return history",
                '    history["best"] = max(history["val_acc"])\n    return history',
            ),
        ],
    },
    "residual blocks that start as nothing": {
        CM: [
            ("class CNNModel(nn.Module):", ZERO_RESIDUAL.lstrip()),
            (
                MEAN,
                f"# {MEAN}\n        return self.classifier(self.more(features).mean(dim=(2, 3)))",
            ),
            ("nn.Dropout(0.2), nn.Linear(width", "nn.Linear(width"),
            (
                "        self.features = nn.Sequential(*stages)\n",
                "        self.features = nn.Sequential(*stages)\n        self.more = Zero(width)\n",
            ),
        ],
    },
}
