"""Packages of the distribution; everything else about it stands in pyproject.toml.

The recipes and the cards lie beside the package in a checkout, and inside it in a wheel.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["recon", "recon.*"]), "recon.pipelines", "recon.cards"],
    package_dir={"recon.pipelines": "pipelines", "recon.cards": "datasets"},
)
