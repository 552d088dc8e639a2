"""Two layers with random values tell what loading a model would: of every architecture of the census."""

import pytest
import torch

from census import CASES, EXPERTS, PARALLEL, POST_NORMS, Case
from selfrepair.command.facts import facts_of, shape_of
from selfrepair.command.short_model import short_decoder
from selfrepair.errors import InputError
from selfrepair.model.finding import empty_network, parts_of


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_a_config_alone_tells_whether_a_model_is_right(case: Case) -> None:
    config = case.config()

    def examine() -> object:
        network = empty_network(config, name="m")
        parts = parts_of(network, name="m")
        shape = shape_of(network, parts)  # by which a model that does not fit is refused
        short = short_decoder(config, name="m", dtype="float32", device=torch.device("cpu"))
        return facts_of(network, parts, shape, short, name="m")

    if case.refused is not None:
        with pytest.raises(InputError) as refused:
            examine()
        assert case.refused in str(refused.value)
        return
    facts = examine()
    assert facts.parameters == case.build().num_parameters()
    assert facts.post_norms == (POST_NORMS in case.traits)
    assert (facts.blocks == "parallel") == (PARALLEL in case.traits)
    assert facts.neurons == (EXPERTS not in case.traits)
