"""Whether HU were multiplied, as by a rescale slope that is applied twice: `checks.hu_findings` cannot see it.

Doubled HU still have voxels at -1000 (partial volumes, or air cut at -1024) and soft tissue below 200. They differ in
where lung, air and fat lie. A volume without lung and without fat is not judged.
"""

import numpy as np

from kidney_ssl.data.checks import Findings

BIN, LOWEST = 20, -32770  # HU of a bin of the histogram and of its lower end
BINS = (32767 - LOWEST) // BIN + 1
PLANES = 64  # looked at, evenly spaced
DARKER, MOST_DARKER = -1210, 0.08  # HU; share below it in many values: in CT 0, resampled padding 0.05, doubled 0.1
PADDING = 3  # bins of padding, which is one value, or two by two programs
FAT = (-290, -50)  # HU from and to, where fat shows: at -120 to -80, doubled at -240 to -170
LOWEST_FAT = -170
PEAK = 1.5  # times the ends of that range: without fat it only rises towards soft tissue
AIR, HALVED_AIR = (-1110, -710), (-610, -390)
LEAST_AIR, MOST_HALVED = 0.001, 0.05  # shares; of CT 0.03 lies where halved air is, of halved CT 0.15


def scale_findings(array: np.ndarray) -> Findings:
    """Judge whether int16 values (slices, H, W) are a multiple of HU: findings of the checks air and soft_tissue."""
    planes = array[:: -(-len(array) // PLANES)]
    # By slice, since int32 takes twice the memory.
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
