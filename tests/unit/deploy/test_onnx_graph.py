"""The ONNX graph takes HU and gives what torch gives, on real slices where they are there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kidney_ssl.data.body import Frame, standardise
from kidney_ssl.data.normalization import normalise
from kidney_ssl.data.phantom import make_case
from kidney_ssl.data.volume import read_volume
from kidney_ssl.deploy.onnx_graph import write_onnx
from kidney_ssl.models.resnet import classifier
from tests.shallow_networks import shallow_networks  # noqa: F401 - a fixture

pytest.importorskip("onnx", reason="onnx is optional: pip install 'kidney-ssl[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is optional: pip install 'kidney-ssl[onnx]'")
SHARED = Path(__file__).parents[4] / "shared"
REAL = [SHARED / "ct/abdomen_pelvis_3mm.nii.gz", SHARED / "real_ct/case_90000/imaging.nii.gz"]


def slices_of(volume: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    nothing = np.zeros(volume.shape[1:], np.uint8)
    chosen = volume[:: max(1, len(volume) // 8)]
    return np.stack([standardise(plane, nothing, spacing_mm, Frame(64, -300, 6.0))[0] for plane in chosen])


@pytest.mark.parametrize("mode", ["window", "image"])
@pytest.mark.parametrize("source", ["phantom", *REAL], ids=["phantom", "abdomen", "liver"])
def test_probabilities_are_torch_s_within_1e_4_on_slices_in_hu(tmp_path, source, mode):
    if source == "phantom":
        volume, _, (_, *spacing_mm) = make_case(0, size=64, slices=0.5, seed=0)
        volume = volume.astype(np.int16)
    elif source.exists():
        read = read_volume(source)
        volume, spacing_mm = read.array, read.grid.spacing_mm[1:]
    else:
        pytest.skip(f"{source} is not on this machine")
    hu, window = slices_of(volume, tuple(spacing_mm)), (-140.0, 350.7)
    model = classifier("resnet18", 5).eval()
    write_onnx(model, window, mode, 64, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["probability"], {"hu": hu[:, None].astype(np.float32)})
    with torch.no_grad():
        images = torch.from_numpy(normalise(hu, window, mode)).float()[:, None]
        expected = torch.sigmoid(model(images))[:, 0].numpy()
    assert len(hu) > 3
    assert np.ptp(expected) > 1e-3  # else any graph would do
    assert np.abs(found - expected).max() < 1e-4
