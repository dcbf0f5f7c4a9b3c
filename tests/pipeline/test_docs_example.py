"""The example of a new pretext task in docs/new_method.md, taken from there as it stands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from kidney_ssl.config import Params
from kidney_ssl.yamlfile import read_yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/new_method.md").read_text(encoding="utf-8")


def block(language: str, beginning: str) -> str:
    return next(text for text in re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL) if text.startswith(beginning))


def test_the_file_alone_makes_a_method_that_holds_the_contract(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (tmp_path / "src" / "kidney_ssl" / "methods" / "mirror.py").write_text(block("python", '"""Mirror'))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-k",
        "mirror",
        "tests/unit/methods/test_contract.py",
        "tests/unit/methods/test_resume.py",
    ]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def test_the_blocks_are_those_that_params_yaml_takes() -> None:
    content = read_yaml((ROOT / "studies/smoke.yaml").read_text())
    example = read_yaml(block("yaml", "pretrain:\n"))
    method = example["pretrain"]["methods"]["mirror"]
    assert method["method"] == "mirror"
    method["method"] = "rotation"  # mirror is no method of this copy
    content["pretrain"]["methods"] |= example["pretrain"]["methods"]
    content["arms"] |= example["arms"]
    Params.model_validate(content)
