import jax
import pytest

from fedjax_med.cli import main


@pytest.fixture(autouse=True, scope="session")
def devices_are_fixed():
    # Otherwise the first command that asks for devices would decide for all tests.
    jax.devices()


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Runs a command line in this process, in an empty folder: (status, output, errors)."""
    monkeypatch.chdir(tmp_path)

    def run(*tokens):
        status = main([str(token) for token in tokens])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
