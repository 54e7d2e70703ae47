"""Which packages a wheel has; everything else is in pyproject.toml.

conf/ stands beside mathse/ in the repository and travels inside it as mathse/conf, so that the wheel works from any
folder (mathse/config/options.py finds either place). Only setup.py can add one package to those that are found.
"""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["mathse", "mathse.*"]), "mathse.conf"], package_dir={"mathse.conf": "conf"})
