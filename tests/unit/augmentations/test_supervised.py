"""Labels agree with what images hold, and neither squares nor seams tell them.

The toy's pixels say whose they are (`toy_training`): black is a square, another slice's value is a paste, and a value
above SEEN is tumor. So nearly all is read off the images, not off what the augmentation says of itself.
"""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kidney_ssl.augmentations.supervised import Method, blur, move
from kidney_ssl.data.phantom import make_case
from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import pixels
from tests.unit.augmentations.toy_training import REGIONS, SMALL, TUMOR, Toy, generator

SEEN = 0.5
MANY = 12  # epochs, where shares are compared
ERRORS = 4  # standard errors that a figure may be off: a chance of 6 in 100,000 each
PARTS = {"even": (24, 24), "few_positives": (12, 36), "many_positives": (30, 18)}


@cache
def toy(part="even", size=64):
    positives, negatives = PARTS[part]
    return Toy(size=size, positives=positives, negatives=negatives)


@cache
def built(part="even", size=64, rows=None, kind=Method, **options):
    used = None if rows is None else np.array(rows)
    return kind(toy(part, size).training(used), Method.Parameters(**options))


class Epochs:
    """Everything about a few epochs, batch after batch, concatenated."""

    def __init__(self, method, source, rows, epochs=8):
        drawn, found = generator(5), []
        batches = [batch for epoch in range(epochs) for batch in source.epoch(rows, epoch)]
        for images, labels, numbers in batches:
            found.append(method(images, labels, numbers, drawn))
        self.images, self.labels, self.rows = (torch.cat([batch[part] for batch in batches]) for part in range(3))
        self.after = torch.cat([one.images for one in found])
        self.new = torch.cat([one.labels for one in found])
        self.marks = {key: torch.cat([one.marks[key] for one in found]) for key in found[0].marks}
        self.black = self.after == 0
        self.pasted = (self.after != self.images) & ~self.black
        self.tumor = torch.from_numpy(source.masks[self.rows.numpy()] == TUMOR)[:, None]

    def seams(self):
        return self.pasted.flatten(1).any(1)


@cache
def epochs(part="even", size=64, count=8, kind=Method, **options):
    return Epochs(
        built(part, size, kind=kind, **options), toy(part, size), np.arange(len(toy(part, size).labels)), count
    )


def difference_is_chance(marked, labels):
    """Two shares differ by no more than ERRORS binomial standard errors, sqrt(p (1 - p) (1 / n1 + 1 / n0))."""
    one, zero = marked[labels == 1].double(), marked[labels == 0].double()
    share = marked.double().mean()
    error = (share * (1 - share) * (1 / len(one) + 1 / len(zero))).sqrt()
    return abs(one.mean() - zero.mean()) <= ERRORS * error


@pytest.mark.parametrize(("part", "size"), [("even", 64), ("even", 96), ("few_positives", 64), ("many_positives", 64)])
def test_a_label_says_whether_tumor_is_seen(part, size):
    run = epochs(part, size, 4)
    assert torch.equal((run.after > SEEN).flatten(1).any(1), run.new == 1)
    marks, own = run.marks, run.labels == 1
    assert torch.equal(run.new == 1, own & ~marks["covered"] | marks["pasted"])
    assert torch.equal(marks["pasted"] ^ marks["sham"], run.seams())
    assert not (marks["covered"] & ~own).any()
    assert run.marks["covered"].any()
    assert run.marks["pasted"].any()


@pytest.mark.parametrize(("part", "size"), [("even", 64), ("even", 96), ("many_positives", 64)])
def test_a_tumor_is_covered_whole_or_keeps_every_pixel(part, size):
    run = epochs(part, size, 4)
    kept, gone = (run.tumor & which[:, None, None, None] for which in (~run.marks["covered"], run.marks["covered"]))
    assert torch.equal(run.after[kept], run.images[kept])
    assert (run.after[gone] == 0).all()
    assert (torch.from_numpy(toy(part, size).tumor_px)[run.rows[run.marks["covered"]]] < SMALL).all()


def test_a_pasted_tumor_is_never_under_a_square():
    method, run = built(), toy()
    pasted = 0
    for number, (images, labels, rows) in enumerate(run.epoch(np.arange(len(run.labels)), 3)):
        plan = method.draw_plan(labels, rows, method.draw_chances(labels, rows, generator(number)), generator(9))
        found = method.apply(images, plan)[plan.pasted_into]
        stencil = plan.stencil & plan.placed[:, None, None, None]
        assert (found[stencil] > 0).all()
        pasted += int((plan.placed & plan.tumor).sum())
        middle = stencil & plan.tumor[:, None, None, None] & (blur(stencil.float(), 1) == 1)
        of_source = torch.from_numpy(run.images[plan.source.numpy()].max((1, 2)))[:, None, None, None]
        # A tumor pixel of that very slice.
        assert torch.allclose(found[middle], of_source.expand_as(found)[middle], atol=1e-6)
    assert pasted > 10


