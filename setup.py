"""Build the package with the files of a new study, which `kidney-ssl init` writes; all else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# Beside the package's own code, what a study's folder holds: `kidney_ssl.new_study` reads them here, or in a clone.
STUDY = (".dvc/config", ".dvc/.gitignore", ".dvc/plots", ".dvcignore", ".gitignore")
STUDY += ("dvc.yaml", "params.yaml", "stages", "studies")


class BuildWithStudy(build_py):
    """Copies the files of a study into the built package, not into the sources of an editable installation."""

    def run(self) -> None:
        """Build the modules, then copy."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "kidney_ssl" / "study"
        shutil.rmtree(target, ignore_errors=True)
        for top in map(Path, STUDY):
            for file in sorted(top.rglob("*")) if top.is_dir() else [top]:
                if file.is_file() and "__pycache__" not in file.parts:
                    (target / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target / file)


setup(cmdclass={"build_py": BuildWithStudy})
