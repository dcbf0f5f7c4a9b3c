"""Pretraining: the encoder that comes out, what its batch norms saw, the same bytes twice, cases that are refused."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision import models

from kidney_ssl import finetune, pretrain
from kidney_ssl.engine import evaluated_epochs
from kidney_ssl.engine.batches import Part, Slices
from kidney_ssl.engine.checkpoint import Checkpoint
from kidney_ssl.engine.loop import TrainingContext
from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import Options, Picture, Pretext, Setting
from kidney_ssl.methods.oracle import Method as Oracle
from kidney_ssl.methods.rotation import Method as Rotation
from kidney_ssl.metrics.probes import probe_accuracy
from kidney_ssl.models.resnet import classifier, encoder
from kidney_ssl.pretext import Shown
from tests.random_state import global_random_state
from tests.unit.engine.toy_study import toy_part
from tests.unit.methods.stand_ins import Teacher

SETTING = Setting("resnet18", 32, {"left": (0.0, 1.0, 0.0, 0.5), "right": (0.0, 1.0, 0.5, 1.0)}, 0, 0.5)
PLATEAU = {"factor": 0.5, "patience": 0}
RECIPE = pretrain.Recipe(epochs=2, min_updates=0, batch_size=4, learning_rate=1e-3, evaluations=9, weight_decay=1e-5)
METHOD = [
    "epoch",
    "train_loss",
    "train_accuracy",
    "train_learning_rate",
    "validation_loss",
    "validation_accuracy",
    "validation_accuracy_chance",
]
PROBE = ["probe_majority_accuracy"]
PROBE += [f"probe_{kind}_{name}" for kind in ("knn", "linear") for name in ("accuracy", "auroc_against_kidney")]


class Toy(Pretext):
    """A weight for a network; what comes in is noted, which the preflight would refuse, and given back as figures."""

    one_slice_per_case = True

    def __init__(self):
        super().__init__(SETTING, Options())
        self.encoder = encoder("resnet18", 0)[0]
        self.weight = nn.Parameter(torch.ones(1))
        self.batches, self.epochs = [], 0

    def step(self, images, generator):
        self.batches.append(images.mean((1, 2, 3)).tolist())
        return self.weight.pow(2).sum(), {"size": torch.tensor(float(len(images)))}

    def validate(self, images, generator):
        drawn = torch.rand(len(images), generator=generator)
        self.epochs += 1
        return {"loss": torch.full((len(images),), float(self.epochs)), "mean": images.mean((1, 2, 3)), "draw": drawn}

    def pictures(self, images, generator):
        return {"slices": Picture(images, ("slice",))}


class Sighted(Toy):
    """The same, given masks: their means are noted with those of the images they came with."""

    reads_masks = True

    def step(self, images, generator):
        self.batches.append(pairs(images))
        return self.weight.pow(2).sum(), {}

    def validate(self, images, generator):
        self.shown = [*getattr(self, "shown", []), *pairs(images)]
        return {"loss": images.mean((1, 2, 3))}

    def pictures(self, images, generator):
        self.pictured = pairs(images)
        return {}


def pairs(images):
    """Means of each slice and of its mask."""
    assert images.shape[1] == 2
    return [tuple(means) for means in images.mean((2, 3)).tolist()]


def numbered(count, first_case):
    """Slices whose images and masks both tell which slice it is, so that a mask of another would be seen."""
    part = toy_part(count, first_case)
    number = first_case // 10 + np.arange(1, count + 1)
    images = np.broadcast_to(number[:, None, None] / 128, part.images.shape).astype(np.float16)
    return Part(images, part.frame, np.broadcast_to(number[:, None, None], images.shape).astype(np.uint8))


@pytest.fixture
def run(parts, start, tmp_path, fabric, monkeypatch):
    """Pretrain on the toy study, evaluated after each epoch, and write into a folder of its own."""

    def run(name="a", *, method=None, pool=None, parts=parts, start=start, share=100, **changes):
        given = {field: changes.pop(field) for field in ("seed", "checkpoint_seconds", "compiled") if field in changes}
        recipe = {key: changes.pop(key) for key in list(changes) if hasattr(RECIPE, key)}
        context = TrainingContext(fabric, "pretrain-toy-0", 0, tmp_path / name / "checkpoint.pt")
        monkeypatch.setattr(evaluated_epochs, "SHARE", share)
        if isinstance(method, Toy):
            monkeypatch.setattr(pretrain, "preflight", lambda *_: None)
        result = pretrain.pretrain(
            method or Rotation(SETTING, Options()),
            pool or parts["train"],
            {name: parts[name] for name in ("train", "validation")},
            start,
            tmp_path / name / "encoder.safetensors",
            recipe=replace(RECIPE, **recipe),
            context=replace(context, **given),
            forbidden={name: parts[name].frame for name in ("validation", "test")},
            **changes,
        )
        context.checkpoint.unlink(missing_ok=True)
        return result

    return run


@pytest.fixture
def written(tmp_path):
    """The bytes of the encoder in a folder."""
    return lambda name: (tmp_path / name / "encoder.safetensors").read_bytes()


@pytest.fixture
def encoder_of(tmp_path):
    """The encoder's tensors in a folder."""
    return lambda name="a": load_file(tmp_path / name / "encoder.safetensors")


