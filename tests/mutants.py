"""Known mistakes, each as a change of the reference solution, and what the grader must say.

A mutant is (name, file, changes, numbers of the tests that lose points, words of the likely cause).
The changes are pairs of an old and a new text; the old one occurs exactly once in the file. An
empty list of changes removes the file.
"""

from typing import NamedTuple

CM, CT = "classification_models.py", "classification_train.py"
SM, ST = "segmentation_models.py", "segmentation_train.py"


class Mutant(NamedTuple):
    name: str
    file: str
    changes: list[tuple[str, str]]
    lost: str  # numbers, separated by blanks; the first one names the mistake
    words: str  # a regular expression that the first one's "Likely cause" matches


FLAT = "return self.classifier(images.flatten(start_dim=1))"
MLP = "return self.layers(images.flatten(start_dim=1))"
LINEAR_LAYER = "self.classifier = nn.Linear(NUM_PIXELS, num_classes)"
FEATURES = "features = self.features(images)  # [B, 128, 7, 7]"
MEAN = "return self.classifier(features.mean(dim=(2, 3)))"
LAST = "nn.Linear(256, num_classes),\n"
COUNT = (
    "return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)"
)
STEPS = "steps = len(train_loader) if max_steps is None else min(max_steps, len(train_loader))"
ZERO, BACK, STEP = "optimizer.zero_grad()\n", "loss.backward()\n", "optimizer.step()\n"
IN_ORDER = "        optimizer.zero_grad()\n        loss.backward()\n        optimizer.step()\n"
NO_GRAD = "@torch.no_grad()\ndef validate_"
LOSS_HERE = "total_loss += value * len(labels)"
MASK_IOU = "total_iou += calculate_iou(predicted.detach(), masks) * len(images)"
VAL_LOSS = "total_loss += criterion(logits.float(), labels).item() * len(labels)"
TRAIN_END = (
    '        bar.set_postfix(loss=f"{total_loss / seen:.3f}", acc=f"{total_correct / seen:.3f}")\n'
)
TRAIN_RETURN = TRAIN_END + "    return total_loss / seen, total_correct / seen"
VAL_START = "    model.eval()\n    device = torch.device(device)\n"
UP1 = "x = self.up1(torch.cat([self.grow1(x), skip1], dim=1))"
MADE_UP1 = "self.up1 = two_convolutions(2 * c, c, k)"
HEAD = "return torch.sigmoid(self.head(x))"
DICE = "dice = (2 * overlap + self.smooth) / (total + self.smooth)"
OPTIMIZER = "optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, "
WEIGHTED = "return self.bce_weight * bce + self.dice_weight * self.dice(pred_mask, true_mask)"
EVALUATED = (
    "ious += [calculate_iou(p[None], m[None]) for p, m in zip(predicted, masks, strict=True)]"
)
FIRST = "    ### BEGIN SOLUTION\n    model.train()\n"

