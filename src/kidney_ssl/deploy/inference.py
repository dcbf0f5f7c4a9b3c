"""A network run over all slices of a scan, one batch in memory at a time."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kidney_ssl.data.body import Box
from kidney_ssl.deploy.familiarity import Reference, reading_reasons, score_reasons, spacing_reasons
from kidney_ssl.deploy.network_folder import FAMILIARITY, Classifier, Settings, probabilities, read_settings
from kidney_ssl.deploy.scan import Scan, frames
from kidney_ssl.errors import InputError

BATCH_PIXELS = 1 << 21  # 8 slices of 512 x 512, whose activations take a gigabyte in a ResNet-18
LARGEST_BATCH = 32


@dataclass(frozen=True)
class Looked:
    """What a network makes of a scan.

    Attributes:
        probability: (N,) float64 of tumor, by slice.
        features: (N, width) float32.
        maps: (N, h, w) float32 Grad-CAM in the body frame; None if not asked for.
        boxes: the body's box in each slice.
        bodiless: slices without a body.
        score: see `kidney_ssl.deploy.familiarity`.
        reasons: why the scan is outside what the network has seen; empty if it is not.
    """

    probability: np.ndarray
    features: np.ndarray
    maps: np.ndarray | None
    boxes: list[Box]
    bodiless: int
    score: float
    reasons: list[str]


class LoadedNetwork:
    """A network folder in memory.

    Args:
        folder: see `kidney_ssl.deploy.network_folder`.
        device: where the network runs; by default a GPU if there is one.

    Raises:
        InputError: the folder is incomplete or damaged.
    """

    def __init__(self, folder: Path, device: torch.device | None = None) -> None:
        chosen = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.folder, self.settings = folder, read_settings(folder)
        self.classifier = Classifier.load(folder, self.settings, chosen)
        width = int(self.classifier.model.fc.in_features)  # type: ignore[arg-type, union-attr] # a Module's attribute
        self.reference = Reference.load(folder / FAMILIARITY, width)

    def look(self, scan: Scan, *, maps: bool) -> Looked:
        """Run the network over all slices.

        Raises:
            InputError: the network gives logits that are not finite.
        """
        settings = self.settings
        batch = max(1, min(LARGEST_BATCH, BATCH_PIXELS // settings.frame.size**2))
        logits, features, found, boxes, bodiless = [], [], [], [], 0
        for part in frames(scan, settings.body_frame, settings.window, settings.range, batch):
            seen = self.classifier.look(part.images, maps=maps)
            logits.append(seen.logits)
            features.append(seen.features)
            boxes += part.boxes
            bodiless += part.bodiless
            if seen.maps is not None:
                found.append(seen.maps)
        if not np.isfinite(np.concatenate(logits)).all():
            raise InputError(f"{self.folder}: its network gives values that are not finite; export it again")
        features_of_all = np.concatenate(features)
        score = self.reference.score(features_of_all)
        reasons = refusal_before(scan, settings) + score_reasons(score, settings.familiar)
        return Looked(
            probabilities(np.concatenate(logits)),
            features_of_all,
            np.concatenate(found) if found else None,
            boxes,
            bodiless,
            score,
            reasons,
        )


def refusal_before(scan: Scan, settings: Settings) -> list[str]:
    """Reasons against a scan that need no network: no HU, and other distances between slices or pixels."""
    return reading_reasons(scan.findings) + spacing_reasons(scan.grid.spacing_mm, settings.familiar)


def refuse_unfamiliar(volume: Path, reasons: list[str]) -> None:
    """Refuse a volume for these reasons.

    Raises:
        InputError: there are some.
    """
    if reasons:
        raise InputError(
            f"{volume}: outside what this network has seen: {'; '.join(reasons)}; --anyway predicts nevertheless"
        )
