"""Show what an arm's classifier was trained on, and where it sees a tumour."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from kidney_ssl import params
from kidney_ssl.data.arrays import load_array, load_rows
from kidney_ssl.errors import InputError
from kidney_ssl.evaluation.gallery import outcomes, same_slices, worst_errors
from kidney_ssl.evaluation.gradcam import grad_cam, to_frame
from kidney_ssl.evaluation.maps import correlation, measured, shares
from kidney_ssl.jsonfile import write_json
from kidney_ssl.models.resnet import classifier, reestimate_batch_norm
from kidney_ssl.models.weights import load_classifier
from kidney_ssl.params import Explain, Params
from kidney_ssl.report.pictures import write_card, write_picture
from kidney_ssl.training.augmented import augmenting, epoch_figures, operation_pictures
from kidney_ssl.training.batches import read_part
from kidney_ssl.training.device import choose_device
from stages import run

BATCH = 32
PICTURED = 6  # training slices in the pictures of an augmentation


def main(arm: str) -> None:
    """Write report/explain/<arm> (cards, maps) and metrics/explain/<arm>.json."""
    settings = params.load()
    if arm not in settings.arms:
        raise InputError(f"arms: no arm '{arm}' in params.yaml, known: {', '.join(settings.arms)}")
    wanted, compute = settings.explain, settings.compute
    device = choose_device(compute.device, compute.threads)
    images = load_array(Path("data/normalized/test_images.npy"))
    masks = load_array(Path("data/slices/test_masks.npy"))
    own, baseline = (_predictions(name, wanted) for name in (arm, settings.analysis.baseline))
    model = classifier(settings.network, 0).to(device)
    load_classifier(model, Path(f"models/finetune/{arm}-{wanted.percent}-{wanted.seed}/model.safetensors"))

    def maps_of(model: torch.nn.Module, rows: np.ndarray) -> torch.Tensor:
        batches = np.array_split(rows, max(1, -(-len(rows) // BATCH)))
        return torch.cat([grad_cam(model, _batch(images, part, device), wanted.layer).cpu() for part in batches])

    rows = measured(len(own), wanted.slices)
    random = classifier(settings.network, wanted.seed).to(device)
    reestimate_batch_norm(random, (_batch(images, part, device) for part in np.array_split(rows, 4) if len(part)))
    found = {"": maps_of(model, rows), "randomised_": maps_of(random, rows)}
    chosen = {"same": same_slices(baseline, wanted.same), "error": worst_errors(own, wanted.errors)}
    folder = Path(f"report/explain/{arm}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    np.save(folder / "maps.npy", found[""].numpy().astype(np.float16))
    size = images.shape[-1]
    cards = []
    for kind, some in chosen.items():
        for row, activation in zip(some, to_frame(maps_of(model, some), size) if len(some) else (), strict=True):
            file = f"{kind}_{own['case'][row]}_{own['slice'][row]:04d}.webp"
            write_card(folder / file, images[row].astype(np.float32), masks[row] == 2, activation.numpy())
            cards.append({"kind": kind, "file": file, "row": row})
    _write_cards(folder / "cards.csv", pd.DataFrame(cards, columns=["kind", "file", "row"]), own, baseline)
    hu = load_array(Path("data/slices/test_images.npy"))[rows]
    figures: dict[str, object] = {
        "augmentation": _augmentation(arm, settings, folder, device),
        "layer": wanted.layer,
        "map_height": found[""].shape[1],
        "map_width": found[""].shape[2],
        "correlation_randomised": correlation(found[""].numpy(), found["randomised_"].numpy()),
    }
    for prefix, maps in found.items():
        of_maps = shares(to_frame(maps, size).numpy(), masks[rows], hu)
        figures |= {f"{prefix}{name}": value for name, value in of_maps.items()}
    write_json(Path(f"metrics/explain/{arm}.json"), figures)
    print(f"{arm}: {figures['share_tumor']} of the activation inside tumours, which take {figures['area_tumor']}")


def _augmentation(arm: str, settings: Params, folder: Path, device: torch.device) -> dict[str, float] | None:
    """Show each operation of the arm's augmentation, and measure an epoch of it; None without one."""
    found = augmenting(
        json.loads(Path(f"models/arm/{arm}.json").read_text(encoding="utf-8")),
        read_part("data/normalized/train_images.npy", "data/slices/train.csv"),
        Path("data/slices/train_masks.npy"),
        json.loads(Path("data/normalized/regions.json").read_text(encoding="utf-8")),
        device=device,
    )
    if found is None:
        return None
    for title, picture in operation_pictures(found, seed=settings.explain.seed, count=PICTURED).items():
        write_picture(folder / "augmentation" / f"{title}.png", picture.images.cpu().numpy(), picture.columns)
    return epoch_figures(found, seed=settings.explain.seed, batch_size=settings.finetune.batch_size)


def _batch(images: np.ndarray, rows: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(images[rows]).to(device).float().unsqueeze(1)


def _predictions(arm: str, wanted: Explain) -> pd.DataFrame:
    """An arm's predictions on the test part, whose rows are those of the test arrays."""
    table = load_rows(f"models/finetune/{arm}-{wanted.percent}-{wanted.seed}/predictions.csv")
    return table[table["part"] == "test"].reset_index(drop=True)


def _write_cards(path: Path, cards: pd.DataFrame, own: pd.DataFrame, baseline: pd.DataFrame) -> None:
    rows = cards.pop("row").to_numpy(dtype=np.int64)
    shown = own.iloc[rows].reset_index(drop=True)
    cards = pd.concat([cards, shown[["case", "slice", "class", "label", "probability"]]], axis=1)
    cards = cards.assign(outcome=outcomes(own)[rows], baseline_outcome=outcomes(baseline)[rows])
    cards.to_csv(path, index=False, lineterminator="\n")


if __name__ == "__main__":
    run(main)
