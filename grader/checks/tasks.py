"""The two tasks of the course: what their modules, classes and functions are called."""

from dataclasses import dataclass

DEFAULT_CLASSES = 9  # what the handout's classifiers have if nobody says num_classes
LOOP = ("model", "train_loader", "optimizer", "criterion", "device", "max_steps")
VALIDATION = ("model", "val_loader", "criterion", "device")
BUDGET = ("epochs", "learning_rate", "weight_decay", "max_steps_per_epoch")
TRAINING = ("model", "train_loader", "val_loader", *BUDGET)


@dataclass(frozen=True)
class Task:
    """What differs between the parts.

    classes: short names for `factory` by class; functions: parameters by name; criterion: of one
    epoch; long_criterion: of 100 steps, where it decides how good the model gets.
    """

    name: str
    models: str  # module
    training: str  # module
    classes: dict[str, str]
    factory: str
    others: tuple[str, ...]  # names in `models`
    functions: dict[str, tuple[str, ...]]  # in `training`
    train_epoch: str
    validate_epoch: str
    train_model: str
    metric: str
    is_mask: bool
    criterion: str
    long_criterion: str


CLASSIFICATION = Task(
    name="classification",
    models="classification_models",
    training="classification_train",
    classes={"LinearModel": "linear", "MLPModel": "mlp", "CNNModel": "cnn"},
    factory="get_model",
    others=("count_parameters",),
    functions={"train_epoch": LOOP, "validate_epoch": VALIDATION, "train_model": TRAINING},
    train_epoch="train_epoch",
    validate_epoch="validate_epoch",
    train_model="train_model",
    metric="acc",
    is_mask=False,
    criterion="cross entropy",
    long_criterion="cross entropy",
)
SEGMENTATION = Task(
    name="segmentation",
    models="segmentation_models",
    training="segmentation_train",
    classes={
        "LinearSegmentation": "linear",
        "MLPSegmentation": "mlp",
        "CNNSegmentation": "cnn",
        "TinyUNet": "unet",
    },
    factory="get_segmentation_model",
    others=("count_parameters", "calculate_iou", "DiceLoss", "CombinedLoss"),
    functions={
        "train_segmentation_epoch": LOOP,
        "validate_segmentation_epoch": VALIDATION,
        "train_segmentation_model": TRAINING,
        "evaluate_segmentation_model": ("model", "test_loader", "dataset_name"),
    },
    train_epoch="train_segmentation_epoch",
    validate_epoch="validate_segmentation_epoch",
    train_model="train_segmentation_model",
    metric="iou",
    is_mask=True,
    criterion="bce",
    long_criterion="combined",
)