@pytest.fixture
def trained(monkeypatch):
    """The arguments of each training, and the network's weights as it began."""
    calls = []
    for module in (pretrain, finetune):

        def spy(context, task, slices, optimizer, *, train=module.train, **options):
            begun = {name: tensor.clone() for name, tensor in task.state_dict().items()}
            calls.append({"begun": begun, "optimizer": optimizer, **options})
            return train(context, task, slices, optimizer, **options)

        monkeypatch.setattr(module, "train", spy)
    return calls


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_case_of_validation_or_test_in_the_pool_is_refused(run, parts, tmp_path, name):
    own, other = parts["train"], parts[name]
    pool = Part(np.concatenate([own.images, other.images[:1]]), pd.concat([own.frame, other.frame[:1]]))
    case = other.frame["case"].iloc[0]
    with pytest.raises(InputError, match=f"{case} is in the pretraining pool and in {name}"):
        run(pool=pool, start=tmp_path / "not read")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch looks at what it is about to compile
def test_networks_are_compiled_where_it_is_asked_for_and_nothing_else_is(run, written, monkeypatch):
    monkeypatch.setattr("kidney_ssl.engine.device.BACKEND", "eager")  # a compiler takes minutes
    plain, compiled = Rotation(SETTING, Options()), Rotation(SETTING, Options())
    run("a", method=plain)
    run("b", method=compiled, compiled=True)
    of_each = [[module._compiled_call_impl is not None for module in method.children()] for method in (plain, compiled)]
    assert of_each == [[False, False], [True, True]]
    assert compiled._compiled_call_impl is None
    assert written("a") == written("b")


