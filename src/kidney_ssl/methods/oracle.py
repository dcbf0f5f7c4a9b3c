"""Oracle, a control: a U-Net segments kidney, tumor and cyst, trained with the masks of the training slices.

It is supervised with far more than one label per slice, so it is not a candidate. If even this encoder does not help
the classifier at a small label budget, the study could not have shown that any pretraining helps.

The network distinguishes all four labels of KiTS, since the classifier must distinguish tumor from cyst and normal
kidney; a target of tumor alone would not require this. The loss is cross-entropy plus Dice, as in nnU-Net (Isensee et
al. 2021), which won the KiTS challenges. Dice gives a small tumor the same weight as a whole kidney, so class weights
are not needed.

The U-Net's skip connections carry details past the encoder's last feature map, which is all that a classifier reads.
Therefore a 1 x 1 convolution on this map predicts which labels occur in each of its pixels (deep supervision, Lee et
al. 2015, as in the decoder's coarser levels of nnU-Net).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, binary_cross_entropy_with_logits, one_hot

from kidney_ssl.methods.base import Options, Picture, Pretext, Setting, pixels
from kidney_ssl.methods.boxes import pixels_of
from kidney_ssl.models.resnet import seeded_weights
from kidney_ssl.models.unet import unet
from kidney_ssl.schema import MASK_CYST, MASK_TUMOR

LABELS = MASK_CYST + 1  # 0 none, 1 kidney, 2 tumor, 3 cyst
SMOOTH = 1.0  # pixels added to numerator and denominator of Dice: an absent label that is not predicted has a loss of 0


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy plus Dice of logits (B, 4, S, S) and masks y (B, S, S) int64 in 0 to 3: (B,).

    The mean over pixels of -log p_y, plus the mean over kidney, tumor and cyst of
    1 - (2 sum(p_c t_c) + 1) / (sum(p_c) + sum(t_c) + 1), where p is the softmax and t_c whether y = c.
    """
    logs, t = logits.log_softmax(1), one_hot(masks, LABELS).movedim(3, 1)
    # Written out, since torch's cross-entropy of images is not deterministic on a GPU.
    entropy = -(logs * t).sum(1).mean((1, 2))
    p, t = logs[:, 1:].exp(), t[:, 1:]
    both, total = (p * t).sum((2, 3)), (p + t).sum((2, 3))
    return entropy + (1 - (2 * both + SMOOTH) / (total + SMOOTH)).mean(1)


def coarse_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy for the labels in each pixel of a coarse map: (B, 3, h, w) and (B, S, S) -> (B,)."""
    held = adaptive_max_pool2d(one_hot(masks, LABELS).movedim(3, 1)[:, 1:].float(), logits.shape[-2:])
    return binary_cross_entropy_with_logits(logits, held, reduction="none").mean((1, 2, 3))


def overlap(marked: Tensor, truth: Tensor) -> Tensor:
    """Dice of two (B, S, S) bool areas, 2 |A and B| / (|A| + |B|), (B,): 1 where both are empty, as KiTS23 counts."""
    total = (marked.sum((1, 2)) + truth.sum((1, 2))).float()
    return torch.where(total > 0, 2 * (marked & truth).sum((1, 2)) / total.clamp_min(1), 1)


def areas(labels: Tensor) -> dict[str, Tensor]:
    """The evaluated areas, name -> (B, S, S) bool: kidney and masses together, as in KiTS, and the tumor."""
    return {"kidney": labels > 0, "tumor": labels == MASK_TUMOR}


class Method(Pretext):
    """A U-Net with four logits per pixel, and three logits per pixel of its encoder's last feature map."""

    control = True
    reads_masks = True

    def __init__(self, setting: Setting, options: Options) -> None:
        """Build the network."""
        super().__init__(setting, options)
        self.unet = unet(setting.network, setting.seed, classes=LABELS, batch_norm_momentum=setting.batch_norm_momentum)
        self.encoder = self.unet.encoder
        with seeded_weights(setting.seed):
            self.coarse = nn.Conv2d(self.unet.width, LABELS - 1, kernel_size=1)
        self.boxes = [pixels(region, setting.image_size, side) for side, region in setting.regions.items()]

    def _segment(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, 4, S, S), coarse logits (B, 3, h, w), and the masks (B, S, S) int64 from the input."""
        maps = self.unet.maps(images[:, :1])
        return self.unet.decode(maps).float(), self.coarse(maps[-1]).float(), images[:, 1].long()

    def step(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean of the images' losses, and Dice of the tumor; uses no random numbers."""
        logits, coarse, masks = self._segment(images)
        found = overlap(logits.detach().argmax(1) == MASK_TUMOR, masks == MASK_TUMOR)
        loss = segmentation_loss(logits, masks) + coarse_loss(coarse, masks)
        return loss.mean(), {"dice_tumor": found.mean()}

    def validate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss, and Dice of each area with that of two trivial predictors.

        `none` marks nothing, which is right in slices without the structure; `regions` marks the organ's regions.
        """
        logits, coarse, masks = self._segment(images)
        found = {"loss": segmentation_loss(logits, masks) + coarse_loss(coarse, masks)}
        boxes = pixels_of(torch.tensor([self.boxes], device=masks.device), masks.shape[-1])[:, 0].expand_as(masks)
        for name, marked in areas(logits.argmax(1)).items():
            truth = areas(masks)[name]
            for guess, area in {"": marked, "_none": torch.zeros_like(truth), "_regions": boxes}.items():
                found[f"dice_{name}{guess}"] = overlap(area, truth)
        return found

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """Slices, their masks and the network's segmentations; kidney, tumor and cyst from grey to white."""
        logits, _, masks = self._segment(images)
        shown = [images[:, 0], masks / (LABELS - 1), logits.argmax(1) / (LABELS - 1)]
        return {"segmented": Picture(torch.stack(shown, 1), ("slice", "mask", "segmented"))}
