"""A made up study's results, written once; do not change them."""

from pathlib import Path

import pytest

from selfrepair.reading.model import ModelResults
from selfrepair.reading.study import StudyResults, load_results
from study_folder import save_study


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_study(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def study(folder: Path) -> StudyResults:
    return load_results(folder)


@pytest.fixture(scope="module")
def model(study: StudyResults) -> ModelResults:
    return study.model("smollm2")
