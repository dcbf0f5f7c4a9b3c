"""params.yaml and the studies: same keys, all commented, bad values refused in one line that names the key."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kidney_ssl.errors import InputError
from kidney_ssl.params import Params, load

ROOT = Path(__file__).parents[1]
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))
FREE = {"arms", "initialize", "pretrain.methods"}  # a study names its own


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and prefix + key not in FREE:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def default() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def put(content: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        content = content[parent]
    content[last] = value


def refused(tmp_path: Path, content: Any) -> str:
    path = tmp_path / "params.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *STUDIES], ids=lambda path: path.name)
def test_every_parameter_file_is_valid(path: Path) -> None:
    assert isinstance(load(path), Params)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_studies_have_the_same_keys_as_the_default(path: Path) -> None:
    assert set(flat(yaml.safe_load(path.read_text()))) == set(flat(default()))


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *STUDIES], ids=lambda path: path.name)
def test_every_key_stands_under_a_comment(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    bare, explained = [], set()
    for before, line, after in zip(["", *lines], lines, [*lines[1:], ""], strict=False):
        if line.lstrip().startswith(("#", "-")):
            continue
        section = line.endswith(":") and not after.lstrip().startswith("-")
        # The blocks of arms and of pretrainings are alike: the first one explains their keys.
        key = (line.index(line.strip()), line.strip().partition(":")[0])
        if "#" in before:
            explained.add(key)
        elif not section and key not in explained:
            bare.append(line.strip())
    assert not bare


def test_kits23_study_has_the_scale_of_the_thesis() -> None:
    study = load(ROOT / "studies" / "kits23.yaml")
    assert study.data.source == "kits23"
    assert (study.slice.image_size, study.select.min_tumor_px) == (512, 1000)
    assert (study.finetune.batch_size, study.finetune.epochs) == (64, 30)
    assert set(study.arms) >= {"random", "imagenet"}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("finetune.epochs", -3, "finetune.epochs: Input should be greater than or equal to 1, got -3"),
        ("finetune.epochs", "ten", "finetune.epochs: Input should be a valid integer, got 'ten'"),
        ("finetune.epochs", "30", "finetune.epochs: Input should be a valid integer, got '30'"),
        ("finetune.epoch", 3, "finetune.epoch: unknown key"),
        ("finetun", {}, "finetun: unknown key"),
        ("data.source", "kits", "data.source: Input should be 'phantom', 'kits23' or 'directory', got 'kits'"),
        ("data.fold", 5, "data: fold must be below folds"),
        ("data.source", "directory", "data: root must name a folder"),
        ("data.cases", "10", "data.cases"),
        ("data.exclude", ["../case"], "data.exclude.0"),
        (
            "arms.imagenet",
            {"weights": "initial/imagenet", "augmentation": "none"},
            "arms.imagenet.weights: unknown 'initial/imagenet'",
        ),
        ("arms.random.augmentation", "mixup", "arms.random.augmentation: unknown augmentation 'mixup', known: basic"),
        ("analysis.baseline", "best", "analysis.baseline: unknown 'best', known: "),
        ("analysis.contrasts", [["random", "gone"]], "analysis.contrasts: unknown 'gone', known: "),
        ("analysis.contrasts", [["random", "random"]], "analysis.contrasts: a pair stands there twice, or an arm"),
        ("explain.seed", 7, "explain.seed: 7 is none of seeds, [0]"),
        ("arms.Bad-Name", {"weights": "initial/random"}, "arms.Bad-Name: String should match pattern"),
        ("arms", {}, "arms"),
        ("finetune.learning-rate", 1, "finetune.learning-rate: unknown key"),
        ("pretrain.methods.rotation-0.epochs", 0, "pretrain.methods.rotation-0.epochs: Input should be greater"),
        ("phantom.slices", float("inf"), "phantom.slices: Input should be a finite number, got inf"),
        ("data.raw_dir", "", "data.raw_dir: String should match pattern"),
        ("pretrain.methods.rotation-0.options", {"a": [[1]]}, "rotation-0.options: a: an option is a number, a word"),
        ("seeds", [0, 0], "seeds: a value stands there twice"),
        ("percents", [0, 100], "percents.0: Input should be greater than or equal to 1, got 0"),
        ("percents", [10.0], "percents.0: Input should be a valid integer"),
        ("percents", [50, 100], "normalize.window must be given by hand with a label budget below 100 %"),
        ("extra_runs", ["100-0"], "extra_runs: a run is already one of percents x seeds"),
        ("extra_runs", ["101-0"], "extra_runs.0: String should match pattern"),
        ("extra_runs", ["05-0"], "extra_runs.0: String should match pattern"),
        ("arms.random.extra_updates", -1, "arms.random.extra_updates"),
        ("normalize.window", [250, -150], "normalize.window: window is [low, high] with low < high"),
        ("normalize.regions.left", [0.0, 0.5, 0.0, 0.5], "normalize.regions: give both left and right"),
        ("finetune.learning_rates", [float("nan")], "finetune.learning_rates.0"),
    ],
)
def test_bad_values_are_one_line_with_the_key(tmp_path: Path, key: str, value: Any, expected: str) -> None:
    content = default()
    put(content, key, value)
    assert expected in refused(tmp_path, content)


def test_a_small_budget_needs_regions_by_hand_too(tmp_path: Path) -> None:
    content = default()
    put(content, "extra_runs", ["10-0"])
    put(content, "normalize.window", [-150, 250])
    assert "normalize.regions.left and .right must be given by hand" in refused(tmp_path, content)


def test_every_arm_runs_at_every_percent_with_every_seed_and_at_the_further_runs() -> None:
    content = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    content |= {"percents": [100, 10], "seeds": [3, 0], "extra_runs": ["10-7", "1-0"]}
    assert Params.model_validate(content).budgets == [(1, 0), (10, 0), (10, 3), (10, 7), (100, 0), (100, 3)]


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


def test_store_fills_in_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = default()
    put(content, "data.raw_dir", "$KIDNEY_TEST_STORE/raw")
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    data = load(path).data
    with pytest.raises(InputError, match=r"data\.raw_dir"):
        _ = data.store
    monkeypatch.setenv("KIDNEY_TEST_STORE", "/store")
    assert data.store == Path("/store/raw")


def test_a_store_of_a_person_without_a_home_is_one_line(tmp_path: Path) -> None:
    content = default()
    put(content, "data.raw_dir", "~nobody-there/raw")
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"data\.raw_dir: '~nobody-there/raw' names a person without a home"):
        _ = load(path).data.store


@settings(max_examples=200, deadline=None)
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
    path.write_text(yaml.safe_dump(content))
    message = ""
    try:
        load(path)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    assert not message or key.split(".", maxsplit=1)[0] in message
