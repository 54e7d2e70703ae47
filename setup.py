"""Which packages a wheel has; everything else is in pyproject.toml.

hydra_plugins/ is where Hydra looks for launchers, a name that every plugin's package shares, so it has no __init__.py.
conf/ and the studies' descriptions stand beside mathse/ in the repository and travel inside it, so that the wheel works
from any folder (mathse/config/options.py finds either place). Only setup.py can add packages to those that are found.
"""

from setuptools import find_packages, setup

BESIDE = {"mathse.conf": "conf", "mathse.experiments": "experiments"}

OURS = [*find_packages(include=["mathse", "mathse.*"]), "hydra_plugins.mathse_slurm"]

setup(packages=[*OURS, *BESIDE], package_dir=BESIDE)
