"""Make initial weights."""

import shutil
from pathlib import Path

from kidney_ssl import config
from kidney_ssl.errors import InputError
from kidney_ssl.jsonfile import write_json
from kidney_ssl.models.published import Source, hub_file, packaged, published_weights, record, torchvision_weights
from kidney_ssl.models.weights import random_weights, save_weights


def main(name: str) -> None:
    """Write models/initial/<name>/<seed>.safetensors of every seed; published weights have one, 0.

    metrics/initialize/<name>.json says what they are and where from.
    """
    settings = config.load()
    if name not in settings.initialize:
        raise InputError(f"initialize: no initial weights '{name}', known: {', '.join(settings.initialize)}")
    block, network = settings.initialize[name], settings.network
    source = None
    if isinstance(block, config.RandomWeights):
        states = {seed: random_weights(network, seed) for seed in block.seeds}
    elif isinstance(block, config.TorchvisionWeights):
        source = torchvision_weights(network, block.path)
        states = {0: published_weights(network, source, "torchvision")}
    else:
        source = _source(block)
        states = {0: published_weights(network, source, block.layout, block.sha256)}
    folder = Path(f"models/initial/{name}")
    shutil.rmtree(folder, ignore_errors=True)
    for seed, state in states.items():
        save_weights(state, folder / f"{seed}.safetensors")
    write_json(Path(f"metrics/initialize/{name}.json"), record(network, block.kind, source, state))
    print(f"{name}: {len(states)} of {sum(tensor.numel() for tensor in state.values()):,} values")


def _source(block: config.FileWeights | config.HubWeights | config.PackageWeights) -> Source:
    if isinstance(block, config.FileWeights):
        return Source(block.path, block.source, block.licence)
    if isinstance(block, config.HubWeights):
        return hub_file(block.repository, block.revision, block.file, block.licence, block.endpoint)
    return packaged(block.package, block.file, block.licence)


if __name__ == "__main__":
    from stages.run import run

    run(main)
