"""Put the pictures of the demo's two runs together as docs/demo.png.

python -m benchmarks.demo_picture runs/classification-cnn-1 runs/segmentation-unet-1
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

PICTURES = {  # left, bottom, width, height as shares of the figure
    (0, "curves.png"): (0.0, 0.56, 0.6, 0.44),
    (0, "confusion_matrix.png"): (0.6, 0.46, 0.4, 0.54),
    (1, "predictions.png"): (0.0, 0.0, 0.62, 0.54),
    (0, "worst_mistakes.png"): (0.63, 0.0, 0.37, 0.45),
}


def main() -> None:
    runs = [Path(argument) for argument in sys.argv[1:3]]
    figure = plt.figure(figsize=(16, 9), dpi=80)
    for (run, name), place in PICTURES.items():
        axis = figure.add_axes(place)
        axis.imshow(plt.imread(runs[run] / name), interpolation="antialiased")
        axis.axis("off")
    figure.savefig(Path(__file__).resolve().parents[1] / "docs" / "demo.png")


if __name__ == "__main__":
    main()
