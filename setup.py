"""Build the package with the files of a new study, which `kidney-ssl init` writes; all else is in pyproject.toml."""

import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "src"))  # a build's Python has not installed the package

from kidney_ssl.new_study import INSTALLED, study_files  # noqa: E402 - see above


class BuildWithStudy(build_py):
    """Copies the files of a study into the built package, not into the sources of an editable installation."""

    def run(self) -> None:
        """Build the modules, then copy."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "kidney_ssl" / INSTALLED.name
        shutil.rmtree(target, ignore_errors=True)
        for name, file in study_files(ROOT):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / name)


setup(cmdclass={"build_py": BuildWithStudy})
