"""Train a tissue classifier and look at what it learned (provided).

python classification_main.py --model cnn
"""

import argparse
import time

import pathlab  # noqa: F401  before torch: it says how torch's threads wait

# isort: split
from torch import nn

from classification_dataset import create_dataloaders
from classification_models import count_parameters, get_model
from classification_train import train_model
from pathlab.arguments import below_one
from pathlab.data.sets import load
from pathlab.errors import run_command
from pathlab.training.cli import build_model, common_parser, resolve_settings
from pathlab.training.device import make_deterministic, pick_device
from pathlab.training.evaluate import predict
from pathlab.training.loop import train
from pathlab.training.run import Run


def build_parser() -> argparse.ArgumentParser:
    """The flags that both mains share, and those of this one."""
    parser = common_parser("classification")
    parser.add_argument(
        "--augment",
        action=argparse.BooleanOptionalAction,
        help="vary the training images: flips, turns and stain, or for gray images small shifts",
    )
    parser.add_argument("--label-smoothing", type=below_one, help="label smoothing of the loss")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Train, test the kept weights, and leave figures and pictures in the run's folder."""
    started = time.perf_counter()
    args = build_parser().parse_args(argv)
    settings, folder = resolve_settings(args, "classification")
    device = pick_device(settings["device"])
    batch_size, seed = settings["batch_size"], settings["seed"]
    make_deterministic(seed)

    data = load(settings["dataset"], settings["data_root"])
    train_loader, val_loader, test_loader = create_dataloaders(
        data, batch_size, args.num_workers, augment=settings["augment"], seed=seed
    )
    model = build_model(get_model, settings, num_classes=data.num_classes).to(device)
    run = Run(folder, settings, data, "val_acc", started)
    run.announce(count_parameters(model), device, train_loader)

    criterion = nn.CrossEntropyLoss(label_smoothing=settings["label_smoothing"])
    history = train(train_model, model, train_loader, val_loader, criterion, run)

    run.load_kept(model)
    test, names = predict(model, test_loader, device), data.class_names
    if not args.no_plots:
        from pathlab.training import plots  # matplotlib is slow to import

        title = f"{settings['model']} on {data.name}"
        plots.curves(history, run.step_losses, run.steps, title, run.folder / "curves.png")
        plots.confusion_matrix(test, names, run.folder / "confusion_matrix.png")
        plots.per_class(test, names, run.folder / "per_class.png")
        images, path = data.images["test"], run.folder / "worst_mistakes.png"
        plots.worst_mistakes(test, images, names, path)
    print(test.report(names))
    run.write_results(history, test_acc=test.accuracy, test_auc=test.auc())


if __name__ == "__main__":
    run_command(main)
