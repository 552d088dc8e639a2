"""What a folder of results is refused for, and which models it has."""

import json
import re
import shutil

import pytest

from selfrepair.reading.folder import check_name, did_you_mean, models_of_study, read_table
from study_folder import refused


@pytest.mark.slow
def test_models_stand_in_the_order_of_the_study(folder):
    models = models_of_study(folder)
    assert [model.key for model in models] == ["smollm2", "gemma3-270m", "smollm2-requantised"]
    assert models[1].title == "Gemma 3 270M"
    assert models[1].control_of is None
    assert models[2].control_of == "SmolLM2-135M-Instruct"
    assert models[2].weights == "made up for smollm2-requantised"


def test_a_model_that_was_added_later_is_known(folder, tmp_path):
    """The older models' records do not name it."""
    copy = shutil.copytree(folder, tmp_path / "families")
    for key in ("smollm2", "gemma3-270m"):
        path = copy / key / "heads.json"
        record = json.loads(path.read_text())
        del record["config"]["models"]["smollm2-requantised"]
        path.write_text(json.dumps(record))
    models = models_of_study(copy)
    assert [model.key for model in models] == ["smollm2", "gemma3-270m", "smollm2-requantised"]


def test_a_folder_that_is_not_there(folder):
    where = re.escape(str(folder.with_name("familes")))
    with refused(f'{where}: no such folder; did you mean "families"\\? `make study`'):
        models_of_study(folder.with_name("familes"))


def test_the_folder_of_all_studies(folder):
    with refused(r".*: no results of a study .*; name one of its studies: families"):
        models_of_study(folder.parent)


def test_a_folder_of_something_else(tmp_path):
    with refused(r".*: no results of a study .*`make pull` gets the recorded studies"):
        models_of_study(tmp_path)


def test_a_table_that_is_missing_or_damaged(tmp_path):
    with refused(r".*heads\.parquet: missing; the study is not finished"):
        read_table(tmp_path / "heads.parquet")
    (tmp_path / "heads.parquet").write_text("no table")
    with refused(r".*heads\.parquet: cannot be read .*delete it"):
        read_table(tmp_path / "heads.parquet")


def test_names_of_tables():
    check_name("neuron_counts", ["heads"])  # not there yet, but a table of every study
    with refused("table 'haeds': did you mean \"heads\"\\? There are depth, heads"):
        check_name("haeds", ["depth", "heads"])


def test_the_nearest_name_is_found_whatever_its_case():
    assert did_you_mean("GEMMA", ["smollm2", "Gemma 3 270M"]) == 'did you mean "Gemma 3 270M"?'
    assert did_you_mean("?", ["a"]) == 'did you mean "a"?'
