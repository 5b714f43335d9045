"""What pyproject.toml cannot say: params/ travels in the package, as recu/params/."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["recu", "recu.*"]), "recu.params"],
    package_dir={"recu.params": "params"},
    package_data={"recu.params": ["*.yaml", "suites/*.yaml"], "recu.report": ["templates/*"]},
)
