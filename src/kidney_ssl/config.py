"""The typed form of `params.yaml`: unknown keys are refused, and errors are one line that names the key.

Only the stages read it; the library gets plain values and paths. The meaning, unit and source of each key are
explained in `params.yaml` only.
"""

import os
import re
import reprlib
from collections.abc import Collection
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    computed_field,
    field_validator,
    model_validator,
)

from kidney_ssl.augmentations import AUGMENTATIONS
from kidney_ssl.data.case_names import CASE
from kidney_ssl.data.checks import CHECKS
from kidney_ssl.errors import InputError, one_line
from kidney_ssl.methods import METHODS
from kidney_ssl.schema import MEANINGS, REGIONS, SINGLE
from kidney_ssl.yamlfile import read_yaml

Share = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Processes = Annotated[int, Field(ge=1, le=1024)]  # also of threads and connections; more would overload the machine
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# Names files, folders and table rows; 100 characters leave room for a file ending.
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$", max_length=100)]
Percent = Annotated[int, Field(ge=1, le=100)]
# A path or an address: not empty, no control characters.
Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$")]
Case = Annotated[str, Field(pattern=f"^{CASE}$")]
Word = Annotated[str, Field(pattern=r"^[a-z]+( [a-z]+)*$")]
# `stages.params` checks that timm has the network; this module does not import timm.
Network = Annotated[str, Field(pattern=r"^(resnet18|resnet34|resnet50|efficientnet_lite0|timm:[a-z0-9_.]+)$")]
MASKLESS = "data.source: table has no masks"
MOST = 20  # problems named in an error line


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, str | int | float | None) or (isinstance(one, float) and not isfinite(one)):
                raise ValueError(f"{name}: an option is a number, a word, true, false, null, or a list of such")
    return options


def _ascending(seeds: list[int]) -> list[int]:
    if seeds != sorted(set(seeds)):
        raise ValueError(f"seeds must ascend, each once, got {seeds}")
    return seeds


# Seeds of replicate networks. Ascending, so that the order of their files gives each replicate's number.
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_ascending)]
# Options of a method or an augmentation; its own model checks them further when its file is imported.
PlainOptions = Annotated[dict[str, Any], AfterValidator(_plain)]


def _refuse_unknown(name: str, known: Collection[str], key: str = "") -> None:
    if name not in known:
        raise ValueError(f"{key}unknown '{name}', known: {', '.join(known)}")


def _one_of(known: Collection[str]) -> AfterValidator:
    """Validator of a key whose value must be one of these names."""

    def check(name: str) -> str:
        _refuse_unknown(name, known)
        return name

    return AfterValidator(check)


EXPERIMENTS = "/.dvc/tmp/exps/"  # where DVC puts the copies of a project in which it runs experiments


def _path(key: str, text: str, *, shared: bool = True) -> Path:
    """A path from the parameter file with environment variables and `~` filled in.

    To run an experiment (`dvc exp run --temp`, `--queue`), DVC copies what is in git. A relative path that does not
    exist in the copy then refers to the original project, so that volumes are not fetched and networks not trained
    again. With `shared` false the path always refers to the copy.
    """
    text = os.path.expandvars(text)
    if "$" in text:
        raise InputError(f"{key}: {text!r} names an environment variable that is not set")
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"{key}: {text!r} names a person without a home folder here") from error
    project, copied, _ = Path.cwd().as_posix().rpartition(EXPERIMENTS)
    return Path(project) / path if shared and copied and not path.exists() else path


