"""What claims know of the models of a study, from its config."""

from selfrepair.claims.study_models import StudyModel, study_models, titles_of_controls
from selfrepair.study.planning import shape_of

SHAPE = {"layers": 3, "heads": 4, "d_model": 16, "d_mlp": 32, "vocabulary": 50, "gated": True}
SETTINGS = {
    "models.a.title": "Model A",
    "models.a.control_of": None,
    "models.a.shape": SHAPE,
    "models.b.title": None,
    "models.b.control_of": "a",
    "models.b.shape": None,
}


def test_titles_controls_and_parameters_are_found():
    parameters = shape_of({"shape": SHAPE}, {}).parameters
    assert parameters == 3 * (16 * 4 * 16 + 3 * 16 * 32) + 2 * 50 * 16
    assert study_models(["a", "b"], SETTINGS) == [
        StudyModel("Model A", None, parameters),
        StudyModel("b", "Model A", None),
    ]


def test_a_shape_may_state_its_keys_and_values():
    stated = SHAPE | {"kv_heads": 1, "d_head": 8, "tied": True}
    (model,) = study_models(["a"], SETTINGS | {"models.a.shape": stated})
    assert model.parameters == shape_of({"shape": stated}, {}).parameters


def test_controls_are_told_by_titles():
    assert titles_of_controls(["a", "b"], SETTINGS) == {"b": "Model A"}
    assert titles_of_controls(["a"], SETTINGS) == {}
