"""What a reader must know of a model: soft caps, and MLPs whose neurons cannot be measured."""

import dataclasses

from selfrepair.measure.notes import model_notes, neuron_layers, neuron_notes, notes_about


def test_a_soft_cap_is_noted(tiny):
    model = tiny("llama")
    assert notes_about(model) == []
    (note,) = notes_about(dataclasses.replace(model, logit_softcap=30.0))
    assert "softly at 30;" in note
    assert "before the cap" in note


def test_layers_without_neurons_are_noted(tiny):
    model = tiny("llama")
    assert neuron_layers(model) == [True] * model.n_layers
    assert neuron_notes(neuron_layers(model)) == []
    experts = [dataclasses.replace(model.layers[0], neurons=None), *model.layers[1:]]
    some = neuron_layers(dataclasses.replace(model, layers=experts))
    assert some == [False] + [True] * (model.n_layers - 1)
    (note,) = neuron_notes(some)
    assert "the MLP of layer 0, which has no" in note
    (note,) = neuron_notes([False, True, False])
    assert "the MLPs of layers 0, 2, which have no" in note
    (note,) = neuron_notes([False, False])
    assert note.startswith("E7 to E10 are not measured: the MLPs of this model")


def test_weights_and_warnings_are_among_the_notes():
    clean = {"warnings": ["text.bos: better with it"], "notes": ["Odd."], "neuron_layers": [True]}
    assert model_notes(clean, weights="de-quantised from 4 bits") == [
        "Weights: de-quantised from 4 bits.",
        "Warning: text.bos: better with it.",
        "Odd.",
    ]
    assert model_notes(clean | {"warnings": [], "notes": []}, weights=None) == []