class Section(BaseModel):
    """A block of params.yaml: no unknown keys, no silent type conversion, no infinity, immutable after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Classes(Section):
    """Names of organ, tumor and cyst, the number of organs, and the meaning of the label values."""

    organ: Word
    tumor: Word
    cyst: Word
    paired: bool
    labels: dict[Annotated[int, Field(ge=1, le=255)], Annotated[str, _one_of(MEANINGS)]]

    @model_validator(mode="after")
    def _has_a_tumor(self) -> "Classes":
        if "tumor" not in self.labels.values():
            raise ValueError("labels must say which value is tumor")
        if len({self.organ, self.tumor, self.cyst}) < len(("organ", "tumor", "cyst")):
            raise ValueError("organ, tumor and cyst must have different names")
        return self


class Data(Section):
    """Source of the volumes, and the cases that are used."""

    source: Literal["phantom", "kits23", "directory", "msd", "table"]
    root: Text | None
    raw_dir: Text
    cases: list[Case | int] | Annotated[str, Field(pattern=r"^\d{1,9}-\d{1,9}$")] | None
    exclude: list[Case]
    accept: list[Annotated[str, _one_of(CHECKS)]]
    patients: Text | None
    classes: Classes
    folds: Annotated[int, Field(ge=2)]
    fold: Annotated[int, Field(ge=0)]
    validation: Annotated[float, Field(gt=0, le=0.5)]
    seed: Seed

    @field_validator("patients")
    @classmethod
    def _file_or_pattern(cls, patients: str | None) -> str | None:
        if patients is not None and not patients.endswith(".csv"):
            try:
                groups = re.compile(patients).groups
            except re.error as error:
                raise ValueError(f"neither a .csv file nor a regular expression ({error})") from error
            if not groups:
                raise ValueError("a pattern marks the patient by a group, as in '^case_(.{4})'")
        return patients

    @model_validator(mode="after")
    def _consistent(self) -> "Data":
        if self.fold >= self.folds:
            raise ValueError(f"fold must be below folds ({self.folds}), got {self.fold}")
        if self.in_place and self.root is None:
            raise ValueError(f"root must name a folder when source is '{self.source}'")
        if self.source == "table" and self.patients is not None:
            raise ValueError("patients must be null when source is 'table': its column `patient` says them")
        return self

    @property
    def in_place(self) -> bool:
        """Whether the volumes are the user's own and are read from their own folder."""
        return self.source in ("directory", "msd", "table")

    @property
    def store(self) -> Path:
        """The folder of the volumes: `root` where they are read in place, else `raw_dir`; variables filled in.

        Raises:
            InputError: `raw_dir` or `root` names an environment variable that is not set, or an unknown `~person`.
        """
        key = "root" if self.in_place else "raw_dir"
        return _path(f"data.{key}", str(getattr(self, key)))

    @property
    def phantom_store(self) -> Path:
        """The folder for phantom volumes; each experiment's copy has its own, since its parameters may differ."""
        return _path("data.raw_dir", self.raw_dir, shared=False)

    @property
    def patients_given(self) -> Path | str | None:
        """The path of the patient table with variables filled in, or the pattern; see `data.patients.patients_of`."""
        is_file = self.patients is not None and self.patients.endswith(".csv")
        return _path("data.patients", str(self.patients)) if is_file else self.patients


class Phantom(Section):
    """Synthetic CT volumes of the default study."""

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
    connections: Processes
    timeout: Positive


class Select(Section):
    """Which slices are used."""

    min_tumor_px: Count
    seed: Seed


class Slice(Section):
    """The standardised image of a slice."""

    image_size: Annotated[int, Field(ge=32, le=1024)]
    body_hu: Annotated[int, Field(ge=-900, le=0)]
    body_opening_mm: Positive


# A list in the file becomes a tuple; its members are still checked strictly.
Rectangle = Annotated[tuple[Fraction, Fraction, Fraction, Fraction], Field(strict=False)]


class Regions(Section):
    """The rectangles around the organ, found from the data or given."""

    share: Annotated[float, Field(gt=0, le=1)]
    left: Rectangle | None
    right: Rectangle | None
    organ: Rectangle | None

    @model_validator(mode="after")
    def _both_or_none(self) -> "Regions":
        if (self.left is None) != (self.right is None):
            raise ValueError("give both left and right, or neither")
        for rectangle in (self.left, self.right, self.organ):
            if rectangle and not (rectangle[0] < rectangle[1] and rectangle[2] < rectangle[3]):
                raise ValueError("a rectangle is [top, bottom, left, right] with top < bottom and left < right")
        return self

    @property
    def by_hand(self) -> dict[str, Rectangle] | None:
        """The given rectangles by name; None if they are to be found from the data."""
        given = {name: getattr(self, name) for name in (*REGIONS, SINGLE) if getattr(self, name)}
        return given or None


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
    """Random initial weights, drawn once for each seed."""

    kind: Literal["random"] = "random"
    seeds: Seeds


ONE = [0]  # seeds of published weights: there is one set, which counts as seed 0


