import pytest

from fedjax_med import datasets


@pytest.fixture(scope="session")
def encounters(shared_data_dir):
    """The diabetes-130 dataset, which takes seconds to read."""
    return datasets.load("diabetes130", shared_data_dir)


@pytest.fixture(scope="session")
def returns(shared_data_dir):
    """Patients of the diabetes-130 dataset who came back, which takes seconds to read."""
    return datasets.load("diabetes130-visits", shared_data_dir)