@pytest.mark.parametrize("size", [64, 96])
def test_squares_are_fifths_of_the_side_one_a_component_and_one_free(size):
    run, side = epochs("even", size, 4), round(0.2 * size)
    single = run.marks["squares"] == 1
    for mask in run.black[single, 0].numpy():
        assert mask.sum() == side * side
        assert mask.any(0).sum() == mask.any(1).sum() == side
    assert not run.black[run.marks["squares"] == 0].any()
    covered = run.marks["covered"]
    components = (built("even", size).donors.boxes[run.rows][..., 1] > 0).sum(1)
    squares = components + run.marks["removed"]
    assert torch.equal(run.marks["squares"][covered], squares[covered])
    assert set(components[covered].tolist()) == {1, 2}


def test_pastes_lie_inside_a_region_and_come_from_other_cases():
    run, source, method = epochs(), toy(), built()
    inside = torch.zeros(64, 64, dtype=torch.bool)
    for name, region in REGIONS.items():
        top, bottom, left, right = pixels(region, 64, name)
        inside[top:bottom, left:right] = True
    assert not (run.pasted & ~inside).any()
    for number, (_, labels, rows) in enumerate(source.epoch(np.arange(len(source.labels)), 1)):
        plan = method.draw_plan(labels, rows, method.draw_chances(labels, rows, generator(number)), generator(number))
        own, given = rows[plan.pasted_into], plan.source
        assert (source.cases[own.numpy()] != source.cases[given.numpy()])[plan.placed.numpy()].all()


def test_rows_that_take_no_part_are_never_read():
    source = Toy(cases=6)
    taking = np.flatnonzero(source.cases < "case_00003")[::2]
    method = Method(source.training(taking), Method.Parameters())
    Epochs(method, source, taking, 2)
    assert source.read == set(taking)


@pytest.mark.parametrize("part", PARTS)
def test_squares_and_seams_are_as_frequent_in_both_classes_alone_and_together(part):
    run = epochs(part, 64, MANY)
    seams, squares = run.seams(), run.marks["squares"]
    assert torch.equal(squares > 0, run.black.flatten(1).any(1))
    assert 0.1 < seams.double().mean() < 0.4
    assert difference_is_chance(seams, run.new)
    for number in range(int(squares.max()) + 1):
        for seam in (True, False):
            assert difference_is_chance((squares == number) & (seams == seam), run.new), (number, seam)


@pytest.mark.parametrize("part", PARTS)
def test_prevalence_stays(part):
    run = epochs(part, 64, MANY)
    relabelled = (run.new != run.labels).double().mean()
    assert relabelled > 0.04
    # A sum of independent draws of -1, 0 and 1, whose variance is at most the share that is not 0.
    assert abs((run.new - run.labels).double().mean()) <= ERRORS * (relabelled / len(run.new)).sqrt()


class WithoutShams(Method):
    def draw_plan(self, labels, rows, chances, generator):
        plan = super().draw_plan(labels, rows, chances, generator)
        return plan._replace(placed=plan.placed & plan.tumor)


class WithoutDecoys(Method):
    def draw_plan(self, labels, rows, chances, generator):
        plan = super().draw_plan(labels, rows, chances, generator)
        squares = plan.squares.clone()
        squares[labels == 0, :-1] = 0
        return plan._replace(squares=squares)


class FreeAnywhere(Method):
    def draw_plan(self, labels, rows, chances, generator):
        # Negative slices that stay as they are avoid no tumor but their own, which is none.
        anywhere = torch.where(chances.changed, chances.positive, rows)
        return super().draw_plan(labels, rows, chances._replace(positive=anywhere), generator)


class FreeAsInLarge(Method):
    """Negative slices that stay as they are avoid large tumors alone, as if all small ones were covered."""

    def draw_chances(self, labels, rows, generator):
        self._staying = (~self.donors.coverable[self.donors.positives]).double().cumsum(0)
        return super().draw_chances(labels, rows, generator)


