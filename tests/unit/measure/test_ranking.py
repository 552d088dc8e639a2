"""Top tokens found from shards are those of the whole sample, ties and all, or there is an error."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tiny_models
from selfrepair import InputError, clean_pass
from selfrepair.measure import clean_pass as clean_passes
from selfrepair.measure.clean_pass import CleanShard, clean_shard
from selfrepair.measure.ranking import Ranking, ShardFile, rank
from selfrepair.measure.selection import top_tokens
from selfrepair.model.decoder import Decoder

Tiny = Callable[..., Decoder]

PROMPTS, LENGTH = 20, 16
TOKENS = tiny_models.random_tokens(PROMPTS, LENGTH)


def cut(sizes: list[int]) -> list[slice]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def expected_top(effect: torch.Tensor, first_position: int) -> torch.Tensor:
    """top_tokens of the whole sample, as prompt * positions + position, [layer, head, top]."""
    positions = effect.shape[1]
    allowed = positions - first_position
    flat = effect[:, first_position:].flatten(0, 1)
    top = torch.stack([top_tokens(flat[:, layer]).T for layer in range(effect.shape[2])])
    return top // allowed * positions + top % allowed + first_position


@pytest.mark.slow
@pytest.mark.parametrize("first_position", [0, 1])
@pytest.mark.parametrize("sizes", [[20], [7, 13], [5, 5, 5, 5], [1] * 20])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_shards_give_what_the_whole_sample_gives(
    name: str, sizes: list[int], first_position: int, tiny: Tiny
) -> None:
    model = tiny(name, "float64")
    whole = clean_pass(model, TOKENS)
    shards = [
        clean_shard(model, TOKENS[rows], candidate_share=0.5, first_position=first_position)
        for rows in cut(sizes)
    ]
    ranking = rank([shard.arrays() for shard in shards], first_position=first_position)
    top = expected_top(whole.direct_effect, first_position)
    assert torch.equal(ranking.top_token.long(), top)
    assert ranking.top_token.dtype == torch.int32
    flat = whole.direct_effect.permute(2, 3, 0, 1).flatten(2)
    effects = {"rtol": 0, "atol": 1e-12}  # measured: 4e-15
    torch.testing.assert_close(ranking.top_effect, flat.gather(2, top), **effects)
    means = whole.direct_effect[:, first_position:].mean((0, 1))
    torch.testing.assert_close(ranking.mean_direct_effect, means, **effects)
    torch.testing.assert_close(ranking.mean_z, whole.mean_z, **effects)
    for quantity in ("scale", "logit", "surprisal"):
        torch.testing.assert_close(getattr(ranking, quantity), getattr(whole, quantity), **effects)
    assert max(shard.conservation_error for shard in shards) < 1e-5


def shards_of(
    effect: torch.Tensor, sizes: list[int], share: float, first_position: int
) -> list[dict[str, torch.Tensor]]:
    """What shards of invented direct effects [prompt, position, layer, head] store."""
    found = []
    for rows in cut(sizes):
        part = effect[rows]
        columns = [
            clean_passes._candidates(part[:, :, layer], share, first_position)
            for layer in range(part.shape[2])
        ]
        candidate, value, left_out = map(torch.stack, zip(*columns, strict=True))
        rows_of = [part[:, :, 0, 0].clone() for _ in range(3)]
        shard = CleanShard(
            candidate, value, left_out, part[:, first_position:].sum((0, 1)).double(),
            torch.zeros(*part.shape[2:], 2).double(), torch.tensor([1]), *rows_of, 0.0,
        )  # fmt: skip
        found.append(shard.arrays())
    return found


def ranked_or_refused(shards: list[dict[str, torch.Tensor]], first_position: int) -> Ranking | None:
    try:
        return rank(shards, first_position=first_position)
    except InputError:
        return None


@pytest.mark.parametrize("first_position", [0, 1])
@pytest.mark.parametrize("levels", [2, 5, 40])
def test_ties_go_to_the_earlier_token_whatever_the_shards(levels: int, first_position: int) -> None:
    """Few levels of effects make many ties; too few candidates are noticed, never answered wrongly."""
    generator = torch.Generator().manual_seed(levels)
    answered = refused = 0
    for _ in range(4):
        shape = (24, 11, 2, 3)
        effect = torch.randint(0, levels, shape, generator=generator).float()
        top = expected_top(effect, first_position)
        for sizes in ([24], [8, 8, 8], [1, 10, 13], [2] * 12):
            for share in (0.03, 0.1, 0.4, 1.0):
                shards = shards_of(effect, sizes, share, first_position)
                found = ranked_or_refused(shards, first_position)
                assert share < 1 or found is not None
                if found is None:
                    refused += 1
                else:
                    answered += 1
                    assert torch.equal(found.top_token.long(), top)
    assert answered > 20
    assert refused > 4


def test_one_shard_needs_no_more_candidates_than_there_are_top_tokens() -> None:
    effect = torch.randn(20, 11, 1, 2, generator=torch.Generator().manual_seed(0))
    for effects in (effect, effect.round()):
        found = rank(shards_of(effects, [20], 0.02, 1), first_position=1)
        assert torch.equal(found.top_token.long(), expected_top(effects, 1))


def test_too_few_candidates_are_refused_with_the_remedy() -> None:
    effect = torch.zeros(20, 10, 2, 2)
    effect[::5, 0] = 1.0  # one top token in each shard
    effect[:2, :, 1, 1] = torch.arange(20.0).reshape(2, 10)  # all top tokens in the first shard
    with pytest.raises(InputError, match=r"layer 1, head 1 may .*raise clean.candidate_share$"):
        rank(shards_of(effect, [5] * 4, 0.02, 0), first_position=0)
    assert rank(shards_of(effect, [5] * 4, 0.1, 0), first_position=0).top_token.shape == (2, 2, 4)


def test_effects_that_are_not_numbers_come_last() -> None:
    effect = torch.full((20, 10, 1, 1), torch.nan)
    effect[7, 3] = -1.0
    found = rank(shards_of(effect, [10, 10], 1.0, 0), first_position=0)
    assert found.top_token.flatten().tolist() == [73, 0, 1, 2]


def test_a_sample_without_a_top_token_is_refused() -> None:
    shards = shards_of(torch.zeros(4, 13, 1, 1), [2, 2], 1.0, 1)
    with pytest.raises(InputError, match="48 tokens have no top 2%; take at least 50 tokens"):
        rank(shards, first_position=1)


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_a_share_of_candidates_that_is_none_is_refused(share: float, tiny: Tiny) -> None:
    with pytest.raises(InputError, match=f"candidate_share: {share}; take one above 0"):
        clean_shard(tiny("gpt2"), TOKENS, candidate_share=share)


def test_shards_are_read_from_files_a_layer_at_a_time(tmp_path: Path) -> None:
    effect = torch.randn(20, 10, 3, 2, generator=torch.Generator().manual_seed(0))
    shards = shards_of(effect, [7, 13], 0.3, 0)
    for number, shard in enumerate(shards):
        save_file(shard, tmp_path / f"{number}.safetensors")
    files = [ShardFile(tmp_path / f"{number}.safetensors") for number in range(2)]
    assert set(files[0]) == set(shards[0])
    assert len(files[0]) == len(shards[0])
    held, read = (rank(each, first_position=0).arrays() for each in (shards, files))
    assert held.keys() == read.keys()
    for name, values in held.items():
        assert torch.equal(values, read[name])
