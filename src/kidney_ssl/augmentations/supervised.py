"""Supervised augmentation (thesis, 3.5 and Fig. 11): squares, covered tumors, pasted tumors. It reads masks.

Covering a tumor and pasting one change the label, so that a square or a seam could tell the label by itself. Every
changed image therefore gets both, laid out by one and the same rule from a pair: a positive slice with a coverable
tumor and a negative slice. Squares are laid over the tumor of the first, and beside them a stencil, the outline of a
tumor of a third case, is laid into a region. Whichever of the two slices is changed, the squares and the stencil lie
alike; the stencil cuts either a tumor (label 1) or kidney, a sham (label 0). `docs/augmentation.md` has the argument
in full.
"""

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import avg_pool2d

from kidney_ssl.augmentations.base import Augmentation, Augmented, TrainingSet, before_and_after
from kidney_ssl.augmentations.donors import find_donors
from kidney_ssl.augmentations.places import box_corners, draw_corner, free_corners
from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import Options, Picture, pixels
from kidney_ssl.methods.boxes import below, boxes_at, pixels_of
from kidney_ssl.schema import MASK_TUMOR

Rate = Annotated[float, Field(ge=0, le=1)]


class SupervisedOptions(Options):
    """Options of `supervised`; all but the feather are the thesis's.

    Attributes:
        square: side of a square over the image's side.
        remove: share of images with a free square, which leaves the tumor alone.
        cover: share of coverable tumors that are covered; at most negative over positive slices, so that as many
            tumors can be pasted and as many seams made in both classes.
        small_px: tumor pixels of a slice on the native grid; from this on it is not covered, since a large tumor
            deforms what is around it.
        feather: half the width of a pasted tumor's blurred edge over the image's side (ours); at least one pixel.
    """

    square: Annotated[float, Field(gt=0, lt=1)] = 0.2
    remove: Rate = 0.5
    cover: Rate = 0.35
    small_px: Annotated[int, Field(ge=0)] = 2500
    feather: Annotated[float, Field(ge=0, le=0.1)] = 0.01


class Chances(NamedTuple):
    """What is to be done to each of B images, (B,) bool each, and with whom, (B,) int64 rows."""

    # squares are to be laid over a tumor, its own or one that is not there, and something is to be pasted
    changed: Tensor
    tumor: Tensor  # that is a tumor; kidney otherwise
    removed: Tensor  # a free square is to be taken out
    positive: Tensor  # the slice whose tumor decides where squares lie: itself, or one drawn for it
    partner: Tensor  # the other slice of the pair; its case gives no donor either


class Plan(NamedTuple):
    """All that is to be done to B images, K of which are changed, as far as there is room."""

    squares: Tensor  # (B, C + 1, 4) int64, boxes to black out; the last is the free square, an empty box is none
    pasted_into: Tensor  # (K,) int64, the images with a paste
    stencil: Tensor  # (K, 1, S, S) bool, the outline of a tumor where it is pasted
    source: Tensor  # (K,) int64, the row whose grey values are pasted
    shift: Tensor  # (K, 2) int64, rows and columns from a pasted pixel on to where it lies in its source
    tumor: Tensor  # (K,) bool, what is pasted is a tumor
    placed: Tensor  # (K,) bool, False: there was no room
    labels: Tensor  # (B,) float32, after
    no_room: Tensor  # (B,) int64, operations left out


