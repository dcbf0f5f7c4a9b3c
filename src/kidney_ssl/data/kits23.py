"""KiTS23 from its publishers: imaging from the Hugging Face hub, labels from GitHub, both at pinned commits."""

import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from kidney_ssl.data.fetch import Dataset, OutageError, Transfer, ask_hub, hub_headers
from kidney_ssl.data.kits23_store import Published, complete_case, missing_bytes, noted
from kidney_ssl.data.manifest import Row, choose_cases
from kidney_ssl.data.registry import label_files
from kidney_ssl.errors import InputError

LICENCE = """\
KiTS23, the 2023 Kidney Tumor Segmentation Challenge's dataset
by N. Heller et al., https://github.com/neheller/kits23, https://arxiv.org/abs/2307.01984

Licence: Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International (CC BY-NC-SA 4.0),
https://creativecommons.org/licenses/by-nc-sa/4.0/

Changed here: the files were renamed into one folder a case; their contents are unchanged.
"""
OUTAGES = 10  # failures in a row after which the remaining cases are not tried
CONTINUE = "`dvc repro download` continues"


def download(
    store: Path,
    *,
    cases: Sequence[str | int] | str | None,
    exclude: Sequence[str],
    imaging_endpoint: str | None,
    imaging_repository: str,
    imaging_revision: str,
    labels_endpoint: str,
    labels_repository: str,
    labels_revision: str,
    connections: int,
    timeout: float,
) -> list[Row]:
    """Fetch the volumes that the store lacks: <store>/case_XXXXX/{imaging,segmentation}.nii.gz.

    A file is complete if size and sha256 are the published ones, its gzip can be read to the end and the grids of the
    pair agree. Every other file is downloaded next to its place and moved there. An interrupted run is resumed.

    Args:
        store: folder of the volumes; several runs may share it at the same time.
        cases: see `manifest.choose_cases`.
        exclude: see `manifest.choose_cases`.
        imaging_endpoint: the hub; None for HF_ENDPOINT or the hub's default.
        imaging_repository: dataset on the hub.
        imaging_revision: its commit.
        labels_endpoint: server of GitHub's raw files.
        labels_repository: repository on GitHub.
        labels_revision: its commit, the one of `registry.label_files`.
        connections: number of simultaneous downloads.
        timeout: seconds without a byte after which a connection counts as stalled.

    Returns:
        One row per volume, sorted by case and file.

    Raises:
        InputError: the disk is too small, or cases are incomplete; one line with all of them and what to do.
    """
    names = choose_cases(list(label_files()), cases, exclude)
    licence = store / "LICENSE.txt"
    try:
        store.mkdir(parents=True, exist_ok=True)
        if not licence.exists() or licence.read_text(encoding="utf-8") != LICENCE:
            licence.write_text(LICENCE, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{store}: cannot be written ({error.strerror}); set data.raw_dir to another folder"
        ) from error
    dataset = Dataset((imaging_endpoint or "").rstrip("/") or None, imaging_repository, imaging_revision)
    labels = f"{labels_endpoint.rstrip('/')}/{labels_repository}/{labels_revision}/dataset"
    paths = {case: f"images/{case}.nii.gz" for case in names}
    urls = {case: (dataset.url(paths[case]), f"{labels}/{case}/segmentation.nii.gz") for case in names}
    sources = (f"{imaging_repository}@{imaging_revision}", f"{labels_repository}@{labels_revision}")
    # With notes of the same commit, no query is necessary, so a rerun needs no network.
    imaging = {case: noted(store / case, "imaging.nii.gz", sources[0]) for case in names}
    unknown = [case for case in names if imaging[case] is None]
    try:
        answer = ask_hub(dataset, [paths[case] for case in unknown], timeout=timeout)
    except InputError as error:
        raise InputError(f"imaging of {len(unknown)} cases is not known to be whole: {error}. {CONTINUE}") from error
    imaging |= {case: answer.get(paths[case]) for case in unknown}
    files = {
        case: [
            Published("imaging.nii.gz", urls[case][0], sources[0], imaging[case], on_hub=True),
            Published("segmentation.nii.gz", urls[case][1], sources[1], label_files()[case], on_hub=False),
        ]
        for case in names
    }
    needed = sum(missing_bytes(store / case, file) for case, of_case in files.items() for file in of_case)
    free = shutil.disk_usage(store).free
    if needed > free:
        raise InputError(
            f"{store}: {needed / 1e9:.2f} GB are to be fetched and {free / 1e9:.2f} GB are free; "
            "make room, set data.raw_dir to another disk, or choose fewer data.cases"
        )
    return _all_cases(store, files, connections=connections, timeout=timeout)


def _all_cases(store: Path, files: dict[str, list[Published]], *, connections: int, timeout: float) -> list[Row]:
    """Process the cases in threads, and report all failures together."""
    rows: list[Row] = []
    problems: dict[str, str] = {}
    outages = 0
    stop, lock = threading.Event(), threading.Lock()
    total = sum(file.known.bytes for of_case in files.values() for file in of_case if file.known)
    with (
        tqdm(desc="KiTS23", total=total, unit="B", unit_scale=True) as bar,
        ThreadPoolExecutor(connections) as pool,
    ):

        def advance(count: int) -> None:
            with lock:
                bar.update(count)

        def bring(file: Published, part: Path) -> None:
            assert file.known is not None
            headers = hub_headers() if file.on_hub else {}
            Transfer(file.url, part, file.known, headers, timeout, advance, stop).run()

        def work(case: str) -> list[Row]:
            if stop.is_set():
                raise OutageError  # without a message: the case was not tried
            return complete_case(store / case, files[case], fetch=bring, advance=advance, cancelled=stop.is_set)

        tasks = {pool.submit(work, case): case for case in files}
        try:
            for task in as_completed(tasks):
                try:
                    rows += task.result()
                    outages = 0
                except InputError as error:
                    problems[tasks[task]] = str(error)
                    outages = outages + 1 if isinstance(error, OutageError) else 0
                if outages >= OUTAGES:
                    stop.set()
        finally:
            stop.set()  # also when interrupted
    if problems:
        listed = "; ".join(f"{case}: {problem}" for case, problem in sorted(problems.items()) if problem)
        untried = sum(not problem for problem in problems.values())
        raise InputError(
            f"{len(problems)} of {len(files)} cases of KiTS23 are incomplete: {listed}"
            + (f"; {untried} more were not tried" if untried else "")
            + f". {CONTINUE}; data.exclude skips cases"
        )
    return sorted(rows)
