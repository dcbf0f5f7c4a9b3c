"""The typed form of `params.yaml`: unknown keys refused, errors of one line naming the key.

Only the stages read it; the library gets plain values and paths. The meaning, unit and source of each key stand
above it in `params.yaml`, the one place where a person looks for them.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kidney_ssl.augmentation import AUGMENTATIONS
from kidney_ssl.errors import InputError
from kidney_ssl.pretext import METHODS

Share = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
CASE = r"^case_[A-Za-z0-9]+$"


class Section(BaseModel):
    """A block of params.yaml: no unknown key, no silent conversion of types, no change after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Data(Section):
    """Where the volumes come from and which cases take part."""

    source: Literal["phantom", "kits23", "directory"]
    root: str | None
    raw_dir: str
    cases: list[Annotated[str, Field(pattern=CASE)] | int] | Annotated[str, Field(pattern=r"^\d+-\d+$")] | None
    exclude: list[Annotated[str, Field(pattern=CASE)]]
    folds: Annotated[int, Field(ge=2)]
    fold: Annotated[int, Field(ge=0)]
    validation: Annotated[float, Field(gt=0, le=0.5)]
    seed: Seed

    @model_validator(mode="after")
    def _consistent(self) -> "Data":
        if self.fold >= self.folds:
            raise ValueError(f"fold must be below folds ({self.folds}), got {self.fold}")
        if self.source == "directory" and self.root is None:
            raise ValueError("root must name a folder when source is 'directory'")
        return self

    @property
    def store(self) -> Path:
        """The folder that holds case_XXXXX/: `root` of a directory source, else `raw_dir` with its variables filled in.

        Raises:
            InputError: `raw_dir` or `root` names an environment variable that is not set.
        """
        key = "root" if self.source == "directory" else "raw_dir"
        text = os.path.expandvars(str(getattr(self, key)))
        if "$" in text:
            raise InputError(f"data.{key}: {text!r} names an environment variable that is not set")
        return Path(text).expanduser()


class Phantom(Section):
    """The embedded study's volumes."""

    cases: Annotated[int, Field(ge=3, le=100_000)]
    size: Annotated[int, Field(ge=64, le=512)]
    slices: Positive
    seed: Seed


class Kits23(Section):
    """Where KiTS23 is downloaded from."""

    imaging_endpoint: str | None
    imaging_repository: str
    imaging_revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    labels_endpoint: str
    labels_repository: str
    labels_revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    connections: Count
    timeout: Positive


class Select(Section):
    """Which slices take part."""

    min_tumor_px: Count
    seed: Seed


class Slice(Section):
    """The standardised frame."""

    image_size: Annotated[int, Field(ge=32, le=1024)]
    body_hu: Annotated[int, Field(ge=-900, le=0)]
    body_opening_mm: Positive


# A list of the file becomes a tuple; its members stay strict.
Rectangle = Annotated[tuple[Fraction, Fraction, Fraction, Fraction], Field(strict=False)]


class Regions(Section):
    """The two kidney rectangles, searched for or given."""

    share: Annotated[float, Field(gt=0, le=1)]
    left: Rectangle | None
    right: Rectangle | None

    @model_validator(mode="after")
    def _both_or_none(self) -> "Regions":
        if (self.left is None) != (self.right is None):
            raise ValueError("give both left and right, or neither")
        for rectangle in (self.left, self.right):
            if rectangle and not (rectangle[0] < rectangle[1] and rectangle[2] < rectangle[3]):
                raise ValueError("a rectangle is [top, bottom, left, right] with top < bottom and left < right")
        return self


class Normalize(Section):
    """From HU to [0, 1]."""

    window: Annotated[tuple[float, float], Field(strict=False)] | None
    range: Literal["window", "image"]
    regions: Regions

    @field_validator("window")
    @classmethod
    def _ordered(cls, window: tuple[float, float] | None) -> tuple[float, float] | None:
        if window is not None and window[0] >= window[1]:
            raise ValueError(f"window is [low, high] with low < high, got {list(window)}")
        return window


class RandomWeights(Section):
    """Random initial weights."""

    seed: Seed


class ImagenetWeights(Section):
    """ImageNet weights by torchvision, or from a local file."""

    file: str | None


class Initialize(Section):
    """Initial weights by name; a study makes only those that it names."""

    random: RandomWeights
    imagenet: ImagenetWeights | None = None


class PlateauBlock(Section):
    """ReduceLROnPlateau."""

    factor: Share
    patience: Annotated[int, Field(ge=0)]


class Method(Section):
    """One pretraining: a method, what it starts from, and how long it trains."""

    method: Name
    start: Name
    seed: Seed
    epochs: Count
    min_updates: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Positive
    weight_decay: Annotated[float, Field(ge=0)]
    plateau: PlateauBlock | None
    options: dict[str, Any]

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"unknown method '{method}', known: {', '.join(METHODS)}")
        return method


