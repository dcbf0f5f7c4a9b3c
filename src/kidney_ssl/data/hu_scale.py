"""Detects multiplied HU, as by a rescale slope that is applied twice, which `checks.hu_findings` cannot detect.

Doubled HU still have voxels at -1000 (partial volumes, or air clipped at -1024) and soft tissue below 200. They differ
in the HU of lung, air and fat. A volume without lung and without fat is not checked.
"""

import numpy as np

from kidney_ssl.data.checks import Findings

BIN, LOWEST = 20, -32770  # HU: width of the histogram's bins, and its lower end
BINS = (32767 - LOWEST) // BIN + 1
PLANES = 64  # slices examined, evenly spaced
DARKER, MOST_DARKER = -1210, 0.08  # HU, and limit of the share below it: CT 0, resampled padding 0.05, doubled HU 0.1
PADDING = 3  # bins for padding, which is one value, or two if two programs padded
FAT = (-290, -50)  # HU range that contains the peak of fat: at -120 to -80, or -240 to -170 if doubled
LOWEST_FAT = -170
PEAK = 1.5  # minimum height of the peak relative to the range's ends; without fat the histogram only rises
AIR, HALVED_AIR = (-1110, -710), (-610, -390)
LEAST_AIR, MOST_HALVED = 0.001, 0.05  # shares; in the range of halved air: 0.03 in CT, 0.15 in halved CT


def scale_findings(array: np.ndarray) -> Findings:
    """Check whether int16 values (slices, H, W) are a multiple of HU: findings of the checks air and soft_tissue."""
    planes = array[:: -(-len(array) // PLANES)]
    # By slice, since int32 needs twice the memory.
    counts = np.zeros(BINS, np.int64)
    for plane in planes:
        counts += np.bincount((plane.ravel().astype(np.int32) - LOWEST) // BIN, minlength=BINS)
    shares = counts / planes.size

    def between(low: int, high: int) -> np.ndarray:
        return shares[(low - LOWEST) // BIN : (high - LOWEST) // BIN]

    found = []
    many = np.sort(between(LOWEST, DARKER))[:-PADDING].sum()
    if many > MOST_DARKER:
        found.append(f"air: no HU: {100 * many:.2g} % are darker than air, in many values; multiplied?")
    air = between(*AIR)
    if air.sum() - air.max() < LEAST_AIR and (halved := between(*HALVED_AIR).sum()) > MOST_HALVED:
        found.append(f"air: no HU: {100 * halved:.2g} % are {HALVED_AIR[0]} to {HALVED_AIR[1]}, as halved air is")
    fat = between(*FAT)
    highest, ends = int(fat.argmax()), max(fat[0], fat[-1])
    peak = FAT[0] + BIN * highest
    # Fat spreads over the bins beside its peak (doubled 1.4 times the ends); one value, as of filling, does not (0.5).
    spread = peak < LOWEST_FAT and max(fat[highest - 1], fat[highest + 1]) > ends
    if spread and fat.max() > max(PEAK * ends, LEAST_AIR):
        found.append(f"soft_tissue: no HU: fat lies at {peak} to {peak + BIN}; multiplied?")
    return tuple(found)
