"""The typed form of `params.yaml`: unknown keys refused, errors of one line naming the key.

Only the stages read it; the library gets plain values and paths. The meaning, unit and source of each key stand
above it in `params.yaml`, the one place where a person looks for them.
"""

import os
import reprlib
from itertools import product
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    computed_field,
    field_validator,
    model_validator,
)

from kidney_ssl.augmentation import AUGMENTATIONS
from kidney_ssl.errors import InputError
from kidney_ssl.pretext import METHODS

Share = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Percent = Annotated[int, Field(ge=1, le=100)]
# A path or an address: never empty, no control characters, no half of a character.
Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$")]
CASE = r"^case_[A-Za-z0-9]+$"
MOST, LONGEST = 20, 300  # complaints in the line of an error, and characters of a part of one


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, str | int | float | None) or (isinstance(one, float) and not isfinite(one)):
                raise ValueError(f"{name}: an option is a number, a word, true, false, null, or a list of such")
    return options


# What a method's or an augmentation's own model checks further, where its file is imported.
PlainOptions = Annotated[dict[str, Any], AfterValidator(_plain)]


class Section(BaseModel):
    """A block of params.yaml: no unknown key, no silent conversion of types, no infinity, no change after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Data(Section):
    """Where the volumes come from and which cases take part."""

    source: Literal["phantom", "kits23", "directory"]
    root: Text | None
    raw_dir: Text
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
            InputError: `raw_dir` or `root` names an environment variable that is not set, or an unknown `~person`.
        """
        key = "root" if self.source == "directory" else "raw_dir"
        text = os.path.expandvars(str(getattr(self, key)))
        if "$" in text:
            raise InputError(f"data.{key}: {text!r} names an environment variable that is not set")
        try:
            return Path(text).expanduser()
        except RuntimeError as error:
            raise InputError(f"data.{key}: {text!r} names a person without a home folder here") from error


class Phantom(Section):
    """The embedded study's volumes."""

    cases: Annotated[int, Field(ge=3, le=100_000)]
    size: Annotated[int, Field(ge=64, le=512)]
    slices: Positive
    seed: Seed


class Kits23(Section):
    """Where KiTS23 is downloaded from."""

    imaging_endpoint: Text | None
    imaging_repository: Text
    imaging_revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    labels_endpoint: Text
    labels_repository: Text
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

    file: Text | None


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
    options: PlainOptions

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
    options: PlainOptions = {}
    extra_updates: Annotated[int, Field(ge=0)] = 0

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
    evaluations: Count
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
    layer: Text
    same: Count
    errors: Annotated[int, Field(ge=0)]
    slices: Count


class Report(Section):
    """What stands beside this run's figures."""

    published: bool


class Compute(Section):
    """How the machine is used; `threads`, `precision`, `devices` and `nodes` change trained bits, the rest does not."""

    workers: Count
    scheduler: Text | None
    threads: Count
    precision: Literal["auto", "32", "bf16", "16"]
    device: Literal["auto", "cpu", "cuda"]
    devices: Count
    nodes: Count
    resident: Literal["auto", "always", "never"]
    checkpoint_minutes: Annotated[float, Field(ge=0)]


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
    percents: Annotated[list[Percent], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    extra_runs: list[Annotated[str, Field(pattern=r"^([1-9]|[1-9]\d|100)-(0|[1-9]\d*)$")]]
    finetune: Finetune
    analysis: Analysis
    explain: Explain
    report: Report
    compute: Compute

    @computed_field  # type: ignore[prop-decorator] # mypy knows no decorator above property; pydantic asks for this
    @property
    def budgets(self) -> list[tuple[int, int]]:
        """Percent and seed of the runs of every arm, sorted."""
        further = [(int(percent), int(seed)) for percent, seed in (run.split("-") for run in self.extra_runs)]
        return sorted([*product(self.percents, self.seeds), *further])

    @model_validator(mode="after")
    def _budgets_are_honest(self) -> "Params":
        values: dict[str, list[Any]] = {"percents": self.percents, "seeds": self.seeds, "extra_runs": self.extra_runs}
        for key, listed in values.items():
            if len(set(listed)) < len(listed):
                raise ValueError(f"{key}: a value stands there twice")
        if len(set(self.budgets)) < len(self.budgets):
            raise ValueError("extra_runs: a run is already one of percents x seeds")
        if min(percent for percent, _ in self.budgets) < 100:
            fixed = {"window": self.normalize.window, "regions.left and .right": self.normalize.regions.left}
            for key, value in fixed.items():
                if value is None:
                    raise ValueError(
                        f"normalize.{key} must be given by hand with a label budget below 100 %: found from all the "
                        "training masks, it would tell a small budget what the other labels say"
                    )
        return self

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
        if len(set(rates)) < len(rates):
            raise ValueError("finetune.learning_rates: a value stands there twice")
        return self


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check a parameter file.

    Raises:
        InputError: the file is missing, is no YAML mapping, or a key is unknown, missing or out of range; the
            one-line message names every such key, or the first of very many.
    """
    path = Path(path)
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); run from the project's folder") from error
    except RecursionError:
        raise InputError(f"{path}: not valid YAML: brackets or blocks far too deep") from None
    # PyYAML lets through what Python says of `!!bool maybe`, `!!timestamp now`, a 13th month or 5,000 digits.
    except (yaml.YAMLError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not valid YAML: {_short(str(error))}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping of sections, see studies/ for complete files")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        complaints = [_complaint(item, content) for item in error.errors(include_url=False, include_context=False)]
        more = f"; and {len(complaints) - MOST} more" if len(complaints) > MOST else ""
        raise InputError(f"{path}: {'; '.join(complaints[:MOST])}{more}") from None


def _complaint(item: Any, content: Any) -> str:
    """One line for one of pydantic's findings: the dotted key, what is wrong, what was given."""
    # A union adds the name of the member that was tried to the path; only keys of the file are shown.
    keys: list[str] = []
    for part in item["loc"]:
        inside = range(len(content)) if isinstance(content, list) else content if isinstance(content, dict) else ()
        if part in inside:
            content = content[part]
            keys.append(str(part))
    if item["type"] == "missing":
        keys.append(str(item["loc"][-1]))
    key = _short(".".join(keys))
    message = _short(item["msg"].removeprefix("Value error, "))
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    if item["type"] == "missing":
        return f"{key}: missing"
    given = "" if item["type"] == "value_error" else f", got {_given(item['input'])}"
    return f"{key}: {message}{given}" if key else message


def _given(value: Any) -> str:
    """What a key was set to; a few members of what is large, for an alias of YAML can make it endless."""
    try:
        return _short(reprlib.repr(value))
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"


def _short(text: str) -> str:
    """Text on one line and not without end."""
    line = "".join(one if one.isprintable() else " " for one in " ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
