"""Train a segmenter that finds boxes on tissue and look at its masks (provided).

python segmentation_main.py --model unet
"""

import argparse
import time

import pathlab  # noqa: F401  before torch: it says how torch's threads wait

# isort: split
from pathlab.arguments import positive_int
from pathlab.data.boxes import DIFFICULTIES
from pathlab.data.sets import load
from pathlab.errors import run_command
from pathlab.training.cli import build_model, common_parser, resolve_settings
from pathlab.training.device import make_deterministic, pick_device
from pathlab.training.loop import train
from pathlab.training.run import Run
from segmentation_models import CombinedLoss, count_parameters, get_segmentation_model
from segmentation_train import (
    evaluate_segmentation_model,
    train_segmentation_model,
    visualize_predictions,
)
from synthetic_data import create_box_dataloaders


def build_parser() -> argparse.ArgumentParser:
    """The flags that both mains share, and those of this one."""
    parser = common_parser("segmentation")
    parser.add_argument(
        "--difficulty",
        choices=DIFFICULTIES,
        help="the colours of the boxes (default: published, the easiest)",
    )
    parser.add_argument("--base-channels", type=positive_int, help="channels at the U-Net's top")
    parser.add_argument(
        "--skips", action=argparse.BooleanOptionalAction, help="the U-Net's skips (default: yes)"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Train, test the kept weights, and leave figures and pictures in the run's folder."""
    started = time.perf_counter()
    args = build_parser().parse_args(argv)
    settings, folder = resolve_settings(args, "segmentation")
    device = pick_device(settings["device"])
    batch_size, seed = settings["batch_size"], settings["seed"]
    make_deterministic(seed)

    data = load(settings["dataset"], settings["data_root"])
    train_loader, val_loader, test_loader, _ = create_box_dataloaders(
        batch_size, args.num_workers, data=data, difficulty=settings["difficulty"], seed=seed
    )
    model = build_model(get_segmentation_model, settings).to(device)
    run = Run(folder, settings, data, "val_iou", started)
    run.announce(count_parameters(model), device, train_loader)

    criterion = CombinedLoss()
    history = train(train_segmentation_model, model, train_loader, val_loader, criterion, run)

    run.load_kept(model)
    test = evaluate_segmentation_model(model, test_loader, data.name)
    if not args.no_plots:
        from pathlab.training import plots  # matplotlib is slow to import

        title = f"{settings['model']} on boxes over {data.name}"
        plots.curves(history, run.step_losses, run.steps, title, run.folder / "curves.png")
        visualize_predictions(model, test_loader.dataset, 8, run.folder / "predictions.png")
    run.write_results(history, test_iou=test["mean_iou"], test_iou_std=test["std_iou"])


if __name__ == "__main__":
    run_command(main)
