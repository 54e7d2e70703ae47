"""Which packages a wheel has; everything else is in pyproject.toml.

conf/ and the studies' descriptions stand beside mathse/ in the repository and travel inside it, so that the wheel works
from any folder (mathse/config/options.py finds either place). Only setup.py can add packages to those that are found.
"""

from setuptools import find_packages, setup

BESIDE = {"mathse.conf": "conf", "mathse.experiments": "experiments"}

setup(packages=[*find_packages(include=["mathse", "mathse.*"]), *BESIDE], package_dir=BESIDE)
