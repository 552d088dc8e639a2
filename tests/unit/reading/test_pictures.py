"""Figures are found by key and by name, whatever the case."""

import pytest

from selfrepair.errors import InputError
from selfrepair.reading.pictures import figure_named


def test_keys_and_names():
    assert figure_named("e11A").key == figure_named("self-repression").key == "E11a"


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"^figure 'brakdown': did you mean .breakdown-by-head."):
        figure_named("brakdown")
