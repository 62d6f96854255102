"""Likely causes of what PyTorch and Python raise in a submission of this course."""

from autograde.assignment import Cause

CAUSES = (
    Cause(
        "",
        "meta tensor|CUDA|NVIDIA|expected device|on the same device",
        "a tensor or the model is on the wrong device, one that is written into the code. Use the "
        "device that is handed in, or next(model.parameters()).device.",
    ),
    Cause(
        "NotImplementedError",
        r"is missing the required .forward. function",
        "the model has no forward(self, images).",
    ),
    Cause(
        "AttributeError",
        r"before Module.__init__\(\) call|has no attribute '_(modules|parameters|buffers)'",
        "super().__init__() is missing: it must be the first line of the model's __init__.",
    ),
    Cause(
        "",
        "mat1 and mat2 shapes cannot be multiplied",
        "a linear layer got another number of features than it was made for. Flatten each image by "
        "itself, images.flatten(start_dim=1), and check the layer's first number.",
    ),
    Cause(
        "",
        "Dimension out of range|unflatten: Provided sizes|shape '.*' is invalid for input",
        "a tensor has fewer dimensions, or numbers, than the code expects. Was the batch flattened "
        "away? Use flatten(start_dim=1).",
    ),
    Cause(
        "",
        "expected input.* channels",
        "a convolution got another number of channels than it was made for. Images are [B, "
        "channels, height, width] (NCHW): channels come second, not last.",
    ),
    Cause(
        "",
        "multi-target not supported|0D or 1D target",
        "labels must have shape [B]; yours have one dimension more (squeeze it away).",
    ),
    Cause(
        "",
        r"Using a target size \(.*\) that is different to the input size",
        "predictions and masks have different shapes; both must be [B, 1, H, W].",
    ),
    Cause(
        "",
        "Sizes of tensors must match|must match the size of tensor",
        "two feature maps of different sizes meet. 28 -> 14 -> 7 -> 3: from 3, doubling gives 6, "
        "not 7; and each skip belongs to the level of the same size.",
    ),
    Cause(
        "",
        "all elements of input should be between 0 and 1",
        "the loss got values outside of [0, 1]: the model needs a sigmoid at its end.",
    ),
    Cause(
        "",
        "does not require grad",
        "the loss does not depend on the weights: no_grad(), detach(), .item() or a threshold is "
        "in between.",
    ),
    Cause(
        "",
        "backward through the graph a second time",
        "losses of several steps are kept together; add up loss.item(), and call backward() on "
        "each batch's own loss.",
    ),
    Cause(
        "ZeroDivisionError",
        "",
        "nothing was counted: no batch was used, perhaps because the loop ends one step too early.",
    ),
    Cause(
        "",
        r"the file holds module\.",
        "the weights were saved from a model inside nn.DataParallel: save "
        "model.module.state_dict().",
    ),
    Cause(
        "",
        "the file holds .*(state_dict|optimizer|epoch|model)",
        "the file holds more than weights: save model.state_dict() alone.",
    ),
)
