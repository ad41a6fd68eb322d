import re
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import fedjax_med
import fedjax_med_kernels

REPO = Path(__file__).resolve().parents[1]


def test_packages_come_from_this_working_tree():
    for package in (fedjax_med, fedjax_med_kernels):
        assert Path(package.__file__).is_relative_to(REPO)


def test_version_is_the_same_everywhere():
    citation = (REPO / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", citation, re.M)[1] == fedjax_med.__version__


def test_tools_of_the_checks_are_pinned_exactly():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    dev = project["optional-dependencies"]["dev"]
    for tool in ("ruff", "pyright", "pre-commit", "nbstripout"):
        assert any(re.match(rf"{tool}(\[\w+\])?==", line) for line in dev), tool


def test_silent_broadcasting_over_ranks_is_refused():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)


def test_several_cpu_devices_are_simulated():
    assert len(jax.devices("cpu")) == jax.config.jax_num_cpu_devices > 1
