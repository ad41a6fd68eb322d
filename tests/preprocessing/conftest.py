import pytest

from tests.preprocessing import worlds


@pytest.fixture(scope="session")
def table():
    return worlds.divided(worlds.pooled_rows())