class TorchvisionWeights(Section):
    """torchvision's ImageNet weights, or a local file of them."""

    kind: Literal["torchvision"] = "torchvision"
    seeds: ClassVar[list[int]] = ONE
    file: Text | None

    @property
    def path(self) -> Path | None:
        """The file with its variables filled in, see `_path`."""
        return _path("initialize: file", self.file) if self.file else None


class PublishedWeights(Section):
    """Keys shared by all other published weights, see `kidney_ssl.models.published`."""

    seeds: ClassVar[list[int]] = ONE
    file: Text
    layout: Literal[
        "torchvision",
        "timm",
        "efficientnet_lite_pytorch",
        "radimagenet",
        "radiologynet",
        "models_genesis",
        "meddinov3",
    ]
    licence: Text
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class FileWeights(PublishedWeights):
    """Published weights in a local file."""

    kind: Literal["file"]
    source: Text

    @property
    def path(self) -> Path:
        """The file with its variables filled in, see `_path`."""
        return _path("initialize: file", self.file)


class HubWeights(PublishedWeights):
    """Published weights of a model on the Hugging Face hub, at one commit."""

    kind: Literal["hub"]
    endpoint: Text | None = None
    repository: Text
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class PackageWeights(PublishedWeights):
    """Published weights in an installed Python package."""

    kind: Literal["package"]
    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*$")]


def _kind(block: Any) -> Any:
    """The kind of initial weights that a block describes; random and torchvision weights need not name it."""
    if not isinstance(block, dict):
        return getattr(block, "kind", None)
    kind = block.get("kind", "torchvision" if "file" in block else "random")
    return kind if isinstance(kind, str) else None


Weights = Annotated[
    Annotated[RandomWeights, Tag("random")]
    | Annotated[TorchvisionWeights, Tag("torchvision")]
    | Annotated[FileWeights, Tag("file")]
    | Annotated[HubWeights, Tag("hub")]
    | Annotated[PackageWeights, Tag("package")],
    Discriminator(
        _kind,
        custom_error_type="kind",
        custom_error_message="kind must be random, torchvision, file, hub or package",
    ),
]


class PlateauBlock(Section):
    """ReduceLROnPlateau."""

    factor: Share
    patience: Annotated[int, Field(ge=0)]


class Optimization(Section):
    """How weights are updated, see `kidney_ssl.engine.optimization.Optimization`."""

    optimizer: Literal["adam", "adamw", "lars"]
    weight_decay: Annotated[float, Field(ge=0)]
    decay_norms: bool
    schedule: Literal["constant", "cosine", "plateau"]
    warmup: Annotated[float, Field(ge=0, lt=1)]
    plateau: PlateauBlock | None
    clip: Positive | None

    @model_validator(mode="after")
    def _has_a_plateau(self) -> "Optimization":
        if self.schedule == "plateau" and self.plateau is None:
            raise ValueError("plateau must give factor and patience when schedule is 'plateau'")
        return self


class Recipe(Optimization):
    """How weights are updated, and which epoch of fine-tuning is kept."""

    select: Literal["best", "last"]


class Recipes(Section):
    """The recipes by name, checked before they become defaults of the blocks that name one."""

    model_config = ConfigDict(extra="ignore")

    recipes: Annotated[dict[Name, Recipe], Field(min_length=1)]


def _with_recipe(block: Any, recipes: dict[str, Any], key: str, takes: type[Optimization]) -> Any:
    """Use the named recipe's values as defaults of a block, as far as the block has these keys."""
    if not isinstance(block, dict) or "recipe" not in block:
        return block
    if block["recipe"] not in list(recipes):  # a list, because the given value may be unhashable
        raise ValueError(f"{key}.recipe: unknown {_given(block['recipe'])}, known: {', '.join(recipes)}")
    return {name: value for name, value in recipes[block["recipe"]].items() if name in takes.model_fields} | block


class Common(Optimization):
    """Settings of a pretraining; `pretrain.common` gives the defaults for all blocks of `pretrain.methods`."""

    recipe: Name
    epochs: Count
    min_updates: Annotated[int, Field(ge=0)]
    images: Count | None
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Positive
    options: PlainOptions
    seeds: Seeds


class Method(Common):
    """A pretraining, run once for each seed: method, initial weights, and the settings of `Common`."""

    method: Annotated[str, _one_of(METHODS)]
    start: Name