class Pretrain(Section):
    """Pretraining without labels."""

    pool: Literal["selected", "all"]
    probe_every: Count
    methods: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+-\d+$")], Method]

    @model_validator(mode="after")
    def _seeds_in_names(self) -> "Pretrain":
        for name, block in self.methods.items():
            if not name.endswith(f"-{block.seed}"):
                raise ValueError(f"methods.{name}: the name must end with its seed, -{block.seed}")
        return self


class Arm(Section):
    """What an arm starts from, and how its training slices are augmented."""

    weights: Annotated[str, Field(pattern=r"^(initial/[a-z0-9_]+|pretrain/[a-z0-9_]+-\d+)$")]
    augmentation: Name
    options: dict[str, Any] = {}

    @field_validator("augmentation")
    @classmethod
    def _known(cls, augmentation: str) -> str:
        if augmentation not in AUGMENTATIONS:
            raise ValueError(f"unknown augmentation '{augmentation}', known: {', '.join(AUGMENTATIONS)}")
        return augmentation


class Finetune(Section):
    """Training of the classifier, the same for every arm."""

    epochs: Count
    min_updates: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=2)]
    learning_rates: Annotated[list[Positive], Field(min_length=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)]


class Analysis(Section):
    """What was decided before the figures were seen; the report prints it with its hash."""

    baseline: Name
    primary: Literal["auroc_against_kidney", "auroc", "accuracy", "f1"]
    contrasts: list[Annotated[tuple[Name, Name], Field(strict=False)]]
    margin: Share
    resamples: Annotated[int, Field(ge=100)]
    seed: Seed


class Explain(Section):
    """Which slices and which maps are shown and measured."""

    percent: Literal[100]
    seed: Seed
    layer: str
    same: Count
    errors: Annotated[int, Field(ge=0)]
    slices: Count


class Report(Section):
    """What stands beside this run's figures."""

    published: bool


class Compute(Section):
    """How the machine is used; `threads` and `precision` change trained bits, the rest does not."""

    workers: Count
    scheduler: str | None
    threads: Count
    precision: Literal["auto", "32", "bf16", "16"]
    device: Literal["auto", "cpu", "cuda"]
    resident: Literal["auto", "always", "never"]


class Params(Section):
    """The whole of params.yaml."""

    data: Data
    phantom: Phantom
    kits23: Kits23
    select: Select
    slice: Slice
    normalize: Normalize
    network: Literal["resnet18", "resnet34", "resnet50"]
    initialize: Initialize
    pretrain: Pretrain
    arms: Annotated[dict[Name, Arm], Field(min_length=1)]
    percents: Annotated[list[Literal[100]], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    finetune: Finetune
    analysis: Analysis
    explain: Explain
    report: Report
    compute: Compute

    @model_validator(mode="after")
    def _arms_have_weights(self) -> "Params":
        initial = [name for name, block in self.initialize if block is not None]
        known = [f"initial/{name}" for name in initial] + [f"pretrain/{name}" for name in self.pretrain.methods]
        for name, method in self.pretrain.methods.items():
            if method.start not in initial:
                raise ValueError(
                    f"pretrain.methods.{name}.start: unknown '{method.start}', known: {', '.join(initial)}"
                )
        for name, arm in self.arms.items():
            if arm.weights not in known:
                raise ValueError(f"arms.{name}.weights: unknown '{arm.weights}', known: {', '.join(known)}")
        plan = self.analysis
        compared = [("baseline", plan.baseline), *(("contrasts", one) for pair in plan.contrasts for one in pair)]
        for key, one in compared:
            if one not in self.arms:
                raise ValueError(f"analysis.{key}: unknown '{one}', known: {', '.join(self.arms)}")
        pairs = [frozenset(pair) for pair in plan.contrasts]
        if len(set(pairs)) < len(pairs) or any(len(pair) < 2 for pair in pairs):
            raise ValueError("analysis.contrasts: a pair stands there twice, or an arm against itself")
        if self.explain.percent not in self.percents:
            raise ValueError(f"explain.percent: {self.explain.percent} is none of percents, {self.percents}")
        if self.explain.seed not in self.seeds:
            raise ValueError(f"explain.seed: {self.explain.seed} is none of seeds, {self.seeds}")
        rates = self.finetune.learning_rates
        for key, values in (("percents", self.percents), ("seeds", self.seeds), ("finetune.learning_rates", rates)):
            if len(set(values)) < len(values):
                raise ValueError(f"{key}: a value stands there twice")
        return self


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check a parameter file.

    Raises:
        InputError: the file is missing, is no YAML mapping, or a key is unknown, missing or out of range; the
            one-line message names every such key.
    """
    path = Path(path)
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); run from the project's folder") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping of sections, see studies/ for complete files")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {'; '.join(_complaint(item) for item in error.errors())}") from None


def _complaint(item: Any) -> str:
    """One line for one of pydantic's findings: the dotted key, what is wrong, what was given."""
    # A union adds the name of the member that was tried to the path; a key of the file never has such a form.
    key = ".".join(str(part) for part in item["loc"] if isinstance(part, int) or str(part).replace("_", "").isalnum())
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    if item["type"] == "missing":
        return f"{key}: missing"
    given = "" if item["type"] == "value_error" else f", got {item['input']!r}"
    return f"{key}: {message}{given}" if key else message
