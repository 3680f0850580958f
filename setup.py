"""Ships configs/ inside of the package, as `cloudml_tf/configs`; all else about the build is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["cloudml_tf*"]), "cloudml_tf.configs"],
    package_dir={"cloudml_tf.configs": "configs"},
)
