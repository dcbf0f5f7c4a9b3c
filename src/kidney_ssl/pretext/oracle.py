"""Oracle, a control: a U-Net segments kidney, tumour and cyst, from the masks of the training slices.

It is supervised, by far more than a label a slice, and so no contender. It is there because a study in which even this
encoder helps no classifier at a small label budget could not have shown that any pretraining helps.

All four labels of KiTS are told apart, since the classifier must tell a tumour from a cyst and from bare kidney: a
target of tumour alone would not ask for that. The loss is cross-entropy plus Dice, as nnU-Net's (Isensee et al. 2021),
which won the KiTS challenges. Dice counts a small tumour as much as a whole kidney, so no weights of classes are
needed.

The U-Net's skip connections carry details past the encoder's last map, which is all that a classifier reads: so that
the last map knows of tumours too, a 1 x 1 convolution on it must tell which labels lie in each of its cells (deep
supervision, Lee et al. 2015, as nnU-Net has it at the coarser maps of the decoder).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, binary_cross_entropy_with_logits, one_hot

from kidney_ssl.data.selection import CYST, TUMOR
from kidney_ssl.models.unet import unet
from kidney_ssl.pretext.base import Options, Picture, Pretext, Setting, pixels

LABELS = CYST + 1  # 0 none, 1 kidney, 2 tumour, 3 cyst
SMOOTH = 1.0  # pixels added to both sides of Dice's quotient: a label that is neither there nor predicted costs nothing


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy plus Dice.

    The mean over pixels of -log p_y, plus the mean over kidney, tumour and cyst of
    1 - (2 sum(p_c t_c) + 1) / (sum(p_c) + sum(t_c) + 1), where p is the softmax and t_c whether y = c.

    Args:
        logits: (B, 4, S, S) float32.
        masks: (B, S, S) int64, y in 0 to 3.

    Returns:
        (B,), per image.
    """
    logs, t = logits.log_softmax(1), one_hot(masks, LABELS).movedim(3, 1)
    # Written out: torch's own of images has no deterministic form on a GPU.
    entropy = -(logs * t).sum(1).mean((1, 2))
    p, t = logs[:, 1:].exp(), t[:, 1:]
    both, total = (p * t).sum((2, 3)), (p + t).sum((2, 3))
    return entropy + (1 - (2 * both + SMOOTH) / (total + SMOOTH)).mean(1)


def coarse_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy of whether kidney, tumour and cyst lie in each cell of a coarse map.

    Args:
        logits: (B, 3, h, w) float32.
        masks: (B, S, S) int64, in 0 to 3.

    Returns:
        (B,), per image.
    """
    held = adaptive_max_pool2d(one_hot(masks, LABELS).movedim(3, 1)[:, 1:].float(), logits.shape[-2:])
    return binary_cross_entropy_with_logits(logits, held, reduction="none").mean((1, 2, 3))


def overlap(marked: Tensor, truth: Tensor) -> Tensor:
    """Dice of two areas, 2 |A and B| / (|A| + |B|): 1 where both are empty, as KiTS23's evaluation counts.

    Args:
        marked: (B, S, S) bool.
        truth: (B, S, S) bool.

    Returns:
        (B,) in [0, 1].
    """
    total = (marked.sum((1, 2)) + truth.sum((1, 2))).float()
    return torch.where(total > 0, 2 * (marked & truth).sum((1, 2)) / total.clamp_min(1), 1)


def areas(labels: Tensor) -> dict[str, Tensor]:
    """The areas that are judged, (B, S, S) bool by name: KiTS's kidney and masses together, and the tumour."""
    return {"kidney": labels > 0, "tumor": labels == TUMOR}


class Method(Pretext):
    """A U-Net with four logits a pixel, and three a cell of its encoder's last map."""

    control = True
    reads_masks = True

    def __init__(self, setting: Setting, options: Options) -> None:
        """Build the network."""
        super().__init__(setting, options)
        self.unet = unet(setting.network, setting.seed, classes=LABELS, batch_norm_momentum=setting.batch_norm_momentum)
        self.encoder = self.unet.get_submodule("encoder")
        width = int(self.encoder.out_channels[-1])  # type: ignore[index] # a Module's attribute to mypy
        with torch.random.fork_rng(devices=[]):  # from the seed, and torch's global generator stays as it was
            torch.default_generator.manual_seed(setting.seed)
            self.coarse = nn.Conv2d(width, LABELS - 1, kernel_size=1)
        self.boxes = [pixels(region, setting.image_size, side) for side, region in setting.regions.items()]

    def _segment(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, 4, S, S) of pixels and (B, 3, h, w) of cells, and the masks (B, S, S) int64 that came along."""
        maps = self.encoder(images[:, :1])
        logits = self.unet.get_submodule("segmentation_head")(self.unet.get_submodule("decoder")(maps))
        return logits.float(), self.coarse(maps[-1]).float(), images[:, 1].long()

    def step(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, per image and then the mean, and Dice of the tumour; nothing is drawn."""
        logits, cells, masks = self._segment(images)
        found = overlap(logits.detach().argmax(1) == TUMOR, masks == TUMOR)
        loss = segmentation_loss(logits, masks) + coarse_loss(cells, masks)
        return loss.mean(), {"dice_tumor": found.mean()}

    def validate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss, and Dice of each area beside that of two answers that look at no slice.

        `none` marks nothing, which is right wherever there is nothing; `regions` marks both kidney regions.
        """
        logits, cells, masks = self._segment(images)
        found = {"loss": segmentation_loss(logits, masks) + coarse_loss(cells, masks)}
        boxes = torch.zeros_like(masks, dtype=torch.bool)
        for top, bottom, left, right in self.boxes:
            boxes[:, top:bottom, left:right] = True
        for name, marked in areas(logits.argmax(1)).items():
            truth = areas(masks)[name]
            for guess, area in {"": marked, "_none": torch.zeros_like(truth), "_regions": boxes}.items():
                found[f"dice_{name}{guess}"] = overlap(area, truth)
        return found

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """Slices, their masks and what the network makes of the slices; from grey to white kidney, tumour, cyst."""
        logits, _, masks = self._segment(images)
        shown = [images[:, 0], masks / (LABELS - 1), logits.argmax(1) / (LABELS - 1)]
        return {"segmented": Picture(torch.stack(shown, 1), ("slice", "mask", "segmented"))}
