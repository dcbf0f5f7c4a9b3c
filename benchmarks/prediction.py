"""`kidney-ssl predict` on a CT of 512 x 512 x 500 voxels, with an untrained ResNet-18: seconds and memory.

A frame of 256 pixels, and one of 512, in which a ResNet-18 computes 9.5 TFLOP for the 500 slices: more than a minute of
two cores that do 60 GFLOP/s each.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.timing import at_most, peak_mb
from kidney_ssl.deploy.familiarity import Reference
from kidney_ssl.deploy.network_folder import FAMILIARITY, MODEL, NOTICE, SETTINGS
from kidney_ssl.files import write_text
from kidney_ssl.models.resnet import classifier
from kidney_ssl.models.weights import save_weights

SIDE, SLICES, SPACING_MM = 512, 500, 0.78
FRAMES = (256, 512)
MOST_SECONDS = 60
WIDTH = 512  # features of a ResNet-18


def run() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure; a row a frame, and CPU seconds and memory."""
    rows, details = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_volume(folder / "ct.nii")
        for size in FRAMES:
            write_network(folder / str(size), size)
            command = [sys.executable, "-m", "kidney_ssl.cli", "predict", str(folder / str(size)),
                       str(folder / "ct.nii"),
                       "--to", str(folder / "out"), "--anyway"]  # fmt: skip
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            megabytes = peak_mb(command)
            seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            work = f"seconds of predict on a CT of {SIDE} x {SIDE} x {SLICES}, ResNet-18, frame of {size} px"
            rows.append(at_most(work, "-", seconds, MOST_SECONDS, digits=1))
            details[f"predict, frame of {size} px"] = {
                "CPU seconds": round(cpu),
                "peak memory, MB": round(megabytes),
            }
    return rows, details


def write_volume(path: Path) -> None:
    """Write an int16 CT: a body with noise, lung in its upper quarter, spine and table."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((SIDE, SIDE)) - SIDE // 2
    body = np.hypot(rows / 170, columns / 220) < 1
    grain = rng.normal(0, 25, (16, SIDE, SIDE)).astype(np.int16)
    volume = np.empty((SLICES, SIDE, SIDE), np.int16)
    for number in range(SLICES):
        plane = volume[number]
        plane[:] = np.where(body, 40, -1000)
        if number < SLICES // 4:
            plane[np.hypot(rows / 90, (columns + 106) / 60) < 1] = -800
        plane[np.hypot(rows - 74, columns) < 35] = 300
        plane[200:208, 60:-60] = 100
        volume[number] += grain[number % len(grain)]
    affine = np.array([[0, 0, -SPACING_MM, 0], [0, -SPACING_MM, 0, 0], [-1.0, 0, 0, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(volume, affine), path)


def write_network(folder: Path, size: int) -> None:
    """Write a network folder as `kidney-ssl export` does, of an untrained network that finds everything familiar."""
    folder.mkdir()
    save_weights(classifier("resnet18", 0).state_dict(), folder / MODEL)
    Reference(np.zeros(WIDTH), np.eye(WIDTH)).save(folder / FAMILIARITY)
    settings = {
        "format": 1, "notice": NOTICE, "network": "resnet18", "arm": "random", "percent": 100, "seed": 0,
        "classes": {"organ": "kidney", "tumor": "tumor", "cyst": "cyst", "paired": True}, "min_tumor_px": 1,
        "threshold": 0.5, "frame": {"size": size, "body_hu": -300, "opening_mm": 6.0}, "window": [-150, 250],
        "range": "window", "regions": {}, "layer": None,
        "familiar": {"cases": 3, "slices": 3, "spacing_mm": [0.7, 0.9], "thickness_mm": [0.5, 5], "quantile": 0.99,
                     "bound": 1e6, "scores": [1.0]},
    }  # fmt: skip
    write_text(folder / SETTINGS, json.dumps(settings))
