"""The subcommands export, predict and embed of `kidney-ssl`."""

import argparse
from pathlib import Path

from kidney_ssl.commands.own_code import use_own_code
from kidney_ssl.errors import InputError


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommands; each imports what it needs when it runs."""
    export = commands.add_parser("export", help="write a trained network of this study as a folder; nothing is sent")
    export.add_argument("arm", metavar="ARM", help="an arm of params.yaml")
    export.add_argument("--percent", type=int, metavar="P", help="label budget (that of explain)")
    export.add_argument("--seed", type=int, metavar="S", help="seed of the run (that of explain)")
    export.add_argument("--to", type=Path, metavar="FOLDER", help="the folder (networks/ARM-P-S)")
    export.add_argument("--onnx", action="store_true", help="also write model.onnx, which takes HU in the body frame")
    export.set_defaults(run=_export)
    predict = commands.add_parser("predict", help="run an exported network on a CT; not a medical device")
    _add_network(predict)
    predict.add_argument(
        "volume", type=Path, metavar="VOLUME", help="NIfTI, multiframe DICOM, or folder or .zip of a series"
    )
    predict.add_argument("--to", type=Path, default=Path("prediction"), metavar="FOLDER", help="results (prediction)")
    predict.add_argument("--anyway", action="store_true", help="predict even what the network has seen nothing like")
    predict.set_defaults(run=_predict)
    embed = commands.add_parser("embed", help="features of every slice of some CTs as a table")
    _add_network(embed)
    embed.add_argument("volumes", type=Path, nargs="+", metavar="VOLUME", help="as for predict")
    embed.add_argument("--to", type=Path, required=True, metavar="FILE", help=".parquet (needs pyarrow) or .csv")
    embed.set_defaults(run=_embed)


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", type=Path, metavar="NETWORK", help="a folder made by export")


def _export(given: argparse.Namespace) -> None:
    use_own_code(given.words)
    from kidney_ssl import config  # noqa: PLC0415 - other commands need none of it
    from kidney_ssl.deploy.export import export  # noqa: PLC0415 - torch

    settings = config.load()
    if (given.percent is None) != (given.seed is None):
        raise InputError("give both --percent and --seed, or neither for the run that is explained")
    percent = settings.explain.percent if given.percent is None else given.percent
    seed = settings.explain.seed if given.seed is None else given.seed
    out = given.to or Path("networks") / f"{given.arm}-{percent}-{seed}"
    export(settings, given.arm, percent, seed, out, onnx=given.onnx)
    print(f"{out}: network folder written, nothing sent; read its README.md before you share it")


def _predict(given: argparse.Namespace) -> None:
    from kidney_ssl.deploy.predict import PAGE, predict  # noqa: PLC0415 - torch

    result = predict(given.network, given.volume, given.to, anyway=given.anyway)
    if result["familiarity"]["outside"]:
        print(f"outside what this network has seen: {'; '.join(result['familiarity']['outside'])}")
    print(f"case score {result['case_score']:.3f} ({result['case_score_rule']}); {given.to / PAGE}")
    print(result["notice"])


def _embed(given: argparse.Namespace) -> None:
    from kidney_ssl.deploy.embed import embed  # noqa: PLC0415 - torch
    from kidney_ssl.deploy.network_folder import NOTICE  # noqa: PLC0415 - torch

    written, outside = embed(given.network, given.volumes, given.to)
    for case, reasons in outside.items():
        print(f"{case}: outside what this network has seen: {'; '.join(reasons)}")
    if written != given.to:
        print(f"pyarrow is not installed (pip install 'kidney-ssl[parquet]'): {written} instead of {given.to}")
    print(f"{written}: {len(given.volumes)} volume(s). {NOTICE}")
