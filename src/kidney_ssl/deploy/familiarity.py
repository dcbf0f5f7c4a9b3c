"""How far a volume is from what its network was trained on.

The measure is the Mahalanobis distance of a slice's pooled features from those of the labelled slices (Lee et al. 2018,
arXiv:1807.03888), with the covariance of Ledoit and Wolf (2004). The score of a volume is the lower quartile of its
slices' distances: a quarter of its slices must look like training slices, whatever else the scan shows.

The bound is a quantile of the scores of the labelled cases themselves. Each is scored without its own group: one case,
or a twentieth of the cases where there are more than twenty. Cases that the network was trained on may lie closer than
strangers; the validation cases, which chose the epoch only, are among them for that reason.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kidney_ssl.data.checks import CHECKS, Findings
from kidney_ssl.deploy.network_folder import Familiar
from kidney_ssl.errors import InputError
from kidney_ssl.models.weights import read_safetensors, save_weights

QUANTILE = 0.99  # of the cases' own scores; the largest below 100 cases
GROUPS = 20
LEAST_CASES = 3
NEAREST = 0.25  # share of a volume's slices that the score looks at
WIDER = 1.5  # factor by which spacing and thickness may leave the range of the training cases


@dataclass(frozen=True)
class Reference:
    """Where the features of the labelled slices lie: mean (d,) and whitening (d, d), float64."""

    mean: np.ndarray
    whitening: np.ndarray

    def score(self, features: np.ndarray) -> float:
        """Score of a volume with slices of features (N, d), N > 0."""
        distances = np.linalg.norm((features.astype(np.float64) - self.mean) @ self.whitening, axis=1)
        return float(np.quantile(distances / np.sqrt(len(self.mean)), NEAREST))

    def save(self, path: Path) -> None:
        """Write both arrays as float32 safetensors."""
        arrays = {"mean": self.mean, "whitening": self.whitening}
        save_weights({name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}, path)

    @classmethod
    def load(cls, path: Path, width: int) -> "Reference":
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing or damaged, or not of features of this width.
        """
        state = read_safetensors(path)
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if shapes != {"mean": (width,), "whitening": (width, width)}:
            raise InputError(f"{path}: not of this network's {width} features; export the network again")
        return cls(state["mean"].double().numpy(), state["whitening"].double().numpy())


def fit(features: np.ndarray) -> Reference:
    """Mean and whitening of features (N, d)."""
    from sklearn.covariance import ledoit_wolf  # noqa: PLC0415 - a second of imports

    values = features.astype(np.float64)
    covariance, _ = ledoit_wolf(values)
    variances, directions = np.linalg.eigh(covariance)
    # A feature that is constant in training (a dead unit) has no variance: the floor keeps its distance finite.
    floor = max(float(variances[-1]), 1e-12) * 1e-6
    return Reference(values.mean(0), directions / np.sqrt(np.maximum(variances, floor)))


def calibrate(features: np.ndarray, cases: np.ndarray) -> tuple[Reference, list[float], float]:
    """Fit a reference, and score each case without its own group.

    Args:
        features: (N, d) of labelled slices.
        cases: (N,) name of each slice's case.

    Returns:
        The reference of all slices, the sorted scores of the cases, and the bound.

    Raises:
        InputError: there are too few cases.
    """
    names = np.unique(cases)
    if len(names) < LEAST_CASES:
        raise InputError(f"{len(names)} labelled case(s) are too few to say what is familiar; export a larger budget")
    scores: list[float] = []
    for left_out in np.array_split(names, min(GROUPS, len(names))):
        others = fit(features[~np.isin(cases, left_out)])
        scores += [others.score(features[cases == name]) for name in left_out]
    bound = float(np.quantile(scores, QUANTILE, method="higher"))
    return fit(features), sorted(scores), bound


def reading_reasons(findings: Findings) -> list[str]:
    """What is wrong with a volume by the checks of `kidney_ssl.data.checks`: no HU, a spacing that no CT has."""
    split = [finding.partition(": ") for finding in findings]
    return [said for check, _, said in split if check in CHECKS]


def spacing_reasons(spacing_mm: tuple[float, float, float], known: Familiar) -> list[str]:
    """Whether slices are further apart, or pixels larger or smaller, than those of the training cases by far."""
    thickness, row, column = spacing_mm
    found = []
    for what, mm, (low, high) in (
        ("slices", thickness, known.thickness_mm),
        ("pixels", (row * column) ** 0.5, known.spacing_mm),
    ):
        if not low / WIDER <= mm <= high * WIDER:
            found.append(f"{what} {mm:.2f} mm apart, in training {low:.2f} to {high:.2f} mm")
    return found


def score_reasons(score: float, known: Familiar) -> list[str]:
    """Whether the score is beyond the bound."""
    if score <= known.bound:
        return []
    return [
        f"its slices look unlike those of the {known.cases} training cases (distance {score:.2f}, at most "
        f"{known.bound:.2f} there)"
    ]
