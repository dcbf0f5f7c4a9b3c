"""Pretraining: the encoder that comes out, what its batch norms saw, the same bytes twice, cases that are refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision import models

from kidney_ssl.errors import InputError
from kidney_ssl.evaluation.probes import probe_accuracy
from kidney_ssl.models.encoder import encoder
from kidney_ssl.models.resnet import classifier
from kidney_ssl.pretext.base import Options, Picture, Pretext, Setting
from kidney_ssl.pretext.oracle import Method as Oracle
from kidney_ssl.pretext.rotation import Method as Rotation
from kidney_ssl.training import finetune, pretrain
from kidney_ssl.training.batches import Part
from kidney_ssl.training.checkpoint import Checkpoint
from tests.random_state import global_random_state
from tests.training.toy_study import toy_part

SETTING = Setting("resnet18", 32, {"left": (0.0, 1.0, 0.0, 0.5), "right": (0.0, 1.0, 0.5, 1.0)}, 0, 0.5)
PLATEAU = pretrain.Plateau(0.5, 0)
METHOD = [
    "epoch",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "validation_accuracy_chance",
]
PROBE = ["probe_majority_accuracy", "probe_knn_accuracy", "probe_linear_accuracy"]


class Toy(Pretext):
    """A weight for a network; what comes in is noted and given back as figures."""

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
def run(parts, start, tmp_path, fabric):
    """Pretrain on the toy study and write into a folder of its own."""

    def run(name="a", *, method=None, pool=None, parts=parts, start=start, **changes):
        options = {
            "forbidden": {name: parts[name].frame for name in ("validation", "test")},
            "settings": {"method": "rotation"},
            "epochs": 2,
            "min_updates": 0,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "weight_decay": 1e-5,
            "plateau": None,
            "seed": 0,
            "label": "pretrain-toy-0",
            "checkpoints": tmp_path / name / "checkpoints",
        }
        return pretrain.pretrain(
            method or Rotation(SETTING, Options()),
            pool or parts["train"],
            {name: parts[name] for name in ("train", "validation")},
            start,
            tmp_path / name / "encoder.safetensors",
            fabric=fabric,
            **(options | changes),
        )

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

        def spy(fabric, task, slices, optimizer, *, train=module.train, **options):
            begun = {name: tensor.clone() for name, tensor in task.state_dict().items()}
            calls.append({"begun": begun, "optimizer": optimizer, **options})
            return train(fabric, task, slices, optimizer, **options)

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


def test_the_encoder_moves_into_the_classifier_and_finetuning_begins_with_exactly_it(
    run, trained, parts, tmp_path, fabric
):
    run()
    state = load_file(tmp_path / "a" / "encoder.safetensors")
    found = classifier("resnet18", 0).load_state_dict(state, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == (["fc.weight", "fc.bias"], [])
    finetune.finetune(
        parts,
        tmp_path / "a" / "encoder.safetensors",
        tmp_path / "finetuned",
        fabric=fabric,
        network="resnet18",
        epochs=1,
        batch_size=4,
        learning_rates=[1e-3],
        weight_decay=0,
        min_updates=0,
        evaluations=1,
        batch_norm_momentum=0.5,
        seed=0,
        label="toy",
        checkpoints=tmp_path / "checkpoints",
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

    run(probe=probe)
    model = classifier("resnet18", 0)
    model.load_state_dict(encoder_of(), strict=False)
    model.fc = nn.Identity()
    found = {}
    for name, features, labels in (("train", *seen[-1][:2]), ("validation", *seen[-1][2:])):
        with torch.no_grad():
            expected = model.eval()(torch.from_numpy(parts[name].images).float()[:, None]).numpy()
        found[name] = [int(np.abs(expected - feature).mean(1).argmin()) for feature in features]
        assert sorted(found[name]) == list(range(len(expected)))
        assert np.allclose(features, expected[found[name]], atol=1e-3)
        assert labels.tolist() == parts[name].frame["label"].to_numpy()[found[name]].tolist()


def test_labels_are_read_by_the_probe_alone(run, parts, written):
    turned = {name: Part(part.images, part.frame.assign(label=1 - part.frame["label"])) for name, part in parts.items()}
    first = run("a", probe=probe_accuracy)
    second = run("b", parts=turned, probe=probe_accuracy)
    assert written("a") == written("b")
    assert first.curves[METHOD].equals(second.curves[METHOD])


def test_the_curves_have_the_methods_figures_and_the_probes_when_it_is_asked(run):
    options = {"probe": probe_accuracy, "probe_every": 2, "epochs": 3}
    curves = run(**options).curves
    assert sorted(curves.columns) == sorted(METHOD + PROBE)
    assert list(curves.columns[:2]) == ["epoch", "train_loss"]
    assert curves["epoch"].tolist() == [1, 2, 3]
    assert not curves[METHOD].isna().any().any()
    for name in PROBE:
        assert curves[name].isna().tolist() == [True, False, False]  # the last epoch is always probed


def test_one_seed_gives_the_same_bytes_and_no_global_random_state_is_touched(run, written, tmp_path):
    before = global_random_state()
    first = run("a", probe=probe_accuracy)
    same = run("b", probe=probe_accuracy, resident="never")
    run("c", seed=1)
    assert written("a") == written("b") != written("c")
    assert first.curves.equals(same.curves)
    assert torch.equal(first.pictures["rotations"].images, same.pictures["rotations"].images)
    assert global_random_state() == before
    assert list((tmp_path / "a" / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("task", [Rotation, Oracle])
def test_a_killed_pretraining_is_continued_to_the_same_bytes(run, written, tmp_path, monkeypatch, task):
    options = {"plateau": PLATEAU, "probe": probe_accuracy}
    whole = run("whole", method=task(SETTING, Options()), **options)
    save, files = Checkpoint.save, []

    def killed(self, state):
        save(self, state)
        files.append(self.path)
        if len(files) == 4:  # in the middle of the second epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run("cut", method=task(SETTING, Options()), checkpoint_seconds=0, **options)
    monkeypatch.undo()
    assert files[-1].exists()
    assert not (tmp_path / "cut" / "encoder.safetensors").exists()
    resumed = run("cut", method=task(SETTING, Options()), **options)
    assert written("cut") == written("whole")
    assert resumed.curves.equals(whole.curves)
    assert not files[-1].exists()


def test_a_checkpoint_belongs_to_all_that_decides_the_training(run, parts, tmp_path, monkeypatch):
    files = []

    def killed(self, state):
        files.append(self.path.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", killed)
    other = Part(parts["train"].images[::-1].copy(), parts["train"].frame)
    changes = {"settings": {"option": 1}, "seed": 1, "plateau": PLATEAU, "weight_decay": 0.0, "probe_every": 2}
    same = {"resident": "never", "checkpoint_seconds": -1}
    for change in [{}, same, {"pool": other}, *({name: value} for name, value in changes.items())]:
        with pytest.raises(KeyboardInterrupt):
            run(**({"method": Toy(), "checkpoint_seconds": 0} | change))
    assert files[0] == files[1]
    assert len(set(files)) == 7


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


def test_a_checkpoint_belongs_to_the_masks_of_a_method_that_reads_them(run, parts, monkeypatch):
    files = []

    def killed(self, state):
        files.append(self.path.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", killed)
    studies = [parts]
    for name in ("train", "validation"):
        part = parts[name]
        studies.append(parts | {name: Part(part.images, part.frame, 3 - part.masks)})
    for method in (Sighted, Toy):
        for study in studies:
            with pytest.raises(KeyboardInterrupt):
                run(method=method(), parts=study, checkpoint_seconds=0)
    assert len(set(files[:3])) == 3
    assert len(set(files[3:])) == 1


def test_epochs_are_raised_to_the_least_number_of_updates(run):
    result = run(method=Toy(), epochs=1, min_updates=7)  # 9 slices: 3 batches
    assert (len(result.curves), result.updates, result.images) == (3, 9, 27)
    result = run(method=Toy(), epochs=4, min_updates=7)
    assert (len(result.curves), result.updates, result.images) == (4, 12, 36)


@pytest.mark.parametrize(("plateau", "rate"), [(None, 1.0), (PLATEAU, 0.125), (pretrain.Plateau(0.1, 1), 0.1)])
def test_a_plateau_of_the_validation_loss_lowers_the_rate(run, trained, plateau, rate):
    run(method=Toy(), epochs=4, learning_rate=1e-3, plateau=plateau)
    assert trained[0]["optimizer"].param_groups[0]["lr"] == pytest.approx(1e-3 * rate)


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
