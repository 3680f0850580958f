"""Puts the shipped configurations into the wheel; all else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithConfigurations(build_py):
    """Copies configs/*.json beside the package's modules, where `cloudml_tf.config.shipped` finds them."""

    def run(self) -> None:
        """Build as usual, then copy. An editable install reads them where they are."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib) / "cloudml_tf" / "configs"
        folder.mkdir(parents=True, exist_ok=True)
        found = sorted((Path(__file__).parent / "configs").glob("*.json"))
        if not found:
            raise FileNotFoundError("configs/*.json: the wheel must hold the shipped configurations. Build in a clone.")
        for path in found:
            shutil.copy(path, folder)


setup(cmdclass={"build_py": WithConfigurations})