def test_the_encoder_moves_into_the_classifier_and_finetuning_begins_with_exactly_it(
    run, trained, parts, tmp_path, fabric
):
    run()
    state = load_file(tmp_path / "a" / "encoder.safetensors")
    found = classifier("resnet18", 0).load_state_dict(state, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == (["fc.weight", "fc.bias"], [])
    finetune.finetune(
        {name: Slices(part, device=fabric.device) for name, part in parts.items()},
        tmp_path / "a" / "encoder.safetensors",
        tmp_path / "finetuned",
        recipe=finetune.Recipe(
            network="resnet18",
            epochs=1,
            batch_size=4,
            learning_rates=[1e-3],
            weight_decay=0,
            min_updates=0,
            evaluations=1,
            batch_norm_momentum=0.5,
        ),
        context=TrainingContext(fabric, "toy", 0, tmp_path / "a.pt"),
    )
    begun = trained[-1]["begun"]
    assert {name.removeprefix("model.") for name in begun} == {*state, "fc.weight", "fc.bias"}
    for name, tensor in state.items():
        assert torch.equal(begun[f"model.{name}"], tensor), name


def test_training_begins_with_the_start_weights_and_changes_them(run, start, encoder_of, trained):
    run()
    for name, tensor in load_file(start).items():
        assert torch.equal(trained[0]["begun"][f"method.encoder.{name}"], tensor), name
    assert not torch.equal(encoder_of()["conv1.weight"], load_file(start)["conv1.weight"])


@pytest.mark.parametrize("batch_size", [2, 4, 9])
def test_batch_norm_statistics_are_those_of_clean_training_slices(run, parts, encoder_of, batch_size):
    run(batch_size=batch_size, epochs=1, probe=probe_accuracy)
    state = encoder_of()
    # torchvision's own network in training mode; momentum None is the plain average over batches.
    model = models.resnet18(num_classes=1)
    model.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    model.load_state_dict(state, strict=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    images = torch.from_numpy(parts["train"].images).float()[:, None]
    # Of about one size, each with slices of all cases: never a last batch of a single slice.
    batches = {2: 4, 4: 3, 9: 1}[batch_size]
    for number in range(batches):
        model.train()(images[number::batches])
    for name, tensor in model.state_dict().items():
        if "running" in name:
            assert torch.allclose(state[name], tensor, rtol=1e-2, atol=2e-3), name
    with torch.no_grad():
        first = [model.conv1(images[number::batches]) for number in range(batches)]
    means = torch.stack([maps.mean((0, 2, 3)) for maps in first]).mean(0)
    assert torch.allclose(state["bn1.running_mean"], means, atol=1e-5)
    if batches > 1:  # a plain average of each batch's unbiased variance
        variances = torch.stack([maps.transpose(0, 1).flatten(1).var(1) for maps in first]).mean(0)
        assert torch.allclose(state["bn1.running_var"], variances, rtol=1e-4)


def test_the_probe_changes_nothing(run, written):
    with_probe = run("a", probe=probe_accuracy)
    without = run("b")
    assert written("a") == written("b")
    assert with_probe.curves.drop(columns=PROBE).equals(without.curves)


def test_the_probe_sees_features_of_the_cleaned_encoder_beside_their_labels(run, parts, encoder_of):
    seen = []

    def probe(*given):
        seen.append(given)
        return {"figure": 0.5}

    classes = ["tumor", "background", "kidney", "background", "kidney", "background"]
    parts["validation"] = replace(parts["validation"], frame=parts["validation"].frame.assign(**{"class": classes}))
    run(probe=probe)
    model = classifier("resnet18", 0)
    model.load_state_dict(encoder_of(), strict=False)
    model.fc = nn.Identity()
    found = {}
    for name, features, labels in (("train", *seen[-1][:2]), ("validation", *seen[-1][2:4])):
        with torch.no_grad():
            expected = model.eval()(torch.from_numpy(parts[name].images).float()[:, None]).numpy()
        found[name] = [int(np.abs(expected - feature).mean(1).argmin()) for feature in features]
        assert sorted(found[name]) == list(range(len(expected)))
        assert np.allclose(features, expected[found[name]], atol=1e-3)
        assert labels.tolist() == parts[name].frame["label"].to_numpy()[found[name]].tolist()
    assert seen[-1][4].tolist() == [classes[row] != "background" for row in found["validation"]]


def test_labels_are_read_by_the_probe_alone(run, parts, written):
    turned = {name: Part(part.images, part.frame.assign(label=1 - part.frame["label"])) for name, part in parts.items()}
    first = run("a", probe=probe_accuracy)
    second = run("b", parts=turned, probe=probe_accuracy)
    assert written("a") == written("b")
    assert first.curves[METHOD].equals(second.curves[METHOD])


def test_the_curves_have_the_methods_figures_and_the_probes_of_evaluated_epochs(run):
    curves = run(probe=probe_accuracy, evaluations=2, epochs=3).curves
    assert sorted(curves.columns) == sorted(METHOD + PROBE)
    assert list(curves.columns[:2]) == ["epoch", "train_loss"]
    assert curves["epoch"].tolist() == [1, 2, 3]
    for name in METHOD + PROBE:
        evaluated = name.startswith(("validation", "probe"))
        assert curves[name].isna().tolist() == [evaluated, False, False]


def test_evaluations_before_the_last_take_no_more_of_a_training_than_their_share(run, parts):
    # An evaluation takes the validation slices and, at most 512, the training slices twice, a third of a step each.
    method = Toy()
    one = 2 * (len(parts["train"].frame) + len(parts["validation"].frame)) / 3
    curves = run(
        method=method, probe=probe_accuracy, epochs=9, share=3.5 * one / (9 * len(parts["train"].frame))
    ).curves
    assert curves["validation_loss"].dropna().index.tolist() == [2, 4, 6, 8]


def test_evaluation_changes_nothing_of_the_training(run, written):
    first, second = (
        run(name, probe=probe_accuracy, epochs=3, evaluations=evaluations) for name, evaluations in (("a", 3), ("b", 1))
    )
    assert written("a") == written("b")
    assert first.curves.iloc[-1].equals(second.curves.iloc[-1])


def test_one_seed_gives_the_same_bytes_and_no_global_random_state_is_touched(run, written, tmp_path):
    before = global_random_state()
    first = run("a", probe=probe_accuracy)
    same = run("b", probe=probe_accuracy, resident="never")
    run("c", seed=1)
    assert written("a") == written("b") != written("c")
    assert first.curves.equals(same.curves)
    assert torch.equal(first.pictures["rotations"].images, same.pictures["rotations"].images)
    assert global_random_state() == before


MODERN = {"optimizer": "adamw", "weight_decay": 0.05, "decay_norms": False, "schedule": "cosine", "clip": 1.0}
RECIPES = {
    "plateau": {"schedule": "plateau", "plateau": PLATEAU},
    "modern": MODERN | {"warmup": 0.2},
    "in the middle of warm-up": MODERN | {"optimizer": "lars", "warmup": 0.9},
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("task", [Rotation, Oracle])
def test_a_killed_pretraining_is_continued_to_the_same_bytes(run, written, monkeypatch, task, recipe):
    options = {"probe": probe_accuracy, **recipe}
    whole = run("whole", method=task(SETTING, Options()), **options)
    save, files = Checkpoint.save, []

    def killed(self, state):
        save(self, state)
        files.append(self.path)
        if len(files) == 3:  # in the middle of the second epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run("cut", method=task(SETTING, Options()), checkpoint_seconds=0, **options)
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError):
        written("cut")
    resumed = run("cut", method=task(SETTING, Options()), **options)
    assert written("cut") == written("whole")
    assert resumed.curves.equals(whole.curves)
    assert (whole.slices, whole.images) == (resumed.slices, 18) == (18, 18)
    assert resumed.images == 9 - 4  # the second epoch but for its first batch


@pytest.mark.parametrize(("images", "epochs"), [(1, 1), (13, 1), (14, 2), (45, 5), (None, 3)])
def test_images_are_trained_on_to_the_nearest_epoch_whatever_epochs_and_updates_say(run, images, epochs):
    result = run(method=Toy(), epochs=3, min_updates=0 if images is None else 77, images=images)
    assert len(result.curves) == epochs
    assert (result.slices, result.images) == (9 * epochs, 9 * epochs)


def test_masks_are_those_of_the_slices_that_they_come_with(run, parts):
    parts = {"train": numbered(9, 0), "validation": numbered(6, 100), "test": parts["test"]}
    for by_case in (True, False):
        method = Sighted()
        method.one_slice_per_case = by_case
        run(method=method, parts=parts, batch_size=3, epochs=2)
        seen = [pair for batch in method.batches for pair in batch]
        assert all(mask == 128 * image for image, mask in [*seen, *method.shown, *method.pictured])
        assert {mask for _, mask in seen} == set(range(1, 10))
        assert sorted(mask for _, mask in method.shown) == sorted([*range(11, 17)] * 2)
        assert [mask for _, mask in method.pictured] == [*range(11, 17)]


def test_masks_are_those_of_their_slices_after_a_kill_too(run, parts, monkeypatch):
    parts = {"train": numbered(9, 0), "validation": numbered(6, 100), "test": parts["test"]}
    save = Checkpoint.save

    def killed(self, state):
        save(self, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", killed)
    first, second = Sighted(), Sighted()
    first.one_slice_per_case = second.one_slice_per_case = False
    with pytest.raises(KeyboardInterrupt):
        run("cut", method=first, parts=parts, batch_size=3, epochs=1, checkpoint_seconds=0)
    monkeypatch.undo()
    run("cut", method=second, parts=parts, batch_size=3, epochs=1)
    seen = [pair for batch in first.batches + second.batches for pair in batch]
    assert all(mask == 128 * image for image, mask in seen)
    assert (len(first.batches), sorted(mask for _, mask in seen)) == (1, [*range(1, 10)])


def test_only_a_method_that_reads_masks_sees_them(run, parts):
    bare = {name: Part(part.images, part.frame) for name, part in parts.items()}
    run(method=Toy(), parts=bare, epochs=1)
    for absent in ("train", "validation"):
        name = {"train": "the pretraining pool"}.get(absent, absent)
        with pytest.raises(InputError, match=f"^pretrain-toy-0: the method reads masks, and there are none of {name}:"):
            run(method=Sighted(), parts=parts | {absent: bare[absent]})


def test_epochs_are_raised_to_the_least_number_of_updates(run):
    result = run(method=Toy(), epochs=1, min_updates=7)  # 9 slices: 3 batches
    assert (len(result.curves), result.updates, result.slices, result.images) == (3, 9, 27, 27)
    result = run(method=Toy(), epochs=4, min_updates=7)
    assert (len(result.curves), result.updates, result.slices) == (4, 12, 36)


@pytest.mark.parametrize(
    ("schedule", "plateau", "rate"),
    [("constant", PLATEAU, 1.0), ("plateau", PLATEAU, 0.125), ("plateau", {"factor": 0.1, "patience": 1}, 0.1)],
)
def test_a_plateau_of_the_validation_loss_lowers_the_rate(run, trained, schedule, plateau, rate):
    run(method=Toy(), epochs=4, learning_rate=1e-3, schedule=schedule, plateau=plateau)
    assert trained[0]["optimizer"].param_groups[0]["lr"] == pytest.approx(1e-3 * rate)


def test_a_cosine_ends_with_the_training_however_its_epochs_were_raised(run, trained):
    result = run(method=Toy(), epochs=1, min_updates=7, learning_rate=1e-3, schedule="cosine")
    assert result.updates == 9
    expected = [1e-3 * (1 + math.cos(math.pi * update / 9)) / 2 for update in (2, 5, 8)]
    assert result.curves["train_learning_rate"].tolist() == pytest.approx(expected)
    assert trained[0]["optimizer"].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_figures_are_means_over_slices_and_validation_draws_alike_in_every_epoch(run, parts):
    result = run(method=Toy(), epochs=2, batch_size=5)
    expected = parts["validation"].images.astype(np.float64).mean()
    assert result.curves["validation_mean"].tolist() == pytest.approx([expected] * 2, rel=1e-5)
    assert result.curves["validation_draw"].nunique() == 1
    assert result.curves["train_size"].tolist() == pytest.approx([(5 * 5 + 4 * 4) / 9] * 2)


def test_a_contrastive_method_sees_a_case_once_in_a_batch(run):
    # Each case has slices of one grey value.
    cases = np.repeat(np.arange(6), 4)
    images = np.broadcast_to((cases[:, None, None] + 1) / 8, (24, 32, 32)).astype(np.float16)
    frame = pd.DataFrame({"case": cases.astype(str), "slice": np.arange(24), "class": "tumor", "label": 1})
    method = Toy()
    run(method=method, pool=Part(images, frame))
    assert len(method.batches) == 12
    assert all(len(set(batch)) == len(batch) == 4 for batch in method.batches)


def test_a_few_validation_slices_are_pictured(run, parts):
    parts |= {"validation": toy_part(40, 100)}
    picture = run(method=Toy(), parts=parts, epochs=1).pictures["slices"]
    shown = [0, 7, 15, 23, 31, 39]  # spread from the first row to the last
    assert np.array_equal(picture.images[:, 0].numpy(), parts["validation"].images[shown].astype(np.float32))


def test_clean_slices_are_spread_over_the_training_rows(run, parts, encoder_of, monkeypatch):
    monkeypatch.setattr(pretrain, "CLEAN", 3)
    run(epochs=1)
    state = encoder_of()
    images = torch.from_numpy(parts["train"].images[[0, 4, 8]]).float()[:, None]
    means = nn.functional.conv2d(images, state["conv1.weight"], stride=2, padding=3).mean((0, 2, 3))
    assert torch.allclose(state["bn1.running_mean"], means, atol=1e-5)


@pytest.mark.parametrize("maps", [True, False])
def test_features_of_an_encoder_that_gives_maps_are_averaged_over_the_last(maps):
    given = [torch.rand(2, 1, 8, 8), torch.arange(24.0).reshape(2, 3, 2, 2)]

    class Encoder(nn.Module):
        def forward(self, images):
            return given if maps else given[-1]

    assert pretrain.features(Encoder(), given[0]).tolist() == [[1.5, 5.5, 9.5], [13.5, 17.5, 21.5]]


def test_slices_of_a_pool_are_held_without_labels(run, parts, written):
    frame = parts["train"].frame[["case", "slice"]]
    run("a", epochs=1, pool=Part(parts["train"].images, frame))
    run("b", epochs=1)
    assert written("a") == written("b")


def test_the_preflight_changes_no_bit(run, written, monkeypatch):
    looked = run("looked", probe=probe_accuracy)
    monkeypatch.setattr(pretrain, "preflight", lambda *_: None)
    unlooked = run("unlooked", probe=probe_accuracy)
    assert written("looked") == written("unlooked")
    assert looked.curves.equals(unlooked.curves)


def test_the_preflight_is_made_once_and_not_again_after_a_kill(run, monkeypatch):
    looks, save = [], Checkpoint.save
    monkeypatch.setattr(pretrain, "preflight", lambda *_: looks.append(0))

    def killed(self, state):
        save(self, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run("cut", checkpoint_seconds=0)
    monkeypatch.setattr(Checkpoint, "save", save)
    run("cut")
    assert looks == [0]


def test_a_broken_promise_stops_before_the_first_step(run, trained):
    class Broken(Rotation):
        def step(self, images, generator):
            return super().step(images, generator)[0], {"accuracy": torch.zeros(2)}

    with pytest.raises(InputError, match=r"^pretrain-toy-0: .*test_pretrain.py: step gives a `accuracy` of shape"):
        run(method=Broken(SETTING, Options()))
    assert not trained


class Later(Rotation):
    """Its pictures fail only once it has trained."""

    def __init__(self, setting, options, failing):
        super().__init__(setting, options)
        self.failing = failing
        self.register_buffer("steps", torch.zeros(()))

    def step(self, images, generator):
        self.steps += 1
        return super().step(images, generator)

    def pictures(self, images, generator):
        return self.failing(images) if self.steps > 3 else super().pictures(images, generator)


@pytest.mark.parametrize(
    ("failing", "line"),
    [
        (lambda images: images[99], "pictures: all: left out .IndexError: index 99"),
        (lambda images: {"a": Picture(images, ())}, "pictures: a: left out .images of shape"),
        (lambda images: {"b/c": Picture(images, ("slice",))}, "pictures: b/c: left out .its name"),
    ],
)
def test_pictures_that_fail_cost_no_finished_training(run, written, failing, line):
    with pytest.warns(UserWarning, match=f"^pretrain-toy-0: {line}"):
        result = run(method=Later(SETTING, Options(), failing))
    assert result.pictures == {}
    assert len(result.curves) == 2
    assert written("a")


class Watched(Teacher):
    """Notes in buffers what it was told."""

    def __init__(self, setting, options):
        super().__init__(setting, options)
        self.register_buffer("told", torch.zeros(2, 8))
        self.register_buffer("followed", torch.zeros(8))

    def step(self, batch, generator):
        self.told[:, batch.update] = torch.tensor([batch.update, batch.updates]).float()
        return super().step(batch, generator)

    def after_step(self, update, updates):
        super().after_step(update, updates)
        self.followed[update] += 1


def test_a_method_knows_the_update_and_its_teacher_follows_each_step(run):
    method = Watched(SETTING, Options())
    run(method=method, epochs=3)  # of 9 slices: 2 batches
    assert method.told[0].tolist() == [0, 1, 2, 3, 4, 5, 0, 0]
    assert method.told[1].tolist() == [6] * 6 + [0, 0]
    assert method.followed.tolist() == [1] * 6 + [0, 0]


def test_a_teacher_begins_with_the_start_weights_and_is_what_is_exported(run, start, encoder_of, trained):
    method = Watched(SETTING, Options())
    run(method=method)
    for name, tensor in load_file(start).items():
        assert torch.equal(trained[0]["begun"][f"method.teacher.{name}"], tensor), name
    teacher, student = method.teacher.state_dict(), method.encoder.state_dict()
    assert all(torch.equal(tensor, teacher[name]) for name, tensor in encoder_of().items())
    assert not torch.equal(teacher["conv1.weight"], student["conv1.weight"])
    # It moved, and by less than its pupil.
    begun = load_file(start)["conv1.weight"]
    assert 0 < (teacher["conv1.weight"] - begun).norm() < (student["conv1.weight"] - begun).norm()


def test_groups_have_rates_and_decays_relative_to_the_recipe(run, trained):
    run(method=Watched(SETTING, Options()), learning_rate=1e-3, weight_decay=1e-2)
    groups = trained[0]["optimizer"].param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-3, 1e-2), (1e-2, 0)]
    assert sum(len(group["params"]) for group in groups) == len(list(encoder("resnet18", 0)[0].parameters())) + 4


def test_a_method_that_reads_the_batch_is_shown_the_places_of_its_slices(fabric):
    cases = ["b", "a", "b", "a", "b", "c"]
    frame = pd.DataFrame(
        {
            "case": cases,
            "slice": [7, 3, 2, 1, 4, 0],
            "position": [0.7, 0.3, 0.2, 0.1, 0.4, 0.0],
            "thickness_mm": [5.0, 2.0, 5.0, 2.0, 5.0, 1.0],
        }
    )
    images = toy_part(6, 0).images
    slices = Slices(Part(images, frame), device=fabric.device)
    shown = Shown(Watched(SETTING, Options()), slices, 9)
    batch = shown(slices.batch(torch.tensor([4, 1, 5]))._replace(update=3))
    assert torch.equal(batch.images[:, 0], torch.from_numpy(images[[4, 1, 5]]).float())
    assert batch.rows.tolist() == [4, 1, 5]
    assert batch.case.tolist() == [1, 0, 2]
    assert batch.position.tolist() == pytest.approx([0.4, 0.3, 0.0])
    assert batch.z_mm.tolist() == [20.0, 6.0, 0.0]
    assert batch.neighbors.tolist() == [[2, 0], [3, -1], [-1, -1]]
    assert (batch.update, batch.updates) == (3, 9)
    assert torch.equal(batch.read(batch.neighbors[0])[:, 0], torch.from_numpy(images[[2, 0]]).float())
