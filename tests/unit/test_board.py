"""TensorBoard's own reader finds in the event files of `kidney-ssl board` what the study's files hold."""

import importlib
import io
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kidney_ssl.cli import main
from kidney_ssl.commands import board
from tests.unit.report.study_files import write_study

event_accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator",
    reason="tensorboard is optional: pip install 'kidney-ssl[tensorboard]'",
)
event_files = importlib.import_module("kidney_ssl.event_files")  # needs the package
HOST = "a-machine-of-this-test"
Scalars = dict[tuple[str, int], float]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Two arms at two budgets and a pretraining with two seeds; a run of `rotation` tried a second learning rate."""
    root = tmp_path_factory.mktemp("study")
    arms = {"rotation": "pretrain/rotation", "random": "initial/random"}
    params = write_study(root, arms=arms, pretraining_seeds=(0, 1), percents=(25, 100))
    path = root / "models/finetune/rotation/25-0/curves.csv"
    tried = pd.read_csv(path)
    pd.concat([tried.assign(learning_rate=0.5, train_loss=9.0, selected=0), tried]).to_csv(path, index=False)
    return root, params


@pytest.fixture(scope="module")
def shown(study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("events")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: HOST)
        written, lacking = event_files.write_board(*study, out)
    assert (written, lacking) == (2 + 2 * 2 + 2 + 2, [])  # seeds, runs, rates, budgets
    return out


def read(folder: Path) -> Any:
    return event_accumulator.EventAccumulator(str(folder), {"scalars": 0, "images": 0}).Reload()


def scalars(folder: Path) -> Scalars:
    found = read(folder)
    return {(tag, one.step): one.value for tag in found.Tags()["scalars"] for one in found.Scalars(tag)}


def pixels(of: Path | bytes) -> np.ndarray:
    return np.asarray(Image.open(of if isinstance(of, Path) else io.BytesIO(of)).convert("RGB"))


def columns(table: pd.DataFrame, names: Mapping[str, str]) -> Scalars:
    return {
        (tag, int(row["epoch"])): row[column]
        for column, tag in names.items()
        for _, row in table.iterrows()
        if not np.isnan(row[column])
    }


def test_a_pretraining_shows_its_table(study, shown: Path) -> None:
    table = pd.read_csv(study[0] / "metrics/pretrain/rotation.csv")
    names = {"validation_mse": "validation/mse", "validation_mse_copy": "validation/mse_copy"}
    names |= {"validation_loss": "validation/loss", "probe_knn_accuracy": "probe/knn_accuracy"}
    names |= {"probe_linear_accuracy": "probe/linear_accuracy", "probe_majority_accuracy": "probe/majority_accuracy"}
    for seed in (0, 1):
        expected = columns(table[table["seed"] == seed], names)
        assert ("probe/knn_accuracy", 3) in expected
        assert ("probe/knn_accuracy", 1) not in expected  # not probed
        assert scalars(shown / f"pretrain/rotation/{seed}") == pytest.approx(expected)


def test_a_run_shows_its_curves_and_its_metrics_at_the_selected_epoch(study, shown: Path) -> None:
    root, _ = study
    names = {"train_loss": "train/loss", "validation_auroc": "validation/auroc"}
    names |= {"test_accuracy": "test/accuracy", "test_f1": "test/f1"}
    found = scalars(shown / "finetune/random/25-0")
    curves = columns(pd.read_csv(root / "models/finetune/random/25-0/curves.csv"), names)
    metrics = json.loads((root / "report/evaluate/random.json").read_text())["25-0"]
    final = {
        ("final/accuracy", 3): metrics["selected"]["test"]["accuracy"],
        ("final/auroc_natural", 3): metrics["natural"]["tumor"]["auroc"],
        ("final/linear_auroc", 3): metrics["frozen"]["linear"]["auroc"],
    }
    assert {key: found[key] for key in (*curves, *final)} == pytest.approx(curves | final)
    assert metrics["frozen"]["knn"]["auroc"] is None
    assert ("final/knn_auroc", 3) not in found
    assert {tag for tag, _ in found if not tag.startswith("final/")} == set(names.values())


def test_each_learning_rate_that_was_tried_has_its_own_curves(shown: Path) -> None:
    folder = shown / "finetune/rotation/25-0"
    losses = {rate: scalars(folder / f"rate-{rate}")["train/loss", 1] for rate in (0.1, 0.5)}
    assert losses == pytest.approx({0.1: 0.7, 0.5: 9.0})
    assert {tag.partition("/")[0] for tag, _ in scalars(folder)} == {"final"}


def test_label_budgets_show_the_summary_with_its_intervals(study, shown: Path) -> None:
    summary = json.loads((study[0] / "metrics/summary.json").read_text())
    found = scalars(shown / "finetune/rotation/budgets")
    expected = {
        ("budget/auroc", 25): summary["auroc_25"]["rotation"],
        ("budget/auroc", 100): summary["auroc"]["rotation"],
        ("budget/accuracy_low", 25): summary["accuracy_25_low"]["rotation"],
        ("budget/accuracy_high", 100): summary["accuracy_high"]["rotation"],
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected)


def test_pictures_are_those_of_the_report(study, shown: Path) -> None:
    root, _ = study
    (cam, *_) = sorted((root / "report/explain/rotation").glob("same_*.png"))
    files = {
        "pretrain/rotation/0": {"pictures/before_after": root / "report/pretrain/rotation/before_after.png"},
        "finetune/rotation/100-0": {f"grad_cam/{cam.stem}": cam},
        "finetune/random/100-0": {"augmentation/squares": root / "report/explain/random/augmentation/squares.png"},
    }
    for run, pictures in files.items():
        events = read(shown / run)
        for tag, file in pictures.items():
            (image,) = events.Images(tag)
            assert image.step == 3
            np.testing.assert_array_equal(pixels(image.encoded_image_string), pixels(file))
    for other in ("pretrain/rotation/1", "finetune/rotation/25-0"):
        assert read(shown / other).Tags()["images"] == []


def test_files_tell_neither_host_nor_when_an_epoch_was(shown: Path) -> None:
    files = [path for path in shown.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {event_files.FILE}
    assert not [path for path in files if HOST.encode() in path.read_bytes()]
    events = read(shown / "finetune/rotation/100-0")
    assert {one.wall_time for tag in events.Tags()["scalars"] for one in events.Scalars(tag)} == {0}


def test_a_second_call_replaces_what_the_first_wrote_and_nothing_else(study, tmp_path: Path) -> None:
    root, params = study
    foreign = tmp_path / "pretrain/rotation/events.out.tfevents.1.host.2.0"
    for path in (foreign, tmp_path / "finetune/removed/100-0" / event_files.FILE):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"before")
    one = params | {"pretrain": {"methods": {}}, "arms": {"later": {}, "random": {}}}
    for _ in range(2):
        assert event_files.write_board(root, one, tmp_path) == (3, ["finetune later"])
    assert {path.parent.name for path in tmp_path.rglob(event_files.FILE)} == {"25-0", "100-0", "budgets"}
    assert foreign.read_bytes() == b"before"


def test_a_study_without_results_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(new_study(tmp_path))
    with pytest.raises(SystemExit, match="nothing is recorded yet: `kidney-ssl run` first"):
        main(["board"])


def new_study(folder: Path) -> Path:
    """A study that has not run."""
    (folder / "stages").mkdir(parents=True)
    (folder / "dvc.yaml").touch()
    smoke = Path(__file__).parents[2] / "studies/smoke.yaml"
    (folder / "params.yaml").write_bytes(smoke.read_bytes())
    return folder


def test_the_command_writes_below_logs_and_says_where(tmp_path: Path, monkeypatch, capsys) -> None:
    folder = new_study(tmp_path)
    monkeypatch.chdir(folder)
    Path("metrics/pretrain").mkdir(parents=True)
    Path("metrics/pretrain/rotation.csv").write_text("seed,epoch,train_loss\n0,1,0.25\n")
    main(["board"])
    assert scalars(Path("logs/tensorboard/pretrain/rotation/0")) == {("train/loss", 1): 0.25}
    assert capsys.readouterr().out.endswith("tensorboard --logdir logs/tensorboard\n")


@pytest.mark.parametrize(
    ("file", "said"),
    [("metrics/pretrain/rotation.csv", "rotation.csv: cannot be read"), ("metrics/summary.json", "summary.json: cann")],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, monkeypatch, file: str, said: str) -> None:
    monkeypatch.chdir(new_study(tmp_path))
    Path(file).parent.mkdir(parents=True)
    Path(file).write_bytes(b"\xff")
    with pytest.raises(SystemExit, match=said) as refused:
        main(["board"])
    assert "\n" not in str(refused.value)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(new_study(tmp_path))
    Path("metrics/pretrain").mkdir(parents=True)
    Path("metrics/pretrain/rotation.csv").write_text("seed,epoch,train_loss\n0,1,0.25\n")
    Path("taken").touch()
    with pytest.raises(SystemExit, match=r"error: taken.*: cannot be read or written") as refused:
        main(["board", "--out", "taken"])
    assert "\n" not in str(refused.value)


def test_without_the_package_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(new_study(tmp_path))
    monkeypatch.setattr(board, "find_spec", lambda _: None)
    with pytest.raises(SystemExit) as refused:
        main(["board"])
    assert str(refused.value) == "error: board needs TensorBoard: pip install 'kidney-ssl[tensorboard]'"