class Thin(Section):
    """How far apart the slices of a case are that a pretraining reads, by one of two measures."""

    mm: Positive | None = None
    dissimilarity: Share | None = None

    @model_validator(mode="after")
    def _is_by_one_measure(self) -> "Thin":
        if (self.mm is None) == (self.dissimilarity is None):
            raise ValueError("give either mm or dissimilarity, or null in place of both")
        return self


class Shared(Section):
    """Shared settings of `pretrain.methods`, checked before they become defaults of each block."""

    model_config = ConfigDict(extra="ignore")

    common: Common


class Pretrain(Shared):
    """Pretraining without labels."""

    model_config = ConfigDict(extra="forbid")

    pool: Literal["selected", "all"]
    thin: Thin | None
    evaluations: Count
    methods: dict[Name, Method]

    @model_validator(mode="before")
    @classmethod
    def _complete_blocks(cls, content: Any) -> Any:
        """Use `common` as defaults of each block; a wrong value in it is reported once, under `common`."""
        if not isinstance(content, dict):
            return content
        Shared.model_validate(content)
        methods = content.get("methods")
        if not isinstance(methods, dict):
            return content
        whole = {name: content["common"] | one if isinstance(one, dict) else one for name, one in methods.items()}
        return content | {"methods": whole}


class Arm(Section):
    """Initial weights of an arm, and how its training slices are augmented."""

    weights: Annotated[str, Field(pattern=r"^(initial|pretrain)/[a-z0-9_]+$")]
    augmentation: Annotated[str, _one_of(AUGMENTATIONS)]
    options: PlainOptions = {}
    extra_updates: Annotated[int, Field(ge=0)] = 0
    recipe: Name | None = None


class Finetune(Recipe):
    """Training of the classifier: the same for every arm, except arms that name another recipe."""

    recipe: Name
    epochs: Count
    min_updates: Annotated[int, Field(ge=0)]
    evaluations: Count
    batch_size: Annotated[int, Field(ge=2)]
    learning_rates: Annotated[list[Positive], Field(min_length=1)]
    search_cases: Count
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)]
    keep: Literal["explained", "all", "none"]


class Analysis(Section):
    """The analysis plan, decided before results were seen; the report prints it with its hash."""

    baseline: Name
    primary: Literal["auroc_against_kidney", "auroc", "accuracy", "f1"]
    contrasts: list[Annotated[tuple[Name, Name], Field(strict=False)]]
    margin: Share
    resamples: Annotated[int, Field(ge=100, le=10**6)]
    seed: Seed


class Explain(Section):
    """Which slices get Grad-CAM maps, and of which layer."""

    percent: Literal[100]
    seed: Seed
    layer: Text | None
    same: Count
    errors: Annotated[int, Field(ge=0)]
    slices: Annotated[int, Field(ge=2)]


class Report(Section):
    """Published results that the report shows next to this study's."""

    published: bool


class Compute(Section):
    """How the machine is used.

    `threads`, `precision`, `devices`, `nodes`, `cudnn_benchmark` and `compile` change the trained weights in their
    last bits; the other keys do not.
    """

    workers: Processes
    scheduler: Text | None
    threads: Processes
    precision: Literal["auto", "32", "bf16", "16"]
    device: Literal["auto", "cpu", "cuda"]
    devices: Processes
    nodes: Processes
    cudnn_benchmark: bool
    compile: bool
    resident: Literal["auto", "always", "never"]
    checkpoint_minutes: Annotated[float, Field(ge=0)]
    store: Text
    store_gb: Positive

    @property
    def store_folder(self) -> Path:
        """The folder of finished trainings: `store` with its variables filled in.

        Raises:
            InputError: it names an environment variable that is not set, or an unknown `~person`.
        """
        return _path("compute.store", self.store)


