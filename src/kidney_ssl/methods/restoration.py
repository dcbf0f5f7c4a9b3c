"""Shared parts of the restoration tasks: a U-Net that undoes a perturbation, losses, metrics in the hole, pictures."""

from abc import abstractmethod
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from kidney_ssl.engine.processes import joint_mean
from kidney_ssl.methods.base import Options, Picture, Pretext, Setting
from kidney_ssl.methods.boxes import squares
from kidney_ssl.models.unet import unet

Fill = Literal["zero", "mean", "noise"]

HOLE = 0.2  # side of the removed square as a fraction of the image's side (thesis, 3.4.2)
TINY = 1e-6  # avoids division by zero
PSNR_FLOOR = 1e-6  # minimum of the mean squared error in PSNR, which is thus at most 60 dB
FLAT = 1e-4  # negligible mean squared step between neighbours: steps of 1 % of the grey range
WINDOW = 7  # side of the windows of structural similarity, scikit-image's default


class Perturbed(NamedTuple):
    """The network's input, its target, and the pixels where the two differ."""

    images: Tensor  # (B, 1, S, S) float32 in [0, 1], the network's input
    target: Tensor  # (B, 1, S, S) float32 in [0, 1]
    changed: Tensor  # (B, 1, S, S) bool: the hole; outside it `images` equals `target`


class RestorationOptions(Options):
    """Options of every restoration task.

    Attributes:
        loss: `dice` is that of the thesis; `mse` and `dice_squared` are for comparison.
        region: pixels used in the loss: the whole image (thesis) or the hole.
    """

    loss: Literal["dice", "dice_squared", "mse"] = "dice"
    region: Literal["image", "hole"] = "image"


def dice(restored: Tensor, target: Tensor, where: Tensor) -> Tensor:
    """Dice of plain sums, 1 - 2 sum(p t) / (sum p + sum t): Eq. 7 of the thesis as printed.

    For grey targets, its minimum is not the target but a binarised image: the quotient is monotone in each pixel, so
    p is 1 where t exceeds half of the attained Dice coefficient, else 0.

    Args:
        restored: p, (B, 1, S, S) in [0, 1].
        target: t, the same shape and range.
        where: the pixels to sum over, bool of the same shape.

    Returns:
        (B,) in [0, 1]; 0 where both are all zero.
    """
    apart = torch.where(where, restored + target - 2 * restored * target, 0).sum((1, 2, 3))
    both = torch.where(where, restored + target, 0).sum((1, 2, 3))
    return apart / both.clamp_min(TINY)


def dice_squared(restored: Tensor, target: Tensor, where: Tensor) -> Tensor:
    """Dice of squares, 1 - 2 sum(p t) / (sum p^2 + sum t^2) (V-Net, Milletari et al. 2016).

    Computed as the squared error over the summed energies; its minimum is p = t. See `dice`.
    """
    apart = torch.where(where, (restored - target).square(), 0).sum((1, 2, 3))
    both = torch.where(where, restored.square() + target.square(), 0).sum((1, 2, 3))
    return apart / both.clamp_min(TINY)


def mse(restored: Tensor, target: Tensor, where: Tensor) -> Tensor:
    """Mean squared error (Eq. 6); see `dice`."""
    return mean_where((restored - target).square(), where)


LOSSES = {"dice": dice, "dice_squared": dice_squared, "mse": mse}


def mean_where(values: Tensor, where: Tensor) -> Tensor:
    """Average each image's values (B, 1, H, W) over its marked pixels, bool of the same shape: (B,), 0 without any."""
    return torch.where(where, values, 0).sum((1, 2, 3)) / where.sum((1, 2, 3)).clamp_min(1)


def judged(changed: Tensor) -> Tensor:
    """The pixels to evaluate, (B, 1, S, S) bool: the changed ones, or all if none were changed."""
    return changed | ~changed.flatten(1).any(1)[:, None, None, None]