class Method(Augmentation):
    """Removes squares, covers small tumors, pastes tumors of other cases, and keeps all three from telling."""

    Parameters = SupervisedOptions

    def __init__(self, training: TrainingSet, options: SupervisedOptions) -> None:
        """Find tumors, boxes and kidneys of the training slices.

        Raises:
            InputError: the slices are of one class, a region holds no pixel, or the square fills the frame.
        """
        self.options, self.training = options, training
        size, device = training.image_size, training.device
        self.side = max(1, round(options.square * size))
        if self.side >= size:
            raise InputError(f"square {options.square} leaves nothing of {size} x {size} pixels: make it smaller")
        self.feather = max(1, round(options.feather * size)) if options.feather else 0
        boxes = [pixels(region, size, name) for name, region in sorted(training.regions.items())]
        self.regions = torch.tensor(boxes, device=device)
        room = [
            (bottom - top - 2 * self.feather, right - left - 2 * self.feather) for top, bottom, left, right in boxes
        ]
        self.donors = find_donors(training, side=self.side, small_px=options.small_px, room=room)
        self._find_rates()

    def _find_rates(self) -> None:
        """Find the rates that keep prevalence and make squares and seams as frequent in both classes.

        With P positive slices and Q negative ones, of which a share s of the positives is coverable and a share c of
        those is covered, pasting into c s P / Q of the negatives brings back as many positives. Of the positives after
        that c s are pasted ones; of the negatives c s P / Q are covered ones. The lesser share is filled up by changes
        that keep the label: a negative slice gets kidney pasted beside squares over nothing, a positive slice is
        covered and gets another tumor.
        """
        positives, negatives = self.donors.positives, self.donors.negatives
        coverable = self.donors.coverable[positives]
        odds, share = len(positives) / len(negatives), float(coverable.double().mean())
        self.cover = min(self.options.cover, 1 / odds)
        self.paste = self.cover * share * odds
        self.change_positive, self.change_negative = (self.cover * max(1, odds) * of for of in (1, share))
        self._coverable = positives[coverable] if share else positives
        # Positives that stay as they are: what a free square avoids in them it avoids as often in negatives.
        weight = 1 - self.change_positive * coverable.double()
        self._staying = (weight if weight.any() else torch.ones_like(weight)).cumsum(0)

    def draw_chances(self, labels: Tensor, rows: Tensor, generator: torch.Generator) -> Chances:
        """Draw what is to be done to each image, independently: a change, and a free square."""
        donors, own = self.donors, labels > 0.5
        change, removed = torch.rand((2, len(rows)), generator=generator, device=generator.device)
        changed = torch.where(
            own, donors.coverable[rows] & (change < self.change_positive), change < self.change_negative
        )
        coverable, negative = (self._one_of(table, rows, generator) for table in (self._coverable, donors.negatives))
        share = torch.rand(len(rows), dtype=torch.float64, generator=generator, device=generator.device)
        staying = torch.searchsorted(self._staying, share * self._staying[-1], right=True)
        staying = donors.positives[staying.clamp(max=len(donors.positives) - 1)]
        return Chances(
            changed=changed,
            tumor=torch.where(own, change >= self.cover, change < self.paste),
            removed=removed < self.options.remove,
            positive=torch.where(own, rows, torch.where(changed, coverable, staying)),
            partner=torch.where(own, negative, coverable),
        )

    @staticmethod
    def _one_of(table: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Draw an entry of a table (T,) for each of the rows (B,)."""
        return table[below(torch.full_like(rows, len(table)), generator)]

    def draw_plan(self, labels: Tensor, rows: Tensor, chances: Chances, generator: torch.Generator) -> Plan:
        """Draw where everything goes: squares over a tumor, the paste beside them, the free square beside both."""
        donors, size = self.donors, self.training.image_size
        tumor = self.training.masks(chances.positive) == MASK_TUMOR
        # The one look at the device: few images are pasted into, and the others need no donor.
        index = chances.changed.nonzero()[:, 0]
        pasted = chances.tumor[index]

        parts = donors.boxes[chances.positive[index]]
        first = (parts[..., 1::2] - self.side).clamp_min(0)
        last = parts[..., ::2].clamp_max(size - self.side)
        covering = boxes_at(first + below(last - first + 1, generator), self.side) * (parts[..., 1:2] > parts[..., :1])

        cases = donors.case[rows[index]], donors.case[chances.partner[index]]
        donor, has_donor = donors.tumors.draw(*cases, generator)
        kidney, has_kidney = donors.kidneys.draw(*cases, generator)
        box = donors.tumors.values[donor]
        begin, length = box[:, ::2], box[:, 1::2] - box[:, ::2]
        whole = length + 2 * self.feather
        corner, has_place = draw_corner(box_corners(whole, self.regions, covering, size), generator)
        place = corner + self.feather
        outline = donors.tumors.rows[donor]
        stencil = pixels_of(boxes_at(place, length)[:, None], size)
        if len(index):
            stencil = stencil & (move(self.training.masks(outline), begin - place) == MASK_TUMOR)

        placed = has_donor & has_kidney & has_place
        done = torch.zeros_like(chances.changed).index_put((index,), placed)

        avoided = tumor.index_put((index,), tumor[index] | (stencil & placed[:, None, None, None]))
        corner, has_free = draw_corner(free_corners(avoided, self.side), generator)
        free = boxes_at(corner, self.side) * (chances.removed & has_free)[:, None]
        squares = covering.new_zeros((len(rows), *covering.shape[1:]))
        squares = squares.index_put((index,), covering * placed[:, None, None])
        return Plan(
            squares=torch.cat([squares, free[:, None]], 1),
            pasted_into=index,
            stencil=stencil,
            source=torch.where(pasted, outline, donors.kidneys.rows[kidney]),
            shift=torch.where(pasted[:, None], begin, donors.kidneys.values[kidney] - length // 2) - place,
            tumor=pasted,
            placed=placed,
            labels=torch.where(done, chances.tumor.to(labels.dtype), labels),
            no_room=(chances.changed & ~done).long() + (chances.removed & ~has_free),
        )

    def apply(self, images: Tensor, plan: Plan) -> Tensor:
        """Paste with a feathered edge, then black the squares out: (B, 1, S, S) float32 in [0, 1]."""
        if len(plan.pasted_into):
            share = blur(plan.stencil.float(), self.feather) * plan.placed[:, None, None, None]
            old, new = images[plan.pasted_into], move(self.training.images(plan.source), plan.shift)
            images = images.index_put((plan.pasted_into,), old + share * (new - old))
        return images.masked_fill(pixels_of(plan.squares, images.shape[-1]), 0)

    def __call__(self, images: Tensor, labels: Tensor, rows: Tensor, generator: torch.Generator) -> Augmented:
        """Augment one batch.

        Marks: `squares`, all of an image; `removed`, whether a free one is among them; `covered`, its own tumor is
        under squares; `pasted`, a tumor of another case is pasted; `sham`, kidney of another case is; `no_room`,
        operations that were left out because there was no place, no donor or no other case.
        """
        plan = self.draw_plan(labels, rows, self.draw_chances(labels, rows, generator), generator)
        there = plan.squares[..., 1] > 0
        changed = torch.zeros_like(there[:, 0])
        pasted, sham = (
            changed.index_put((plan.pasted_into,), plan.placed & which) for which in (plan.tumor, ~plan.tumor)
        )
        marks = {
            "squares": there.sum(1),
            "removed": there[:, -1],
            "covered": (pasted | sham) & (labels > 0.5),
            "pasted": pasted,
            "sham": sham,
            "no_room": plan.no_room,
        }
        return Augmented(self.apply(images, plan), plan.labels, marks)

    def pictures(self, images: Tensor, labels: Tensor, rows: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """Each operation wherever it is possible, without what comes along with it, and the whole as it is drawn."""
        chances, own = self.draw_chances(labels, rows, generator), labels > 0.5
        never, nothing = torch.zeros_like(own), torch.zeros_like(rows)[:, None, None]
        free = chances._replace(changed=never, removed=~never)
        coverable = self._one_of(self._coverable, rows, generator)
        possible = chances._replace(
            changed=~own | self.donors.coverable[rows],
            tumor=~own,
            removed=never,
            positive=torch.where(own, rows, coverable),
            partner=torch.where(own, chances.partner, coverable),
        )
        both = self.draw_plan(labels, rows, possible, generator)
        plans = {
            "removed": self.draw_plan(labels, rows, free, generator),
            "covered": both._replace(squares=both.squares * own[:, None, None], placed=both.placed & False),
            "pasted": both._replace(squares=both.squares * nothing, placed=both.placed & both.tumor),
            "sham": both._replace(squares=both.squares * nothing, placed=both.placed & ~both.tumor),
            "whole": self.draw_plan(labels, rows, chances, generator),
        }
        return {name: before_and_after(images, self.apply(images, plan)) for name, plan in plans.items()}


def move(images: Tensor, shift: Tensor) -> Tensor:
    """Take each pixel of (K, 1, S, S) from `shift` (K, 2) rows and columns further on; the frame's edge is repeated."""
    line = torch.arange(images.shape[-1], device=images.device)
    rows, columns = ((line + shift[:, axis, None]).clamp(0, len(line) - 1) for axis in (0, 1))
    batch = torch.arange(len(images), device=images.device)
    return images[batch[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


def blur(stencil: Tensor, radius: int) -> Tensor:
    """Mean over squares of 2 radius + 1 pixels of (K, 1, S, S): a stencil's edge becomes a ramp of that width."""
    for window in ((2 * radius + 1, 1), (1, 2 * radius + 1)):
        stencil = avg_pool2d(stencil, window, stride=1, padding=(window[0] // 2, window[1] // 2))
    return stencil
