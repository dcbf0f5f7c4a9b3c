"""Peak memory and time of each stage against the number of cases, and the selection over millions of slices.

`python -m benchmarks.scale` prints the tables of docs/scale.md. Cases are phantoms of 192 x 192 pixels, the same few
under new names, so that each study has equally large ones. Memory is the peak of what a stage and its workers hold
themselves: pages of memory-mapped arrays are left out, which the system takes back when it needs them, and trainings
read their slices from the map (`compute.resident: never`), as they do when a part is larger than the memory.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.preparation import CASES, ROOT, make_study, measured
from benchmarks.timing import own_bytes
from kidney_ssl.data.selection import select
from kidney_ssl.yamlfile import dump_yaml, read_yaml

FACTORS = (1, 4, 16)
STAGES = (
    ("select",),
    ("slice",),
    ("normalize",),
    ("initialize", "random"),
    ("pretrain", "rotation"),
    ("finetune", "random"),
    ("finetune", "rotation"),
    ("evaluate", "random"),
    ("evaluate", "rotation"),
    ("shortcut",),
    ("explain", "random"),
    ("explain", "rotation"),
    ("report",),
)
INDEX_CASES = (489, 4_890, 48_900)  # KiTS23, 10 and 100 times as many


def main() -> None:
    """Measure both and print the tables."""
    peaks: dict[str, dict[int, tuple[float, float]]] = {}
    for factor in FACTORS:
        with tempfile.TemporaryDirectory() as folder:
            study = Path(folder)
            make_study(study, factor * CASES)
            _simplify(study / "params.yaml")
            (study / "src").symlink_to(ROOT / "src")
            for name, *arguments in tqdm(STAGES, desc=f"{factor * CASES} cases", unit="stage"):
                started = time.monotonic()
                both = measured(study, name, *arguments, memory=own_bytes), time.monotonic() - started
                peaks.setdefault(name, {})[factor] = max(both, peaks.get(name, {}).get(factor, (0.0, 0.0)))
            sizes = {part: len(np.load(study / f"data/slices/{part}_images.npy", "r")) for part in ("train", "test")}
            natural = len(np.load(study / "data/natural/natural_images.npy", "r"))
            print(f"{factor * CASES} cases: {sizes['train']:,} training, {sizes['test']:,} test, {natural:,} natural")
    header = " | ".join(f"{factor * CASES} cases" for factor in FACTORS)
    print(f"\n| stage | {header} | x{FACTORS[-1]} / x1 | {header} |")
    print(f"|---|{'---:|' * (2 * len(FACTORS) + 1)}")
    for name, found in peaks.items():
        memory = [f"{found[factor][0]:,.0f} MB" for factor in FACTORS]
        took = [f"{found[factor][1]:,.1f} s" for factor in FACTORS]
        grown = found[FACTORS[-1]][0] / found[FACTORS[0]][0]
        print(f"| {name} | {' | '.join(memory)} | {grown:.2f} | {' | '.join(took)} |")
    print("\n| cases | slices | file | read | select | peak memory |")
    print("|---:|---:|---:|---:|---:|---:|")
    for cases in INDEX_CASES:
        print(_index_row(cases))


def _simplify(file: Path) -> None:
    """One epoch of two arms."""
    params: dict[str, Any] = read_yaml(file.read_text(encoding="utf-8"))
    params["pretrain"]["methods"] = {"rotation": params["pretrain"]["methods"]["rotation"]}
    params["arms"] = {name: params["arms"][name] for name in ("random", "rotation")}
    params["analysis"]["contrasts"] = []
    params["finetune"] |= {"epochs": 1, "min_updates": 0}
    params["compute"]["resident"] = "never"
    file.write_text(dump_yaml(params), encoding="utf-8")


def _index_row(cases: int) -> str:
    """Choose among the slices of so many cases, as many a case as KiTS23 has, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "slices.csv"
        slices = _index(cases)
        slices.to_csv(file, index=False, lineterminator="\n")
        count, size = len(slices), file.stat().st_size
        del slices
        code = f"from benchmarks.scale import choose; choose({str(file)!r})"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
    read, took, peak = map(float, done)
    return f"| {cases:,} | {count:,} | {size / 1e6:,.0f} MB | {read:.1f} s | {took:.1f} s | {peak:,.0f} MB |"


def choose(file: str) -> None:
    """Read an index and select from it; prints seconds of both and the peak memory in MB."""
    import resource

    started = time.monotonic()
    slices = pd.read_csv(file, dtype={"case": str, "block": str})
    read = time.monotonic()
    select(slices, min_tumor_px=1000, folds=5, fold=0, validation=0.1, split_seed=0, draw_seed=0)
    done = time.monotonic()
    print(read - started, done - read, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)


def _index(cases: int) -> pd.DataFrame:
    """Rows as `slice_rows` makes them: some 210 slices a case, tumor in an eighth of them, kidney in a third."""
    generator = np.random.default_rng(0)
    sizes = np.clip(generator.lognormal(5.0, 0.8, cases), 20, 1000).astype(np.int64)
    case = np.repeat(np.arange(cases), sizes)
    within = np.arange(len(case)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kidney = np.where(generator.random(len(case)) < 0.34, generator.integers(1, 9000, len(case)), 0)
    tumor = np.where(generator.random(len(case)) < 0.13, generator.integers(1, 5000, len(case)), 0)
    columns: dict[str, Any] = {
        "case": np.char.add("case_", np.char.zfill(case.astype(str), 5)),
        "slice": within,
        "position": (within + 0.5) / np.repeat(sizes, sizes),
    }
    areas = {"kidney": kidney, "tumor": tumor, "cyst": np.zeros(len(case), np.int64)}
    columns |= {f"{name}_px": values for name, values in areas.items()}
    columns |= {f"{name}_mm2": np.round(values * 0.61, 3) for name, values in areas.items()}
    columns |= {"spacing_mm": 0.781, "thickness_mm": 3.0, "block": np.where(case % 2, "first", "second")}
    return pd.DataFrame(columns)


if __name__ == "__main__":
    main()