def free_squares(kind, part):
    """How far AUROCs are from 0.5, in standard errors, if the label is told by what a lone free square lies on.

    The two scores of a slice: how often its black pixels are tumor in positive slices, and how much oftener small.
    """
    run, source = epochs(part, 64, MANY, kind, remove=1.0), toy(part)
    lone = ~run.seams()
    labels, black = run.new[lone].numpy(), run.black[lone, 0].flatten(1).float()
    error = np.sqrt((len(labels) + 1) / (12 * labels.sum() * (1 - labels).sum()))
    small = (source.tumor_px > 0) & (source.tumor_px < SMALL)
    large = source.tumor_px > SMALL
    small, large = (torch.from_numpy((source.masks[rows] == TUMOR).mean(0)) for rows in (small, large))
    heats = small + large, small - large
    return [(roc_auc_score(labels, black @ heat.flatten().float()) - 0.5) / error for heat in heats]


@pytest.mark.parametrize("part", PARTS)
def test_a_free_square_avoids_in_negative_slices_what_it_avoids_in_positive_ones(part):
    assert np.abs(free_squares(Method, part)).max() < ERRORS


@pytest.mark.parametrize("kind", [FreeAnywhere, FreeAsInLarge])
def test_a_free_square_would_tell_the_label_if_it_avoided_nothing_or_other_tumors(kind):
    assert np.abs(free_squares(kind, "even")).max() > ERRORS


def probes(kind, part="even"):
    """AUROC of two classifiers that see where squares and seams are, on the half they were not fitted to."""
    run = epochs(part, 64, MANY, kind)
    coarse = [torch.nn.functional.adaptive_avg_pool2d(mask.float(), 8).flatten(1) for mask in (run.black, run.pasted)]
    line = torch.arange(64.0)
    centres = [
        (mask.sum(axis)[:, 0] * line).sum(1) / mask.sum((1, 2, 3)).clamp_min(1)
        for mask in (run.black, run.pasted)
        for axis in (2, 3)
    ]
    seen = torch.column_stack([run.marks["squares"], run.seams(), *centres, *coarse]).numpy()
    labels, half = run.new.numpy(), len(run.new) // 2
    models = (
        make_pipeline(StandardScaler(), LogisticRegression(C=0.01)),
        HistGradientBoostingClassifier(max_iter=40, random_state=0),
    )
    scores = [
        roc_auc_score(labels[half:], model.fit(seen[:half], labels[:half]).predict_proba(seen[half:])[:, 1])
        for model in models
    ]
    ones = labels[half:].sum()
    zeros = half - ones
    return scores, np.sqrt((ones + zeros + 1) / (12 * ones * zeros))  # of the Mann-Whitney statistic under chance


@pytest.mark.parametrize("part", PARTS)
def test_where_squares_and_seams_lie_does_not_tell_the_label(part):
    scores, error = probes(Method, part)
    assert np.abs(np.array(scores) - 0.5).max() < ERRORS * error, scores


@pytest.mark.parametrize("kind", [WithoutShams, WithoutDecoys])
def test_the_probes_find_the_label_without_shams_or_without_decoys(kind):
    scores, error = probes(kind)
    assert max(scores) > 0.5 + ERRORS * error, scores


def test_rates_are_the_thesis_ones():
    source, run = toy(), epochs(count=MANY)
    small = torch.from_numpy(source.tumor_px < SMALL)[run.rows] & (run.labels == 1)
    coverable = built().donors.coverable[run.rows]
    assert not (coverable & ~small).any()
    assert coverable.sum() > 0.9 * small.sum()  # two that touch do not fit under a square
    assert abs(run.marks["removed"].double().mean() - 0.5) < ERRORS * 0.5 / len(run.new) ** 0.5
    method = built()
    assert method.cover == 0.35
    assert method.paste == pytest.approx(0.35 * method.donors.coverable.sum().item() / source.labels.sum())
    covered, number = run.marks["covered"][coverable].double(), int(coverable.sum())
    tried = covered.mean() + (run.marks["no_room"][coverable] > 0).double().mean()
    assert covered.mean() <= 0.35 + ERRORS * (0.35 * 0.65 / number) ** 0.5
    assert tried >= 0.35 - ERRORS * (0.35 * 0.65 / number) ** 0.5


def test_covering_is_rarer_where_there_are_too_few_negative_slices_to_paste_into():
    source = Toy(cases=4, positives=40, negatives=8, large=0.0)
    method = Method(source.training(), Method.Parameters())
    assert method.cover == pytest.approx(8 / 40)
    assert method.change_positive == pytest.approx(1.0)  # all others get another tumor
    assert method.paste == pytest.approx(method.donors.coverable.sum().item() / 160)