class Params(Section):
    """The whole of params.yaml."""

    data: Data
    phantom: Phantom
    kits23: Kits23
    select: Select
    slice: Slice
    normalize: Normalize
    network: Network
    initialize: Annotated[dict[Name, Weights], Field(min_length=1)]
    recipes: dict[Name, Recipe]
    pretrain: Pretrain
    arms: Annotated[dict[Name, Arm], Field(min_length=1)]
    runs: dict[Percent, Annotated[list[Seed], Field(min_length=1)]]
    finetune: Finetune
    analysis: Analysis
    explain: Explain
    report: Report
    compute: Compute

    @model_validator(mode="before")
    @classmethod
    def _complete_recipes(cls, content: Any) -> Any:
        """Use recipes as defaults of the blocks that name them; a wrong value is reported once, under `recipes`."""
        if not isinstance(content, dict):
            return content
        recipes = Recipes.model_validate(content).model_dump()["recipes"]
        whole = content | {"finetune": _with_recipe(content.get("finetune"), recipes, "finetune", Recipe)}
        pretrain = content.get("pretrain")
        if isinstance(pretrain, dict):
            blocks = {"common": _with_recipe(pretrain.get("common"), recipes, "pretrain.common", Optimization)}
            if isinstance(methods := pretrain.get("methods"), dict):
                blocks["methods"] = {
                    name: _with_recipe(one, recipes, f"pretrain.methods.{name}", Optimization)
                    for name, one in methods.items()
                }
            whole["pretrain"] = pretrain | blocks
        return whole

    def finetune_of(self, arm: str) -> dict[str, Any]:
        """The section `finetune` as plain data; values of the recipe that an arm names replace its own."""
        named = self.arms[arm].recipe
        own = self.finetune.model_dump(mode="json")
        return own if named is None else own | self.recipes[named].model_dump(mode="json") | {"recipe": named}

    def replicate(self, weights: str, seed: int) -> int:
        """Seed of the weights that a training starts from: replicate number `seed` modulo the number of replicates.

        Trainings of the same seed thus start from the same replicate, at every label budget and regardless of which
        other seeds are run.

        Args:
            weights: "initial/<name>" or "pretrain/<name>".
            seed: seed of the training that starts from these weights.
        """
        kind, _, name = weights.partition("/")
        block = self.pretrain.methods[name] if kind == "pretrain" else self.initialize[name]
        seeds: list[int] = block.seeds
        return seeds[seed % len(seeds)]

    def weights_file(self, weights: str, seed: int) -> Path:
        """File of the weights that a training starts from; the arguments are those of `replicate`."""
        return Path(f"models/{weights}/{self.replicate(weights, seed)}.safetensors")

    @computed_field  # type: ignore[prop-decorator] # mypy rejects decorators on a property, but pydantic needs this one
    @property
    def budgets(self) -> list[tuple[int, int]]:
        """Percent and seed of each run of an arm, sorted; the same for every arm."""
        return sorted((percent, seed) for percent, seeds in self.runs.items() for seed in seeds)

    @model_validator(mode="after")
    def _budgets_are_honest(self) -> "Params":
        for percent, seeds in self.runs.items():
            if len(set(seeds)) < len(seeds):
                raise ValueError(f"runs.{percent}: duplicate seed")
        if 100 not in self.runs:
            raise ValueError("runs: 100 is missing, the runs with all the training cases: give their seeds")
        if min(self.runs) < 100 and self.data.source != "table":  # which has no masks to find them with
            rectangles = "regions.left and .right" if self.data.classes.paired else "regions.organ"
            fixed = {"window": self.normalize.window, rectangles: self.normalize.regions.by_hand}
            for key, value in fixed.items():
                if value is None:
                    raise ValueError(
                        f"normalize.{key} must be given by hand with a label budget below 100 %: found from all the "
                        "training masks, it would tell a small budget what the other labels say"
                    )
        return self

    @model_validator(mode="after")
    def _organ_fits(self) -> "Params":
        classes, regions = self.data.classes, self.normalize.regions
        if classes.paired and regions.organ:
            raise ValueError("normalize.regions.organ is of a single organ: give left and right (data.classes.paired)")
        if not classes.paired and regions.left:
            raise ValueError("normalize.regions: left and right are of a pair: give organ (data.classes.paired)")
        if "organ" not in classes.labels.values() and self.analysis.primary == "auroc_against_kidney":
            raise ValueError("analysis.primary: data.classes.labels have no organ to compare with: take auroc")
        return self

    @model_validator(mode="after")
    def _nothing_needs_masks(self) -> "Params":
        """Refuse what reads masks, or regions that only masks can give, where the source has no masks."""
        if self.data.source != "table":
            return self
        regions = self.normalize.regions.by_hand
        by_hand = "regions: give normalize.regions by hand"
        for name, block in self.pretrain.methods.items():
            if block.method == "oracle":
                raise ValueError(f"pretrain.methods.{name}: oracle reads masks, and {MASKLESS}: leave it out")
            if regions is None and block.method in ("inpaint_kidney", "inpaint_switch"):
                raise ValueError(f"pretrain.methods.{name}: {block.method} needs {by_hand}, since {MASKLESS}")
        for name, arm in self.arms.items():
            if arm.augmentation == "supervised":
                raise ValueError(f"arms.{name}.augmentation: supervised reads masks, and {MASKLESS}: leave it out")
            if regions is None and arm.augmentation == "unsupervised" and arm.options.get("protect") != "nothing":
                nothing = "or options: {protect: nothing}"
                raise ValueError(f"arms.{name}.augmentation: unsupervised protects {by_hand}, {nothing}; {MASKLESS}")
        if self.analysis.primary == "auroc_against_kidney":
            raise ValueError(f"analysis.primary: {MASKLESS}, so no organ is known: take auroc, accuracy or f1")
        return self

    @model_validator(mode="after")
    def _arms_have_weights(self) -> "Params":
        initial = list(self.initialize)
        known = [f"initial/{name}" for name in initial] + [f"pretrain/{name}" for name in self.pretrain.methods]
        for name, method in self.pretrain.methods.items():
            _refuse_unknown(method.start, initial, f"pretrain.methods.{name}.start: ")
        for name, arm in self.arms.items():
            if arm.recipe is not None:
                _refuse_unknown(arm.recipe, self.recipes, f"arms.{name}.recipe: ")
            _refuse_unknown(arm.weights, known, f"arms.{name}.weights: ")
        plan = self.analysis
        for key, one in [("baseline", plan.baseline), *(("contrasts", one) for pair in plan.contrasts for one in pair)]:
            _refuse_unknown(one, self.arms, f"analysis.{key}: ")
        pairs = [frozenset(pair) for pair in plan.contrasts]
        if len(set(pairs)) < len(pairs) or any(len(pair) < 2 for pair in pairs):
            raise ValueError("analysis.contrasts: a pair stands there twice, or an arm against itself")
        if self.explain.seed not in (seeds := self.runs[self.explain.percent]):
            raise ValueError(f"explain.seed: {self.explain.seed} is none of runs.{self.explain.percent}, {seeds}")
        rates = self.finetune.learning_rates
        if len(set(rates)) < len(rates):
            raise ValueError("finetune.learning_rates: a value stands there twice")
        return self


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check a parameter file.

    Raises:
        InputError: the file is missing or is not a YAML mapping, or a key is unknown, missing or out of range; the
            one-line message names up to `MOST` such keys.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); run from the project's folder") from error
    except ValueError as error:
        raise InputError(f"{path}: no text in UTF-8: {one_line(str(error))}") from error
    content = read_yaml(text, str(path))
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping of sections, see studies/ for complete files")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        complaints = [_complaint(item, content) for item in error.errors(include_url=False, include_context=False)]
        more = f"; and {len(complaints) - MOST} more" if len(complaints) > MOST else ""
        raise InputError(f"{path}: {'; '.join(complaints[:MOST])}{more}") from None


def _complaint(item: Any, content: Any) -> str:
    """One line for one of pydantic's errors: the dotted key, what is wrong, and the given value."""
    # For a union, pydantic adds the name of the tried member to the path; only keys of the file are shown.
    keys: list[str] = []
    for part in item["loc"]:
        inside = range(len(content)) if isinstance(content, list) else content if isinstance(content, dict) else ()
        if part in inside:
            content = content[part]
            keys.append(str(part))
    if item["type"] == "missing":
        keys.append(str(item["loc"][-1]))
    key = one_line(".".join(keys))
    message = one_line(item["msg"].removeprefix("Value error, "))
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    if item["type"] == "missing":
        return f"{key}: missing"
    if item["type"] == "string_type" and item["loc"][-1] == "[key]":
        message = "a name that YAML reads as something else: put it into quotes"
    given = "" if item["type"] == "value_error" else f", got {_given(item['input'])}"
    return f"{key}: {message}{given}" if key else message


def _given(value: Any) -> str:
    """The value of a key; only a few members of a large one, since YAML aliases can make it endless."""
    try:
        return one_line(reprlib.repr(value))
    except ValueError:  # Python does not print integers of more than 4,300 digits
        return "a number of thousands of digits"