MUTANTS = [
    # ---- models of part 1 ----
    Mutant("softmax in the model", CM, [(MLP, f"{MLP}.softmax(dim=1)")], "1.2", "a softmax in the"),
    Mutant("ReLU after the last layer", CM, [(LAST, LAST + "nn.ReLU(),\n")], "1.2", "ReLU after"),
    Mutant("batch flattened", CM, [(FLAT, FLAT.replace("start_dim=1", ""))], "1.2", "batch was fl"),
    Mutant(
        "batch averaged",
        CM,
        [("features.mean(dim=(2, 3))", "features.mean(dim=(0, 2, 3))")],
        "1.2 1.4",
        "batch was .*averaged",
    ),
    Mutant(
        "batch centred",
        CM,
        [
            (
                MEAN,
                "logits = "
                + MEAN.removeprefix("return ")
                + "\n        return logits - logits.mean(0)",
            )
        ],
        "1.4",
        "the batch is mixed",
    ),
    Mutant(
        "NHWC for NCHW",
        CM,
        [(FEATURES, "features = self.features(images.permute(0, 2, 3, 1))")],
        "1.2 1.4 1.5",
        "channels come second",
    ),
    Mutant(
        "wrong number of features",
        CM,
        [(LINEAR_LAYER, "self.classifier = nn.Linear(784, num_classes)")],
        "1.2 1.3 1.5",
        "another number of features",
    ),
    Mutant(
        "num_classes ignored",
        CM,
        [("nn.Linear(width, num_classes)", "nn.Linear(width, 9)")],
        "1.2",
        "num_cl",
    ),
    Mutant(
        "MLP without ReLU",
        CM,
        [
            ("nn.Linear(NUM_PIXELS, 512),\n            nn.ReLU(),", "nn.Linear(NUM_PIXELS, 512),"),
            ("nn.Linear(512, 256),\n            nn.ReLU(),", "nn.Linear(512, 256),"),
        ],
        "1.3",
        "ReLU between the layers is missing",
    ),
    Mutant(
        "linear model with ReLU",
        CM,
        [(FLAT, FLAT + ".relu()")],
        "1.3 1.2",
        "an activation or another",
    ),
    Mutant(
        "CNN without convolutions",
        CM,
        [
            (FEATURES, "features = self.features(images.flatten(1))[..., None, None]"),
            (
                "self.features = nn.Sequential(*stages)\n",
                "self.features = nn.Sequential(nn.Linear(2352, width), nn.ReLU())\n",
            ),
        ],
        "1.4",
        "no convolutions",
    ),
    Mutant(
        "layer created in forward",
        CM,
        [(FLAT, "return nn.Linear(NUM_PIXELS, self.classifier.out_features)(images.flatten(1))")],
        "1.5",
        r"created in forward",
    ),
    Mutant(
        "dropout in evaluation mode",
        CM,
        [(MEAN, "return self.classifier(nn.functional.dropout(features.mean(dim=(2, 3)), 0.2))")],
        "1.5",
        "dropout works in evaluation mode",
    ),
    Mutant(
        "unused layer",
        CM,
        [(LINEAR_LAYER, LINEAR_LAYER + "\n        self.hidden = nn.Linear(9, 9)")],
        "1.5",
        "never used in forward",
    ),
    Mutant(
        "layers at class level",
        CM,
        [
            ("class MLPModel(nn.Module):", "class MLPModel(nn.Module):\n    made = {}\n"),
            (
                "self.layers = nn.Sequential(",
                "self.layers = self.made.setdefault(num_classes, nn.Sequential(",
            ),
            (LAST + "        )", LAST + "        ))"),
        ],
        "1.5",
        "mutable default",
    ),
    Mutant(
        "mutable default argument",
        CM,
        [
            (
                'pixels.\n    """\n\n    def __init__(self, num_classes: int = 9):',
                'pixels.\n    """\n\n    def __init__(self, num_classes: int = 9, layers=[]):',
            ),
            (
                LINEAR_LAYER,
                "layers or layers.append(nn.Linear(NUM_PIXELS, num_classes))\n"
                "        self.classifier = layers[0]",
            ),
        ],
        "1.2 1.5",
        "mutable default",
    ),
    Mutant(
        "no super().__init__",
        CM,
        [
            (
                "super().__init__()\n"
                "        ### BEGIN SOLUTION\n        self.classifier = nn.Linear(NUM",
                "self.classifier = nn.Linear(NUM",
            )
        ],
        "1.2 1.3 1.5 1.6",
        r"super\(\).__init__\(\) is missing",
    ),
    Mutant(
        "tensors counted", CM, [(COUNT, "return len(list(model.parameters()))")], "1.6", "numel"
    ),
    Mutant("blank left", CM, [(MLP, "raise NotImplementedError")], "1.2 1.5", "not filled in"),
    Mutant("file missing", CM, [], "1.1 1.2", r"classification_models.py is missing"),
    Mutant("name misspelt", CM, [("class MLPModel", "class MLPmodel")], "1.1", "."),
    # ---- training of part 1 ----
    Mutant(
        "syntax error", CT, [("def train_epoch(", "def train_epoch((")], "1.1 1.7", "cannot read"
    ),
    Mutant(
        "package missing",
        CT,
        [("import math\n", "import math\nimport torch_lightening\n")],
        "1.7",
        "not inst",
    ),
    Mutant("no zero_grad", CT, [(ZERO, "\n")], "1.7", "never set to zero"),
    Mutant("no backward", CT, [(BACK, "\n")], "1.7", r"backward\(\) is missing"),
    Mutant("no step", CT, [(STEP, "\n")], "1.7 1.8 1.10", r"step\(\) is missing"),
    Mutant(
        "zero_grad after backward",
        CT,
        [
            (
                IN_ORDER,
                "        loss.backward()\n"
                "        optimizer.zero_grad()\n        optimizer.step()\n",
            )
        ],
        "1.7",
        r"zero_grad\(\) comes between",
    ),
    Mutant(
        "zero_grad once",
        CT,
        [(ZERO, "\n"), (FIRST, FIRST + "    optimizer.zero_grad()\n")],
        "1.7",
        "set to zero once",
    ),
    Mutant(
        "step before backward",
        CT,
        [
            (
                IN_ORDER,
                "        optimizer.step()\n"
                "        optimizer.zero_grad()\n        loss.backward()\n",
            )
        ],
        "1.7",
        "comes before loss.backward",
    ),
    Mutant(
        "zero_grad, step, backward",
        CT,
        [
            (
                IN_ORDER,
                "        optimizer.zero_grad()\n"
                "        optimizer.step()\n        loss.backward()\n",
            )
        ],
        "1.7",
        "stands before loss.backward",
    ),
    Mutant(
        "softmax in the loop",
        CT,
        [
            (
                "loss = criterion(logits.float(), labels)",
                "loss = criterion(logits.softmax(1), labels)",
            )
        ],
        "1.7",
        "softmax is applied before",
    ),
    Mutant(
        "labels not squeezed",
        CT,
        [("loss = criterion(logits.float(), labels)", "loss = criterion(logits, labels[:, None])")],
        "1.7 1.8",
        "squeeze",
    ),
    Mutant(
        "labels broadcast",
        CT,
        [
            (
                "        total_correct += (logits.argmax(dim=1) == labels).sum().item()\n"
                "        bar",
                "        total_correct += (logits.argmax(dim=1) == labels[:, None]).sum().item()\n"
                "        bar",
            )
        ],
        "1.7",
        "squeeze",
    ),
    Mutant(
        "mean over batches",
        CT,
        [
            (LOSS_HERE, "total_loss += loss.item()"),
            (TRAIN_RETURN, "    return total_loss / steps, total_correct / seen"),
        ],
        "1.7",
        "mean over b",
    ),
    Mutant(
        "batch means over images", CT, [(LOSS_HERE, "total_loss += loss.item()")], "1.7", "multiply"
    ),
    Mutant(
        "sum not divided",
        CT,
        [(TRAIN_RETURN, "    return total_loss, total_correct / seen")],
        "1.7",
        "this is the sum over the images",
    ),
    Mutant(
        "over len(dataset)",
        CT,
        [
            (
                TRAIN_RETURN,
                "    n = len(train_loader.dataset)\n    return total_loss / n, total_correct / n",
            )
        ],
        "1.8",
        r"divided by len\(dataset\)",
    ),
    Mutant(
        "over len(loader)",
        CT,
        [
            (LOSS_HERE, "total_loss += loss.item()"),
            (TRAIN_RETURN, "    return total_loss / len(train_loader), total_correct / seen"),
        ],
        "1.8 1.7",
        r"divided by len\(loader\)",
    ),
    Mutant(
        "accuracy in percent",
        CT,
        [(TRAIN_RETURN, "    return total_loss / seen, 100 * total_correct / seen")],
        "1.7",
        "percent",
    ),
    Mutant(
        "last batch alone",
        CT,
        [(TRAIN_RETURN, "    return loss.item(), total_correct / seen")],
        "1.7",
        "last batch alone",
    ),
    Mutant(
        "a step too many",
        CT,
        [(STEPS, STEPS.replace("min(max_steps,", "min(max_steps + 1,"))],
        "1.8",
        "one step too many",
    ),
    Mutant(
        "a step too few",
        CT,
        [(STEPS, STEPS.replace("min(max_steps,", "min(max_steps - 1,"))],
        "1.8",
        "one step too few",
    ),
    Mutant(
        "max_steps ignored", CT, [(STEPS, "steps = len(train_loader)")], "1.8", "max_steps is ign"
    ),
    Mutant(
        "no eval",
        CT,
        [(VAL_START, VAL_START.replace("model.eval()", "model.train()"))],
        "1.9",
        "model.eval",
    ),
    Mutant("no no_grad", CT, [(NO_GRAD, "def validate_")], "1.9", r"no_grad\(\)"),
    Mutant(
        "neither eval nor no_grad",
        CT,
        [
            (NO_GRAD, "def validate_"),
            (VAL_START, VAL_START.replace("model.eval()", "model.train()")),
        ],
        "1.9",
        r"training mode and gradients",
    ),
    Mutant(
        "validation changes weights",
        CT,
        [
            (
                VAL_LOSS,
                VAL_LOSS + "\n        for p in model.parameters():\n            p.sub_(0.001)",
            )
        ],
        "1.9",
        r"backward\(\) or step\(\)",
    ),
    Mutant(
        "validation of one batch",
        CT,
        [(VAL_LOSS, VAL_LOSS + "\n        break")],
        "1.9",
        "every batch",
    ),
    Mutant(
        "validation in percent",
        CT,
        [
            (
                "    return total_loss / seen, total_correct / seen\n"
                "    ### END SOLUTION\n\n\ndef has",
                "    return total_loss / seen, 100 * total_correct / seen\n"
                "    ### END SOLUTION\n\n\ndef has",
            )
        ],
        "1.9",
        "percent",
    ),
    Mutant(
        "learning rate ignored",
        CT,
        [(OPTIMIZER, OPTIMIZER.replace("=learning_rate", "=0.01"))],
        "1.10",
        "learning_rate is ignored",
    ),
    Mutant(
        "weight decay ignored",
        CT,
        [("weight_decay=weight_decay", "weight_decay=0.0")],
        "1.10",
        "weight_decay is ignored",
    ),
    Mutant(
        "steps per epoch ignored",
        CT,
        [("            max_steps_per_epoch,\n", "")],
        "1.10",
        "max_steps_per_epoch does not reach",
    ),
    Mutant(
        "a copy is trained",
        CT,
        [
            (
                "    device = next(model.parameters()).device\n",
                "    import copy\n"
                "    model = copy.deepcopy(model)\n    device = next(model.parameters()).device\n",
            )
        ],
        "1.10",
        "a copy is trained",
    ),
    Mutant(
        "a list missing",
        CT,
        [
            ('"val_loss": [], "val_acc": []}', '"val_acc": []}'),
            ('        history["val_loss"].append(val_loss)\n', ""),
        ],
        "1.10",
        "no list 'val_loss'",
    ),
    Mutant(
        "an entry too many",
        CT,
        [("    while len(history", '    history["train_loss"].append(0.0)\n    while len(history')],
        "1.10",
        "append once",
    ),
    Mutant(
        "wrong device",
        CT,
        [("    return history\n", '    model.to("meta")\n    return history\n')],
        "1.10",
        "another device",
    ),
    Mutant(
        "device in the code",
        CT,
        [("device = next(model.parameters()).device", 'device = torch.device("cuda")')],
        "1.10",
        "wrong device",
    ),
    # ---- models and losses of part 2 ----
    Mutant("no sigmoid", SM, [(HEAD, "return self.head(x)")], "2.2", "sigmoid at the model's end"),
    Mutant(
        "two sigmoids",
        SM,
        [(HEAD, "return torch.sigmoid(torch.sigmoid(self.head(x)))")],
        "2.2",
        "probabilities already",
    ),
    Mutant(
        "ReLU before the sigmoid",
        SM,
        [(HEAD, "return torch.sigmoid(self.head(x).relu())")],
        "2.2",
        "ReLU after the last layer",
    ),
    Mutant(
        "cropped to 27x27",
        SM,
        [(HEAD, "return torch.sigmoid(self.head(x))[..., :27, :27]")],
        "2.2 2.5",
        "cropped to 27x27",
    ),
    Mutant(
        "masks come NHWC",
        SM,
        [(HEAD, "return torch.sigmoid(self.head(x)).permute(0, 2, 3, 1)")],
        "2.2",
        "NHWC",
    ),
    Mutant(
        "batch of masks flattened",
        SM,
        [
            (
                "logits = self.layer(images.flatten(start_dim=1))",
                "logits = self.layer(images.flatten())",
            )
        ],
        "2.2 2.3",
        r"start_dim=1",
    ),
    Mutant(
        "mask's channel gone",
        SM,
        [(HEAD, "return torch.sigmoid(self.head(x)).squeeze(1)")],
        "2.2",
        "unsqueeze",
    ),
    Mutant(
        "7 doubled from 3",
        SM,
        [
            (
                "nn.ConvTranspose2d(8 * c, 4 * c, kernel_size=3, stride=2)",
                "nn.ConvTranspose2d(8 * c, 4 * c, kernel_size=2, stride=2)",
            )
        ],
        "2.2 2.4 2.5",
        "doubling gives 6",
    ),
    Mutant(
        "skip added",
        SM,
        [
            (UP1, "x = self.up1(self.grow1(x) + skip1)"),
            (MADE_UP1, "self.up1 = two_convolutions(c, c, k)"),
        ],
        "2.5",
        "added instead of concatenated",
    ),
    Mutant(
        "skips missing",
        SM,
        [(UP1, "x = self.up1(self.grow1(x))"), (MADE_UP1, "self.up1 = two_convolutions(c, c, k)")],
        "2.5",
        "28x28 is missing",
    ),
    Mutant(
        "skip from the wrong level",
        SM,
        [
            (
                UP1,
                "x = self.up1(torch.cat([self.grow1(x),"
                " F.interpolate(skip2, scale_factor=2)], dim=1))",
            ),
            (MADE_UP1, "self.up1 = two_convolutions(3 * c, c, k)"),
        ],
        "2.5",
        "wrong level",
    ),
    Mutant(
        "IoU of probabilities",
        SM,
        [
            (
                "    predicted = (pred_mask > threshold).flatten(start_dim=1)\n"
                "    true = (true_mask > 0.5).flatten(start_dim=1)\n",
                "    predicted, true = pred_mask.flatten(1), true_mask.flatten(1)\n",
            ),
            ("(predicted & true).sum(dim=1)", "(predicted * true).sum(dim=1)"),
            ("(predicted | true).sum(dim=1)", "predicted.sum(1) + true.sum(1) - intersection"),
            ("union.clamp(min=1)", "union"),
        ],
        "2.6",
        "not compared with the threshold",
    ),
    Mutant(
        "IoU over the batch",
        SM,
        [
            (
                "intersection = (predicted & true).sum(dim=1)",
                "intersection = (predicted & true).sum()",
            ),
            ("union = (predicted | true).sum(dim=1)", "union = (predicted | true).sum()"),
        ],
        "2.6",
        "whole batch",
    ),
    Mutant(
        "empty masks count 0",
        SM,
        [("union.clamp(min=1), 1.0)", "union.clamp(min=1), 0.0)")],
        "2.6",
        "both masks are empty",
    ),
    Mutant(
        "empty masks divide 0",
        SM,
        [
            (
                "iou = torch.where(union > 0, intersection / union.clamp(min=1), 1.0)",
                "iou = intersection / union",
            )
        ],
        "2.6",
        "both masks are empty",
    ),
    Mutant(
        "IoU threshold ignored",
        SM,
        [("(pred_mask > threshold)", "(pred_mask > 0.5)")],
        "2.6",
        "0.5 whatever",
    ),
    Mutant(
        "IoU is Dice",
        SM,
        [
            (
                "    union = (predicted | true).sum(dim=1)\n",
                "    intersection, union = 2 * intersection, predicted.sum(1) + true.sum(1)\n",
            )
        ],
        "2.6",
        "this is Dice",
    ),
    Mutant("Dice without 2", SM, [(DICE, DICE.replace("2 * ", ""))], "2.7", "factor 2"),
    Mutant(
        "Dice over the batch",
        SM,
        [
            ("overlap = (predicted * true).sum(dim=1)", "overlap = (predicted * true).sum()"),
            (
                "total = predicted.sum(dim=1) + true.sum(dim=1)",
                "total = predicted.sum() + true.sum()",
            ),
        ],
        "2.7",
        "whole batch",
    ),
    Mutant(
        "Dice without smooth",
        SM,
        [(DICE, "dice = 2 * overlap / total")],
        "2.7",
        "`smooth` is missing",
    ),
    Mutant(
        "Dice smooth above alone",
        SM,
        [(DICE, DICE.replace("(total + self.smooth)", "total"))],
        "2.7",
        "missing below",
    ),
    Mutant(
        "Dice not subtracted",
        SM,
        [("return 1 - dice.mean()", "return dice.mean()")],
        "2.7",
        "1 - Dice",
    ),
    Mutant(
        "Dice of logits",
        SM,
        [
            (
                "predicted = pred_mask.flatten(start_dim=1)",
                "predicted = pred_mask.sigmoid().flatten(1)",
            )
        ],
        "2.7",
        "probabilities already",
    ),
    Mutant(
        "Dice cut off",
        SM,
        [
            (
                "overlap = (predicted * true).sum(dim=1)",
                "predicted = (predicted > 0.5).float()\n"
                "        overlap = (predicted * true).sum(dim=1)",
            )
        ],
        "2.7",
        ".",
    ),
    Mutant(
        "BCE with logits",
        SM,
        [("self.bce = nn.BCELoss()", "self.bce = nn.BCEWithLogitsLoss()")],
        "2.8",
        "BCEWithLogitsLoss",
    ),
    Mutant(
        "BCE summed",
        SM,
        [("self.bce = nn.BCELoss()", 'self.bce = nn.BCELoss(reduction="sum")')],
        "2.8",
        "summed",
    ),
    Mutant(
        "no weights",
        SM,
        [(WEIGHTED, "return bce + self.dice(pred_mask, true_mask)")],
        "2.8",
        "weights are not used",
    ),
    Mutant(
        "weights swapped",
        SM,
        [
            (
                WEIGHTED,
                "return self.dice_weight * bce + self.bce_weight * self.dice(pred_mask, true_mask)",
            )
        ],
        "2.8",
        "swapped",
    ),
    Mutant(
        "weights fixed",
        SM,
        [(WEIGHTED, "return 0.5 * bce + 0.5 * self.dice(pred_mask, true_mask)")],
        "2.8",
        "0.5 and 0.5",
    ),
    # ---- training of part 2 ----
    Mutant("masks: no zero_grad", ST, [(ZERO, "\n")], "2.9", "never set to zero"),
    Mutant("masks: no step", ST, [(STEP, "\n")], "2.9 2.11", r"step\(\) is missing"),
    Mutant("masks: no backward", ST, [(BACK, "\n")], "2.9", r"backward\(\) is missing"),
    Mutant(
        "masks: two sigmoids",
        ST,
        [
            (
                "        loss = criterion(predicted, masks)",
                "        loss = criterion(predicted.sigmoid(), masks)",
            )
        ],
        "2.9",
        "probabilities already",
    ),
    Mutant(
        "masks: thresholded before the loss",
        ST,
        [
            (
                "        loss = criterion(predicted, masks)",
                "        loss = criterion((predicted > 0.5).float(), masks)",
            )
        ],
        "2.9",
        "does not depend on the weights",
    ),
    Mutant(
        "masks: a step too many",
        ST,
        [(STEPS, STEPS.replace("min(max_steps,", "min(max_steps + 1,"))],
        "2.9",
        "one step too many",
    ),
    Mutant(
        "masks: sum not divided",
        ST,
        [(MASK_IOU, MASK_IOU.replace(" * len(images)", ""))],
        "2.9",
        "multiply each",
    ),
    Mutant(
        "masks: no eval",
        ST,
        [
            (
                "    model.eval()\n    device = torch.device(device)\n",
                "    device = torch.device(device)\n",
            )
        ],
        "2.10",
        "model.eval",
    ),
    Mutant("masks: no no_grad", ST, [(NO_GRAD, "def validate_")], "2.10", r"no_grad\(\)"),
    Mutant(
        "masks: a copy is trained",
        ST,
        [
            (
                "    device = next(model.parameters()).device\n    criterion",
                "    import copy\n    model = copy.deepcopy(model)\n"
                "    device = next(model.parameters()).device\n    criterion",
            )
        ],
        "2.11",
        "a copy is trained",
    ),
    Mutant(
        "masks: history without IoU",
        ST,
        [
            (
                '        history["val_iou"].append(val_iou)\n',
                '        history["val_iou"] += [val_iou, val_iou]\n',
            )
        ],
        "2.11",
        "append once",
    ),
    Mutant(
        "masks: IoU of batches",
        ST,
        [(EVALUATED, "ious.append(calculate_iou(predicted, masks))")],
        "2.12",
        "average over the images",
    ),
    Mutant(
        "masks: batches counted",
        ST,
        [('"total_samples": len(ious)', '"total_samples": len(test_loader)')],
        "2.12",
        "count images",
    ),
    # ---- seen in real submissions ----
    Mutant(
        "clipped gradients",
        CT,
        [
            (
                STEP,
                "torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)\n        " + STEP,
            )
        ],
        "1.7 1.8",
        "it is clipped",
    ),
    Mutant(
        "loss divided",
        ST,
        [(BACK, "(loss / 8).backward()\n")],
        "2.9",
        "the loss is scaled before",
    ),
    Mutant(
        "data of the handout",
        ST,
        [("import torch\n", "import torch\nfrom synthetic_data import PathMNISTBoxDataset\n")],
        "2.9 2.1",
        "the handout's synthetic_data is not there",
    ),
]