def test_with_a_single_case_there_is_no_donor_and_only_free_squares_are_made():
    source = Toy(cases=1, positives=32, negatives=32, large=0.0)
    method = Method(source.training(), Method.Parameters(remove=0.0))
    run = Epochs(method, source, np.arange(64), 4)
    assert torch.equal(run.after, run.images)
    assert torch.equal(run.new, run.labels)
    share = (run.marks["no_room"] == 1).double().mean()
    assert abs(share - 0.35) < ERRORS * (0.35 * 0.65 / len(run.new)) ** 0.5
    run = Epochs(Method(source.training(), Method.Parameters()), source, np.arange(64), 2)
    assert run.black.any()
    assert not run.pasted.any()


def test_where_each_square_would_touch_tumor_none_is_removed():
    source = Toy(cases=3, positives=8, negatives=8)
    source.masks[source.labels == 1, ::6, ::6] = TUMOR  # a square of 13 pixels holds some of these
    method = Method(source.training(), Method.Parameters(remove=1.0, cover=0.0))
    run = Epochs(method, source, np.arange(len(source.labels)), 1)
    assert torch.equal(run.after, run.images)
    assert (run.marks["no_room"] == 1).all()
    assert not run.marks["removed"].any()


def test_without_coverable_tumors_nothing_is_pasted_either():
    source = Toy(cases=3, positives=8, negatives=8)
    method = Method(source.training(), Method.Parameters(small_px=0))
    run = Epochs(method, source, np.arange(len(source.labels)), 4)
    assert torch.equal(run.new, run.labels)
    assert not run.pasted.any()
    assert not run.marks["no_room"].any()


def test_a_stencils_edge_is_a_mean_over_a_square_and_a_shift_repeats_the_frames_edge():
    stencil = torch.rand(3, 1, 20, 20, generator=generator()) < 0.3
    expected = [uniform_filter(one[0].double().numpy(), 5, mode="constant") for one in stencil]
    assert np.allclose(blur(stencil.float(), 2)[:, 0].numpy(), expected, atol=1e-6)
    assert torch.equal(blur(stencil.float(), 0), stencil.float())
    images = torch.rand(1, 1, 6, 6, generator=generator())
    found = move(images, torch.tensor([[2, -1]]))
    for row in range(6):
        for column in range(6):
            assert found[0, 0, row, column] == images[0, 0, min(row + 2, 5), max(column - 1, 0)]


def test_wrong_input_is_refused_in_one_line():
    source = Toy(cases=2, positives=4, negatives=4)
    with pytest.raises(InputError, match="with and without tumor: give more cases"):
        Method(source.training(np.flatnonzero(source.labels)), Method.Parameters())
    with pytest.raises(InputError, match=r"square 0.995 leaves nothing of 64 x 64 pixels"):
        Method(source.training(), Method.Parameters(square=0.995))
    with pytest.raises(InputError, match=r"region 'right' .* holds no pixel"):
        Method(source.training(regions={**REGIONS, "right": (0.5, 0.5, 0.1, 0.9)}), Method.Parameters())


class Phantom(Toy):
    """Slices of a few phantom cases."""

    def __init__(self, cases=5, size=64):
        self.size, self.read = size, set()
        images, masks, names = [], [], []
        for number in range(cases):
            hu, mask, _ = make_case(number, size=size, slices=0.6, seed=1)
            images.append(np.clip((hu + 150) / 400, 0, 1).astype(np.float32))
            masks.append(mask.astype(np.uint8))
            names += [f"case_{number:05}"] * len(mask)
        self.images, self.masks, self.cases = np.concatenate(images), np.concatenate(masks), np.array(names)
        self.tumor_px = (self.masks == TUMOR).sum((1, 2))
        self.labels = (self.tumor_px > 0).astype(np.int64)


def test_on_the_phantom_covered_tumors_are_black_and_others_untouched():
    source = Phantom()
    keep = np.flatnonzero((source.tumor_px == 0) | (source.tumor_px >= 20))
    run = Epochs(Method(source.training(keep), Method.Parameters(small_px=120)), source, keep, 6)
    assert run.marks["covered"].sum() > 3
    assert run.marks["pasted"].sum() > 3
    gone = run.tumor & run.marks["covered"][:, None, None, None]
    assert (run.after[gone] == 0).all()
    kept = run.tumor & ~run.marks["covered"][:, None, None, None]
    assert torch.equal(run.after[kept], run.images[kept])
    changed = (run.after != run.images).flatten(1).any(1)
    assert changed[run.marks["pasted"] | run.marks["covered"]].all()
