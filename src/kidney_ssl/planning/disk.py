"""What a study lays on the disk."""

from collections.abc import Sequence

from kidney_ssl.data.registry import label_files
from kidney_ssl.planning.counts import Counts

# Imaging of KiTS23 as its hub lists it; the label files' sizes are in the registry.
KITS23_IMAGING_BYTES = 41_000_000_000
PHANTOM_PIXEL_BYTES = 1.84  # a pixel of the default phantom's volumes, imaging and labels together, compressed


def expected_volumes(source: str, cases: Sequence[str], counts: Counts, phantom_size: int) -> int:
    """Bytes of the volumes before they are there; 0 of a directory, which is read in place.

    Args:
        source: `data.source`.
        cases: names of the cases.
        counts: slices of the study.
        phantom_size: `phantom.size`.
    """
    if source == "kits23":
        known = label_files()
        return round(KITS23_IMAGING_BYTES * len(cases) / len(known)) + sum(known[case].bytes for case in cases)
    if source == "phantom":
        return round(counts.slices * phantom_size**2 * PHANTOM_PIXEL_BYTES)
    return 0


def disk(
    counts: Counts, *, size: int, pool_all: bool, encoders: int, classifiers: int, encoder_bytes: int
) -> dict[str, int]:
    """Bytes of what the stages write, by kind; the volumes are not among them.

    Args:
        counts: slices of the study.
        size: side S of the frame.
        pool_all: whether every slice of the training cases is stored too.
        encoders: weights files of initial, pretrained and arms' encoders.
        classifiers: fine-tuned networks.
        encoder_bytes: of one network's weights.

    Returns:
        kind -> bytes. A slice is int16, its normalised copy float16, a mask uint8.
    """
    pixels = size * size
    chosen = sum(counts.chosen.values()) * pixels
    return {
        "chosen slices and masks": chosen * 3,
        "chosen slices, normalised": chosen * 2,
        "all slices of the test cases": counts.test_slices * pixels * 2,
        "all slices of the test cases, normalised": counts.test_slices * pixels * 2,
        "pretraining pool": counts.training_slices * pixels * 2 if pool_all else 0,
        "pretraining pool, normalised": counts.training_slices * pixels * 2 if pool_all else 0,
        "encoders: initial, pretrained, of arms": encoders * encoder_bytes,
        "fine-tuned networks": classifiers * encoder_bytes,
    }
