"""README.md's example of a new pretext task, taken from there as it stands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from kidney_ssl.params import Params

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, beginning: str) -> str:
    return next(
        text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if text.startswith(beginning)
    )


def test_the_file_alone_makes_a_method_that_holds_the_contract(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (tmp_path / "src" / "kidney_ssl" / "pretext" / "mirror.py").write_text(block("python", '"""Mirror'))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-k",
        "mirror",
        "tests/pretext/test_contract.py",
    ]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def test_the_blocks_are_those_that_params_yaml_takes() -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    example = yaml.safe_load(block("yaml", "pretrain:\n"))
    method = example["pretrain"]["methods"]["mirror-0"]
    assert method["method"] == "mirror"
    method["method"] = "rotation"  # mirror is no method of this copy
    content["pretrain"]["methods"] |= example["pretrain"]["methods"]
    content["arms"] |= example["arms"]
    Params.model_validate(content)
