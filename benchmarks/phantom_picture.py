"""Draw docs/images/phantom.png: slices of a few cases, plain and with the outlines of their labels.

Run it in the project's folder: `python -m benchmarks.phantom_picture`.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np

from kidney_ssl import config
from kidney_ssl.data.phantom import make_case

CASES = (0, 1, 3, 7, 12, 20)
COLOURS = {1: "#e8c33c", 2: "#e4572e", 3: "#4aa8ff"}  # kidney, tumor, cyst
WINDOW = (-150, 250)  # HU, as a radiologist looks at an abdomen


def draw(path: Path) -> None:
    """Draw one column a case: the slice with the largest tumor, without and with outlines."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    settings = config.load().phantom
    figure, axes = plt.subplots(2, len(CASES), figsize=(2.4 * len(CASES), 4.6), facecolor="black")
    for column, number in enumerate(CASES):
        imaging, labels, spacing = make_case(number, size=settings.size, slices=settings.slices, seed=settings.seed)
        index = int((labels == 2).sum(axis=(1, 2)).argmax())
        for row in range(2):
            axis = axes[row, column]
            axis.imshow(imaging[index], cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1], aspect=spacing[1] / spacing[2])
            axis.set_axis_off()
        for label, colour in COLOURS.items():
            mask = labels[index] == label
            if mask.any():
                axes[1, column].contour(mask.astype(np.float32), [0.5], colors=colour, linewidths=1)
        axes[0, column].set_title(f"case {number}, slice {index} of {len(labels)}", color="white", fontsize=8)
    figure.tight_layout(pad=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, facecolor="black", metadata={"Software": None})


if __name__ == "__main__":
    draw(Path("docs/images/phantom.png"))