def psnr(error: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB from mean squared errors of images in [0, 1]; at most 60."""
    return -10 * error.clamp_min(PSNR_FLOOR).log10()


def ssim_map(restored: Tensor, target: Tensor) -> Tensor:
    """Structural similarity at each pixel (Wang et al. 2004), for images in [0, 1].

    Uses means and sample covariances in windows of 7 x 7 pixels with mirrored edges, as scikit-image's
    `structural_similarity(..., data_range=1, full=True)`, but for a batch on its device: (B, 1, S, S) in [-1, 1].
    """

    def local(values: Tensor) -> Tensor:
        half = WINDOW // 2
        for axis in (2, 3):
            size = values.shape[axis]
            before, after = values.narrow(axis, 0, half), values.narrow(axis, size - half, half)
            values = torch.cat([before.flip(axis), values, after.flip(axis)], axis)
        return avg_pool2d(values, WINDOW, stride=1)

    # float64, since variances are small differences of squares.
    p, t = restored.double(), target.double()
    mean_p, mean_t = local(p), local(t)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    var_p, var_t = sample * (local(p * p) - mean_p**2), sample * (local(t * t) - mean_t**2)
    cov = sample * (local(p * t) - mean_p * mean_t)
    c1, c2 = 0.01**2, 0.03**2
    similar = (2 * mean_p * mean_t + c1) * (2 * cov + c2) / ((mean_p**2 + mean_t**2 + c1) * (var_p + var_t + c2))
    return similar.float()


def gradient_energy(images: Tensor, where: Tensor) -> Tensor:
    """Mean squared step between horizontal and vertical neighbours, (B,), over pairs of marked pixels.

    Steps across the border of the marked area do not count, so that a seam does not count as sharpness.
    """
    total = count = torch.zeros(len(images), device=images.device)
    for axis in (2, 3):
        pairs = where.narrow(axis, 1, where.shape[axis] - 1) & where.narrow(axis, 0, where.shape[axis] - 1)
        total = total + torch.where(pairs, images.diff(dim=axis).square(), 0).sum((1, 2, 3))
        count = count + pairs.sum((1, 2, 3))
    return total / count.clamp_min(1)


def sharpness(restored: Tensor, target: Tensor, where: Tensor) -> Tensor:
    """Gradient energy of the restored hole divided by the original's: below 1 blurred, above 1 too sharp.

    `FLAT` is added to both energies, so that a hole in air that is restored flat gives 1. Arguments as for `dice`.
    """
    return (gradient_energy(restored, where) + FLAT) / (gradient_energy(target, where) + FLAT)


def metrics(restored: Tensor, target: Tensor, where: Tensor) -> dict[str, Tensor]:
    """Evaluate restorations in the hole only: each metric (B,).

    Structural similarity is averaged over the hole's pixels; outside the hole the restored image is the original.
    """
    error = mse(restored, target, where)
    return {
        "mse": error,
        "psnr": psnr(error),
        "ssim": mean_where(ssim_map(torch.where(where, restored, target), target), where),
        "sharpness": sharpness(restored, target, where),
    }


class Restoration(Pretext):
    """A U-Net that restores a perturbed slice. A subclass defines the perturbation.

    Attributes:
        unet: (B, 1, S, S) -> (B, 1, S, S) in (0, 1).
        average: (S * S,), mean of the training targets: a trivial predictor that does not look at the slice.
    """

    Parameters = RestorationOptions
    average: Tensor
    seen: Tensor

    def __init__(self, setting: Setting, options: RestorationOptions) -> None:
        """Build the network."""
        super().__init__(setting, options)
        self.options = options
        self.unet = unet(setting.network, setting.seed, batch_norm_momentum=setting.batch_norm_momentum)
        self.encoder = self.unet.encoder
        self.register_buffer("average", torch.zeros(setting.image_size**2))
        self.register_buffer("seen", torch.zeros(()))

    @abstractmethod
    def perturb(self, images: Tensor, generator: torch.Generator) -> Perturbed:
        """Perturb each image of (B, 1, S, S) with its own parameters."""

    def guesses(self, perturbed: Perturbed) -> dict[str, Tensor]:
        """Trivial restorations, name -> (B, 1, S, S): the input, the image's mean, the mean training image."""
        target = perturbed.target
        mean = target.mean((1, 2, 3), keepdim=True).expand_as(target)
        average = self.average.view_as(target[:1]).expand_as(target)
        return {"copy": perturbed.images, "mean": mean, "average": average}

    def _loss(self, restored: Tensor, target: Tensor, hole: Tensor) -> Tensor:
        where = hole if self.options.region == "hole" else torch.ones_like(hole)
        return LOSSES[self.options.loss](restored, target, where)

    def step(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean of the images' losses, and the squared error in the hole."""
        perturbed = self.perturb(images, generator)
        hole = judged(perturbed.changed)
        restored = self.unet(perturbed.images).float()
        with torch.no_grad():
            mean, number = joint_mean(perturbed.target.mean(0).flatten(), len(images))
            self.seen += number
            self.average += (mean - self.average) * (number / self.seen)
        loss = self._loss(restored, perturbed.target, hole).mean()
        return loss, {"mse": mse(restored.detach(), perturbed.target, hole).mean()}

    def validate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss and metrics in the hole of each image, for the U-Net and for each trivial restoration."""
        perturbed = self.perturb(images, generator)
        hole = judged(perturbed.changed)
        found: dict[str, Tensor] = {}
        for name, guess in {"": self.unet(perturbed.images).float(), **self.guesses(perturbed)}.items():
            measured = {"loss": self._loss(guess, perturbed.target, hole), **metrics(guess, perturbed.target, hole)}
            found |= {f"{metric}_{name}" if name else metric: value for metric, value in measured.items()}
        return found

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """Whole slices with the hole outlined, and the hole enlarged.

        If the loss only uses the hole, the network's output is shown only there.
        """
        perturbed = self.perturb(images, generator)
        hole = judged(perturbed.changed)
        restored, title = self.unet(perturbed.images).float(), "restored"
        if self.options.region == "hole":
            restored, title = torch.where(hole, restored, perturbed.target), "restored in the hole"
        shown, columns = torch.cat([perturbed.images, perturbed.target, restored], 1), ("perturbed", "original", title)
        outlined = None if hole.all() else hole[:, 0]
        return {"restored": Picture(shown, columns, outlined), "hole": Picture(enlarge(shown, hole), columns)}


def enlarge(images: Tensor, where: Tensor) -> Tensor:
    """Cut each row of images (B, C, S, S) to the square around its marked pixels (B, 1, S, S), enlarged to S."""
    size, found = images.shape[-1], []
    for row, marked in zip(images, where[:, 0], strict=True):
        lines = [marked.any(axis).nonzero()[:, 0].tolist() for axis in (1, 0)]
        side = max(line[-1] + 1 - line[0] for line in lines)
        # Centred on the marked pixels and moved into the image if necessary.
        top, left = (min(max((line[0] + line[-1] + 1 - side) // 2, 0), size - side) for line in lines)
        cut = row[None, :, top : top + side, left : left + side]
        found.append(interpolate(cut, (size, size), mode="nearest-exact"))
    return torch.cat(found)


def fill(images: Tensor, hole: Tensor, content: Fill, generator: torch.Generator) -> Tensor:
    """Replace the hole's pixels by zero, by the mean of the pixels outside, or by uniform noise in [0, 1)."""
    if content == "mean":
        new = mean_where(images, ~hole)[:, None, None, None]
    elif content == "noise":
        new = torch.rand(images.shape, generator=generator, device=images.device)
    else:
        new = torch.zeros((), device=images.device)
    return torch.where(hole, new, images)


class InpaintingOptions(RestorationOptions):
    """Options of inpainting; `fill` is the content of the hole: zero (thesis), the image's mean, or noise."""

    fill: Fill = "zero"


class Inpainting(Restoration):
    """A U-Net that fills a removed square with 20 % of the image's side. A subclass draws the square's position.

    The loss of the thesis is Dice as printed there.
    """

    Parameters = InpaintingOptions
    options: InpaintingOptions

    @abstractmethod
    def places(self, count: int, side: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the first row and first column of a square of `side` pixels for each image, (B,) int64 each."""

    def perturb(self, images: Tensor, generator: torch.Generator) -> Perturbed:
        """Remove one square per image."""
        size = images.shape[-1]
        side = round(HOLE * size)
        hole = squares(*self.places(len(images), side, size, generator), side, size)
        return Perturbed(fill(images, hole, self.options.fill, generator), images, hole)
