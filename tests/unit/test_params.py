"""Parameter files: same keys, all commented, bad values refused in one line that names the key."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kidney_ssl.config import Params, TorchvisionWeights, load
from kidney_ssl.errors import InputError
from kidney_ssl.yamlfile import dump_yaml, read_yaml

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared/real_ct"
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))
FREE = {"arms", "initialize", "pretrain.methods", "runs"}  # a study names its own
BLOCKS = {
    "data.classes.labels",
    "pretrain.common.options",
}  # values that are blocks, {} in some studies


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and prefix + key not in FREE | BLOCKS:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def default() -> dict[str, Any]:
    """A small study of all labels, whatever study params.yaml holds."""
    content = read_yaml((ROOT / "studies" / "smoke.yaml").read_text())
    content["runs"] = {100: [0]}
    for key in ("normalize.window", "normalize.regions.left", "normalize.regions.right"):
        put(content, key, None)
    return content


def put(content: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        content = content[parent]
    content[last] = value


def refused(tmp_path: Path, content: Any) -> str:
    path = tmp_path / "params.yaml"
    path.write_text(content if isinstance(content, str) else dump_yaml(content))
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_parameter_file_is_valid(path: Path) -> None:
    assert isinstance(load(path), Params)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_studies_have_the_same_keys(path: Path) -> None:
    assert set(flat(read_yaml(path.read_text()))) == set(flat(default()))


def bare_keys(path: Path) -> list[str]:
    """Lines of a parameter file whose key has no comment above it."""
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    bare, explained = [], {"options", "extra_updates"}  # these two stand in the comment of an arm's augmentation
    for before, line, after in zip(["", *lines], lines, [*lines[1:], ""], strict=False):
        if not line.startswith(" "):
            section = line.rstrip(":")
        if line.lstrip().startswith(("#", "-")) or section == "runs":
            continue
        name, _, value = line.strip().partition(":")
        if "#" in before:
            explained.add(name)
        # The blocks of arms and of pretrainings are alike: the first one and `common` explain their keys.
        block = read_yaml(value) if section in ("arms", "pretrain") and value else None
        keys = set(block) if isinstance(block, dict) and name not in ("options", "plateau") else {name}
        if (value or after.lstrip().startswith("-")) and not keys <= explained:
            bare.append(line.strip())
    return bare


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_key_stands_under_a_comment(path: Path) -> None:
    assert not bare_keys(path)


def test_kits23_study_has_the_scale_of_the_thesis() -> None:
    study = load(ROOT / "studies" / "kits23.yaml")
    assert study.data.source == "kits23"
    assert (study.slice.image_size, study.select.min_tumor_px) == (512, 1000)
    assert (study.finetune.batch_size, study.finetune.epochs) == (64, 30)
    assert set(study.arms) >= {"random", "imagenet"}
    assert study.pretrain.pool == "all"


def test_the_lits_study_knows_its_patients_and_starts_from_random_and_imagenet_weights() -> None:
    study = load(ROOT / "studies/lits.yaml")
    rows = [line.split(",") for line in (ROOT / str(study.data.patients)).read_text().splitlines()[1:]]
    of_one = [case for case, patient in rows if patient == dict(rows)["case_90007"]]
    assert of_one == ["case_90007", "case_90008", "case_90009", "case_90010"]
    assert (len(rows), len(dict(rows)), len({patient for _, patient in rows})) == (27, 27, 24)
    if REAL.exists():
        assert sorted(dict(rows)) == sorted(path.name for path in REAL.glob("case_*"))
    assert {arm.weights for arm in study.arms.values()} >= {"initial/random", "initial/imagenet"}
    assert "inpaint_switch" not in {block.method for block in study.pretrain.methods.values()}


def test_kits23_study_has_an_arm_of_each_inpainting_loss() -> None:
    study = load(ROOT / "studies" / "kits23.yaml")
    started = {block.weights.partition("/")[2] for block in study.arms.values()}
    losses = {
        block.options.get("loss", "dice")
        for name, block in study.pretrain.methods.items()
        if block.method == "inpaint_random" and block.start == "random" and name in started
    }
    assert losses == {"dice", "dice_squared", "mse"}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("finetune.epochs", -3, "finetune.epochs: Input should be greater than or equal to 1, got -3"),
        ("finetune.epochs", "ten", "finetune.epochs: Input should be a valid integer, got 'ten'"),
        ("finetune.epochs", "30", "finetune.epochs: Input should be a valid integer, got '30'"),
        ("finetune.epoch", 3, "finetune.epoch: unknown key"),
        ("finetun", {}, "finetun: unknown key"),
        ("data.source", "kits", "data.source: Input should be 'phantom', 'kits23', 'directory', 'msd' or 'table', got"),
        ("data.fold", 5, "data: fold must be below folds"),
        ("data.source", "directory", "data: root must name a folder"),
        ("data.cases", "10", "data.cases"),
        ("data.exclude", ["../case"], "data.exclude.0"),
        (
            "arms.imagenet",
            {"weights": "initial/imagenet", "augmentation": "none"},
            "arms.imagenet.weights: unknown 'initial/imagenet'",
        ),
        ("arms.random.augmentation", "mixup", "arms.random.augmentation: unknown 'mixup', known: basic"),
        ("analysis.baseline", "best", "analysis.baseline: unknown 'best', known: "),
        ("analysis.contrasts", [["random", "gone"]], "analysis.contrasts: unknown 'gone', known: "),
        ("analysis.contrasts", [["random", "random"]], "analysis.contrasts: a pair stands there twice, or an arm"),
        ("explain.seed", 7, "explain.seed: 7 is none of runs.100, [0]"),
        ("arms.Bad-Name", {"weights": "initial/random"}, "arms.Bad-Name: String should match pattern"),
        ("arms", {}, "arms"),
        ("arms." + "a" * 101, {"weights": "initial/random"}, "String should have at most 100 characters"),
        ("data.cases", "0-" + "9" * 5000, "data.cases: String should match pattern"),
        ("finetune.epochs", 10**12, "finetune.epochs: Input should be less than or equal to 1000000000"),
        ("analysis.resamples", 10**10, "analysis.resamples: Input should be less than or equal to 1000000"),
        ("compute.workers", 10**8, "compute.workers: Input should be less than or equal to 1024"),
        ("compute.threads", 10**5, "compute.threads: Input should be less than or equal to 1024"),
        ("finetune.learning-rate", 1, "finetune.learning-rate: unknown key"),
        ("pretrain.methods.rotation.epochs", 0, "pretrain.methods.rotation.epochs: Input should be greater"),
        ("phantom.slices", float("inf"), "phantom.slices: Input should be a finite number, got inf"),
        ("data.raw_dir", "", "data.raw_dir: String should match pattern"),
        ("pretrain.methods.rotation.options", {"a": [[1]]}, "rotation.options: a: an option is a number, a word"),
        ("pretrain.thin", {}, "pretrain.thin: give either mm or dissimilarity"),
        ("pretrain.thin", {"mm": 5, "dissimilarity": 0.1}, "pretrain.thin: give either mm or dissimilarity"),
        ("pretrain.thin", {"cm": 5}, "pretrain.thin.cm: unknown key"),
        ("pretrain.thin", 5, "pretrain.thin: "),
        ("pretrain.thin", {"mm": 0}, "pretrain.thin.mm: Input should be greater than 0, got 0"),
        ("pretrain.thin", {"dissimilarity": 5}, "pretrain.thin.dissimilarity: Input should be less than 1, got 5"),
        ("pretrain.common.batch_size", 1, "pretrain.common.batch_size: Input should be greater"),
        ("pretrain.common.seed", 1, "pretrain.common.seed: unknown key"),
        ("pretrain.methods.rotation.steps", 1, "pretrain.methods.rotation.steps: unknown key"),
        ("pretrain.methods.rotation_1", {"seeds": [1]}, "pretrain.methods.rotation_1.method: missing"),
        ("pretrain.methods.rotation-1", {}, "pretrain.methods.rotation-1: String should match pattern"),
        ("pretrain.methods.rotation.seeds", [], "pretrain.methods.rotation.seeds: List should have at least 1 item"),
        ("pretrain.methods.rotation.seeds", [1, 1], "pretrain.methods.rotation.seeds: seeds must ascend, each once"),
        ("pretrain.common.seeds", [2, 0], "pretrain.common.seeds: seeds must ascend, each once, got [2, 0]"),
        ("initialize.random.seeds", [-1], "initialize.random.seeds.0: Input should be greater than or equal to 0"),
        ("initialize.random.seed", 0, "initialize.random.seed: unknown key"),
        ("runs", {100: [0, 0]}, "runs.100: duplicate seed"),
        ("runs", {100: []}, "runs.100: List should have at least 1 item"),
        ("runs", {50: [0]}, "runs: 100 is missing"),
        ("runs", {}, "runs: 100 is missing"),
        ("runs", {0: [0], 100: [0]}, "runs.0: Input should be greater than or equal to 1, got 0"),
        ("runs", {101: [0], 100: [0]}, "runs.101: Input should be less than or equal to 100"),
        ("runs", {10.0: [0], 100: [0]}, "runs: Input should be a valid integer, got 10.0"),
        ("runs", {"100": [0]}, "runs.100: Input should be a valid integer"),
        ("runs", {100: [0.5]}, "runs.100.0: Input should be a valid integer"),
        ("runs", {50: [0], 100: [0]}, "normalize.window must be given by hand with a label budget below 100 %"),
        ("finetune.keep", "some", "finetune.keep: Input should be 'explained', 'all' or 'none'"),
        ("compute.store_gb", 0, "compute.store_gb: Input should be greater than 0"),
        ("arms.random.extra_updates", -1, "arms.random.extra_updates"),
        ("normalize.window", [250, -150], "normalize.window: window is [low, high] with low < high"),
        ("normalize.regions.left", [0.0, 0.5, 0.0, 0.5], "normalize.regions: give both left and right"),
        ("normalize.regions.organ", [0.0, 0.5, 0.0, 0.5], "normalize.regions.organ is of a single organ"),
        (
            "normalize.regions.organ",
            [0.5, 0.5, 0.0, 0.5],
            "normalize.regions: a rectangle is [top",
        ),
        ("data.classes.organ", "Liver", "data.classes.organ: String should match pattern"),
        ("data.classes.organ", "<b>", "data.classes.organ: String should match pattern"),
        ("data.classes.cyst", "tumor", "data.classes: organ, tumor and cyst must have different names"),
        (
            "data.classes.labels",
            {1: "liver"},
            "data.classes.labels.1: unknown 'liver', known: organ",
        ),
        ("data.classes.labels", {1: "organ"}, "data.classes: labels must say which value is tumor"),
        ("data.classes.labels", {0: "organ", 1: "tumor"}, "data.classes.labels"),
        ("data.classes.labels", {256: "organ", 1: "tumor"}, "data.classes.labels"),
        ("data.classes.labels", {1: "tumor"}, "analysis.primary: data.classes.labels have no organ to compare with"),
        ("recipes", {}, "recipes: Dictionary should have at least 1 item"),
        ("recipes.thesis.warmup", 1.0, "recipes.thesis.warmup: Input should be less than 1"),
        (
            "recipes.thesis.schedule",
            "step",
            "recipes.thesis.schedule: Input should be 'constant', 'cosine' or 'plateau'",
        ),
        ("recipes.thesis.clip", 0, "recipes.thesis.clip: Input should be greater than 0"),
        ("recipes.modern.schedule", "plateau", "recipes.modern: plateau must give factor and patience"),
        ("finetune.recipe", "best", "finetune.recipe: unknown 'best', known: thesis, modern"),
        ("pretrain.common.recipe", [1], "pretrain.common.recipe: unknown [1], known: thesis, modern"),
        ("pretrain.methods.rotation.recipe", "x", "pretrain.methods.rotation.recipe: unknown 'x', known: thesis"),
        ("arms.random.recipe", "best", "arms.random.recipe: unknown 'best', known: thesis, modern"),
        ("finetune.optimizer", "sgd", "finetune.optimizer: Input should be 'adam', 'adamw' or 'lars', got 'sgd'"),
        ("finetune.select", "first", "finetune.select: Input should be 'best' or 'last'"),
        ("pretrain.common.select", "last", "pretrain.common.select: unknown key"),
        ("finetune.search_cases", 0, "finetune.search_cases: Input should be greater than or equal to 1"),
        ("finetune.learning_rates", [float("nan")], "finetune.learning_rates.0"),
    ],
)
def test_bad_values_are_one_line_with_the_key(tmp_path: Path, key: str, value: Any, expected: str) -> None:
    content = default()
    put(content, key, value)
    assert expected in refused(tmp_path, content)


def test_a_small_budget_needs_regions_by_hand_too(tmp_path: Path) -> None:
    content = default()
    put(content, "runs", {10: [0], 100: [0]})
    put(content, "normalize.window", [-150, 250])
    assert "normalize.regions.left and .right must be given by hand" in refused(tmp_path, content)


def test_a_single_organ_has_one_rectangle(tmp_path: Path) -> None:
    content = default()
    put(content, "data.classes.paired", False)
    assert Params.model_validate(content).normalize.regions.by_hand is None
    put(content, "normalize.regions.organ", [0.1, 0.6, 0.0, 0.7])
    assert Params.model_validate(content).normalize.regions.by_hand == {"organ": (0.1, 0.6, 0.0, 0.7)}
    for side in ("left", "right"):
        put(content, f"normalize.regions.{side}", [0.0, 0.5, 0.0, 0.5])
    assert "normalize.regions: left and right are of a pair: give organ" in refused(tmp_path, content)


def test_a_small_budget_of_a_single_organ_needs_its_rectangle(tmp_path: Path) -> None:
    content = default()
    put(content, "runs", {10: [0], 100: [0]})
    put(content, "normalize.window", [-150, 250])
    put(content, "data.classes.paired", False)
    assert "normalize.regions.organ must be given by hand" in refused(tmp_path, content)


def test_budgets_are_every_seed_of_every_percent_sorted() -> None:
    content = read_yaml((ROOT / "studies/smoke.yaml").read_text())
    content["runs"] = {100: [3, 0], 10: [7, 0, 3], 1: [0]}
    assert Params.model_validate(content).budgets == [(1, 0), (10, 0), (10, 3), (10, 7), (100, 0), (100, 3)]


def test_a_pretraining_has_the_common_values_but_for_those_that_its_block_changes() -> None:
    content = default()
    content["pretrain"]["methods"] = {
        "rotation": {"method": "rotation", "start": "random", "seeds": [0]},
        "cpc": {"method": "cpc", "start": "random", "seeds": [1, 4], "epochs": 7, "options": {"grid": 5}},
    }
    content["arms"], content["analysis"]["contrasts"] = {"random": content["arms"]["random"]}, []
    common, methods = content["pretrain"]["common"], content["pretrain"]["methods"]
    found = Params.model_validate(content).model_dump()["pretrain"]["methods"]
    recipe = {key: value for key, value in content["recipes"]["thesis"].items() if key != "select"}
    assert found == {name: recipe | common | block for name, block in methods.items()}
    assert methods["rotation"] == {"method": "rotation", "start": "random", "seeds": [0]}  # what was read is unchanged


def test_seeds_take_the_replicates_of_their_weights_in_turn() -> None:
    content = read_yaml((ROOT / "studies/kits23.yaml").read_text())
    content["initialize"]["random"]["seeds"] = [0, 3, 5]
    content["pretrain"]["methods"]["rotation"]["seeds"] = [4]
    found = Params.model_validate(content)
    assert [found.replicate("initial/random", seed) for seed in range(7)] == [0, 3, 5, 0, 3, 5, 0]
    assert [found.replicate("initial/imagenet", seed) for seed in range(3)] == [0, 0, 0]
    assert [found.replicate("pretrain/rotation", seed) for seed in (0, 4)] == [4, 4]
    assert [found.replicate("pretrain/genesis", seed) for seed in (0, 1, 2)] == [0, 1, 0]  # of `common`
    assert found.weights_file("initial/random", 4) == Path("models/initial/random/3.safetensors")


def test_a_block_that_names_a_recipe_has_nothing_of_the_common_one_and_its_own_keys_win(tmp_path: Path) -> None:
    content = default()
    put(content, "pretrain.common.warmup", 0.3)
    methods = content["pretrain"]["methods"]
    methods["rotation"] |= {"recipe": "modern", "clip": 7.0}
    found = Params.model_validate(content)
    modern = {key: value for key, value in content["recipes"]["modern"].items() if key != "select"}
    chosen = found.pretrain.methods["rotation"].model_dump()
    assert {key: chosen[key] for key in modern} == modern | {"clip": 7.0}
    assert (chosen["epochs"], chosen["recipe"]) == (content["pretrain"]["common"]["epochs"], "modern")
    assert found.pretrain.methods["simclr"].warmup == 0.3


def test_an_arm_takes_the_recipe_that_it_names_and_else_that_of_the_section() -> None:
    content = default()
    put(content, "finetune.clip", 7.0)
    put(content, "arms.random.recipe", "modern")
    put(content, "arms.rotation.recipe", "thesis")
    found = Params.model_validate(content)
    named = {arm: found.finetune_of(arm) for arm in ("random", "rotation", "simclr")}
    for arm, recipe in (("random", "modern"), ("rotation", "thesis")):
        wanted = content["recipes"][recipe]
        assert {key: named[arm][key] for key in wanted} == wanted
    assert (named["simclr"]["optimizer"], named["simclr"]["clip"]) == ("adam", 7.0)
    assert (named["simclr"]["select"], named["random"]["select"]) == ("best", "last")
    assert all(one["epochs"] == content["finetune"]["epochs"] for one in named.values())


def test_the_thesis_recipe_is_constant_adam_with_l2_and_the_inpaintings_of_kits23_lower_it_on_a_plateau() -> None:
    study = load(ROOT / "studies" / "kits23.yaml")
    assert study.finetune.optimizer == "adam"
    assert (study.finetune.schedule, study.finetune.warmup, study.finetune.clip) == ("constant", 0, None)
    for name, block in study.pretrain.methods.items():
        restores = block.method.startswith("inpaint") or block.method in ("oracle", "identity")
        expected = "cosine" if "modern" in name else "plateau" if restores else "constant"
        assert block.schedule == expected, name
    assert len(study.finetune.learning_rates) >= 3
    modern = {arm for arm, block in study.arms.items() if block.recipe == "modern"}
    assert modern >= {"random_modern", "imagenet_modern"}
    for arm in modern:
        kind, _, name = study.arms[arm].weights.partition("/")
        assert kind == "initial" or study.pretrain.methods[name].recipe == "modern"


def test_a_wrong_value_of_a_recipe_is_named_once_where_it_stands(tmp_path: Path) -> None:
    content = default()
    put(content, "recipes.thesis.weight_decay", -1)
    message = refused(tmp_path, content)
    assert message.count("weight_decay") == 1
    assert "recipes.thesis.weight_decay" in message


def test_a_wrong_common_value_is_named_once_where_it_stands(tmp_path: Path) -> None:
    content = default()
    put(content, "pretrain.common.epochs", 0)
    message = refused(tmp_path, content)
    assert message.count("epochs") == 1
    assert "pretrain.common.epochs" in message


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    content = default()
    del content["select"]["min_tumor_px"]
    assert refused(tmp_path, content).endswith("select.min_tumor_px: missing")


def test_several_errors_stand_in_one_line(tmp_path: Path) -> None:
    content = default()
    put(content, "finetune.epochs", 0)
    put(content, "select.sede", 0)
    message = refused(tmp_path, content)
    assert "finetune.epochs" in message
    assert "select.sede" in message


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "a: b: c", "\x00"])
def test_no_mapping_is_one_line(tmp_path: Path, text: str) -> None:
    assert "params.yaml: " in refused(tmp_path, text)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "params.yaml")


def test_stores_fill_in_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = default()
    put(content, "data.raw_dir", "$KIDNEY_TEST_STORE/raw")
    put(content, "compute.store", "$KIDNEY_TEST_STORE/runs")
    path = tmp_path / "params.yaml"
    path.write_text(dump_yaml(content))
    read = load(path)
    with pytest.raises(InputError, match=r"data\.raw_dir"):
        _ = read.data.store
    with pytest.raises(InputError, match=r"compute\.store"):
        _ = read.compute.store_folder
    monkeypatch.setenv("KIDNEY_TEST_STORE", "/store")
    assert (read.data.store, read.compute.store_folder) == (Path("/store/raw"), Path("/store/runs"))


def test_a_store_of_a_person_without_a_home_is_one_line(tmp_path: Path) -> None:
    content = default()
    put(content, "data.raw_dir", "~nobody-there/raw")
    path = tmp_path / "params.yaml"
    path.write_text(dump_yaml(content))
    with pytest.raises(InputError, match=r"data\.raw_dir: '~nobody-there/raw' names a person without a home"):
        _ = load(path).data.store


@given(
    st.sampled_from(sorted(flat(default()))),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=5),
)
def test_any_value_is_accepted_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any
) -> None:
    content = default()
    put(content, key, value)
    path = tmp_path_factory.mktemp("fuzz") / "params.yaml"
    path.write_text(dump_yaml(content))
    message = ""
    try:
        load(path)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    assert not message or key.split(".", maxsplit=1)[0] in message


SMOKE = (ROOT / "studies/smoke.yaml").read_text()


def test_numbers_and_words_are_those_that_dvc_reads(tmp_path: Path) -> None:
    text = SMOKE.replace("\n  random:\n    # models", "\n  no:\n    # models").replace(
        "baseline: random", "baseline: no"
    )
    text = re.sub(r"( +learning_rates:)[^#]*", r"\1 [5e-4]\n", text, count=1)
    path = tmp_path / "params.yaml"
    path.write_text(text)
    study = load(path)
    assert next(iter(study.arms)) == study.analysis.baseline == "no"
    assert study.finetune.learning_rates == [0.0005]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("  cases: null", "  cases: [00010, 00011]", "00010"),
        ("  min_tumor_px: ", "  min_tumor_px: 00", "00"),
        ("  cases: null", "  cases: null\n  cases: [1]", "cases"),
        ("\narms:", "\narms:\n  1e3: {weights: initial/random, augmentation: none}", "got 1000.0"),
        ("\narms:", "\narms:\n  null: {weights: initial/random, augmentation: none}", "got None"),
        ("\nruns:", "\nselect: {}\nruns:", "select"),
    ],
)
def test_what_people_and_dvc_would_read_otherwise_is_refused(old: str, new: str, named: str, tmp_path: Path) -> None:
    assert old in SMOKE
    assert named in refused(tmp_path, SMOKE.replace(old, new, 1))


def test_relative_paths_of_an_experiments_copy_are_the_projects_unless_they_are_in_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = default()
    content["data"] |= {"source": "directory", "root": "../scans", "raw_dir": "data/raw"}
    content["initialize"]["imagenet"] = {"file": "weights/resnet18.pth"}
    content["arms"] |= {"imagenet": {"weights": "initial/imagenet", "augmentation": "none"}}
    study = Params.model_validate(content)
    phantom = Params.model_validate(content | {"data": content["data"] | {"source": "phantom"}})
    project = tmp_path / "some where"
    copy = project / ".dvc/tmp/exps/standalone/tmpab12"
    copy.mkdir(parents=True)
    monkeypatch.chdir(project)
    assert (study.data.store, study.compute.store_folder) == (Path("../scans"), Path("checkpoints/store"))
    monkeypatch.chdir(copy)
    assert study.data.store.resolve() == tmp_path / "scans"
    assert study.compute.store_folder == project / "checkpoints/store"
    assert isinstance(study.initialize["imagenet"], TorchvisionWeights)
    assert study.initialize["imagenet"].path == project / "weights/resnet18.pth"
    # Volumes of an experiment's own parameters are its own, and not made over the project's.
    assert (phantom.data.store, phantom.data.phantom_store) == (project / "data/raw", Path("data/raw"))
    (copy / "data/raw").mkdir(parents=True)
    assert phantom.data.store == Path("data/raw")
