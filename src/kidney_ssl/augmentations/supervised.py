"""Supervised augmentation (thesis, 3.5 and Fig. 11): squares, covered tumors, pasted tumors. It reads masks.

Covering and pasting tumors change the label, so a network could read the label off a square or a seam. Every changed
image therefore gets both, placed by the same rule from a pair of slices: a positive slice with a coverable tumor and a
negative slice. Squares cover the positions of the positive slice's tumor. Next to them, in a region, something is
pasted inside a stencil, the outline of a tumor of a third case. Squares and stencil have the same distribution of
positions whichever slice of the pair is changed. The pasted tissue is either a tumor (label 1) or kidney, a sham
(label 0). `docs/augmentation.md` has the full argument.
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
    """Options of `supervised`; all except the feather come from the thesis.

    Attributes:
        square: side of a square as a fraction of the image's side.
        remove: share of images with a free square, which does not touch the tumor.
        cover: share of coverable tumors that are covered; at most the ratio of negative to positive slices, so that
            equally many tumors can be pasted and both classes get equally many seams.
        small_px: tumor pixels of a slice on the native grid, from which on the tumor is not covered, since a large
            tumor deforms its surroundings.
        feather: half the width of a pasted tumor's blurred edge, as a fraction of the image's side (our addition); at
            least one pixel.
    """

    square: Annotated[float, Field(gt=0, lt=1)] = 0.2
    remove: Rate = 0.5
    cover: Rate = 0.35
    small_px: Annotated[int, Field(ge=0)] = 2500
    feather: Annotated[float, Field(ge=0, le=0.1)] = 0.01


class Chances(NamedTuple):
    """Operations drawn for each of B images, (B,) bool, and the rows of each image's pair, (B,) int64."""

    # squares are placed over its own tumor or at the positions of another slice's tumor, and tissue is pasted
    changed: Tensor
    tumor: Tensor  # whether the pasted tissue is a tumor; otherwise it is kidney
    removed: Tensor  # a free square is blacked out
    positive: Tensor  # the slice whose tumor gives the positions of the squares: the image itself or a drawn one
    partner: Tensor  # the other slice of the pair; its case is not used as a donor either


class Plan(NamedTuple):
    """All operations on B images, K of which are changed, as far as there is room."""

    squares: Tensor  # (B, C + 1, 4) int64, boxes to black out; the last is the free square; empty boxes are unused
    pasted_into: Tensor  # (K,) int64, the images with pasted tissue
    stencil: Tensor  # (K, 1, S, S) bool, the pixels that are pasted
    source: Tensor  # (K,) int64, the row whose grey values are pasted
    shift: Tensor  # (K, 2) int64, offset in rows and columns from a pasted pixel to its source pixel
    tumor: Tensor  # (K,) bool, whether the pasted tissue is a tumor
    placed: Tensor  # (K,) bool, False if there was no room
    labels: Tensor  # (B,) float32, after the changes
    no_room: Tensor  # (B,) int64, number of operations left out


class Method(Augmentation):
    """Blacks out squares, covers small tumors and pastes tumors of other cases, without artefacts that tell labels."""

    Parameters = SupervisedOptions

    def __init__(self, training: TrainingSet, options: SupervisedOptions) -> None:
        """Find tumors, boxes and kidneys of the training slices.

        Raises:
            InputError: all slices have one class, a region has no pixel, or the square fills the image.
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
        """Find the rates that keep the prevalence and make squares and seams equally frequent in both classes.

        There are P positive and Q negative slices; a share s of the positives is coverable, and a share c of those is
        covered. Pasting tumors into c s P / Q of the negatives restores the number of positives. Afterwards a share
        c s of the positives has a pasted tumor, and a share c s P / Q of the negatives has a covered one. The smaller
        share is raised by changes that keep the label: a negative slice gets squares and pasted kidney, or a positive
        slice is covered and gets another tumor.
        """
        positives, negatives = self.donors.positives, self.donors.negatives
        coverable = self.donors.coverable[positives]
        odds, share = len(positives) / len(negatives), float(coverable.double().mean())
        self.cover = min(self.options.cover, 1 / odds)
        self.paste = self.cover * share * odds
        self.change_positive, self.change_negative = (self.cover * max(1, odds) * of for of in (1, share))
        self._coverable = positives[coverable] if share else positives
        # Weights of unchanged positives: free squares in negatives avoid the tumors of slices drawn with these weights,
        # so that free squares have the same positions in both classes.
        weight = 1 - self.change_positive * coverable.double()
        self._staying = (weight if weight.any() else torch.ones_like(weight)).cumsum(0)

    def draw_chances(self, labels: Tensor, rows: Tensor, generator: torch.Generator) -> Chances:
        """Draw for each image, independently, whether it is changed and whether it gets a free square."""
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
        """Draw an entry of a table (T,) for each row of a batch (B,)."""
        return table[below(torch.full_like(rows, len(table)), generator)]

    def draw_plan(self, labels: Tensor, rows: Tensor, chances: Chances, generator: torch.Generator) -> Plan:
        """Draw all positions: squares over a tumor, pasted tissue outside them, the free square outside both."""
        donors, size = self.donors, self.training.image_size
        tumor = self.training.masks(chances.positive) == MASK_TUMOR
        # The only synchronisation with the device: few images get pasted tissue, and the others need no donor.
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
        """Paste with a feathered edge, then black out the squares: (B, 1, S, S) float32 in [0, 1]."""
        if len(plan.pasted_into):
            share = blur(plan.stencil.float(), self.feather) * plan.placed[:, None, None, None]
            old, new = images[plan.pasted_into], move(self.training.images(plan.source), plan.shift)
            images = images.index_put((plan.pasted_into,), old + share * (new - old))
        return images.masked_fill(pixels_of(plan.squares, images.shape[-1]), 0)

    def __call__(self, images: Tensor, labels: Tensor, rows: Tensor, generator: torch.Generator) -> Augmented:
        """Augment one batch.

        Marks: `squares`, number of squares; `removed`, whether one of them is free; `covered`, whether squares cover
        the image's own tumor; `pasted`, whether a tumor of another case is pasted; `sham`, whether kidney of another
        case is pasted; `no_room`, operations left out because there was no place, no donor or no other case.
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
        """Show each operation alone wherever it is possible, and all together as drawn."""
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
    """Move images (K, 1, S, S): each pixel comes from `shift` (K, 2) rows and columns further; edge pixels repeat."""
    line = torch.arange(images.shape[-1], device=images.device)
    rows, columns = ((line + shift[:, axis, None]).clamp(0, len(line) - 1) for axis in (0, 1))
    batch = torch.arange(len(images), device=images.device)
    return images[batch[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


def blur(stencil: Tensor, radius: int) -> Tensor:
    """Mean over squares of 2 radius + 1 pixels of (K, 1, S, S): a stencil's edge becomes a ramp of that width."""
    for window in ((2 * radius + 1, 1), (1, 2 * radius + 1)):
        stencil = avg_pool2d(stencil, window, stride=1, padding=(window[0] // 2, window[1] // 2))
    return stencil
