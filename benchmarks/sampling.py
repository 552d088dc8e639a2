"""Do drawn tokens find what all top tokens give? On real text, for every depth group and quantity.

    .venv/bin/python benchmarks/sampling.py

Sweeps all top tokens of the first prompts of the default study (which must have run), then draws some of each
head again and again out of these results: tokens, or all in drawn prompts. Prints how often the value of all top tokens lies in the 95 % interval
of the drawn ones, and how far the drawn value is from it. That interval also covers other prompts, of which
there are none here: well over 95 % should lie inside.
"""

import polars as pl
import torch
from interval import ranked
from sweep import ROOT, smollm2

from selfrepair.measure.drawing import PLACES, DrawnTokens, draw_tokens
from selfrepair.measure.prompt_draw import tokens_of_drawn_prompts
from selfrepair.measure.token_sweep import sweep_tokens
from selfrepair.tables.heads import head_tables
from selfrepair.tables.swept import DrawnHeads
from selfrepair.text.prompts import read_prompts
from selfrepair.vocabulary import bounded

PROMPTS, DRAWN, DRAWN_PROMPTS, DRAWS = 16, 6, 5, 20
RESAMPLES = 2000
QUANTITIES = (
    *("self_repair", "from_heads", "from_mlps", "from_norm", "self_repair_share", "restored_share"),
    *("from_norm_share", "from_norm_share_clipped", "self_repair_noise", "over_corrected_share"),
)


def by_depth(rows: dict[str, torch.Tensor]) -> pl.DataFrame:
    sweeps = {"resample": DrawnHeads(rows, prompts=PROMPTS)}
    _, depth = head_tables(sweeps, model="SmolLM2-135M", seed=0, resamples=RESAMPLES)
    return depth


def places(drawn: DrawnTokens) -> list[tuple[int, ...]]:
    """Where each instance is."""
    return list(zip(*(getattr(drawn, name).tolist() for name in PLACES), strict=True))


def main() -> None:
    _, model = smollm2()
    prompts = read_prompts(ROOT / "results/default/smollm2/prompts.parquet")
    tokens, donors = prompts.tokens[:PROMPTS], prompts.tokens[prompts.donors[:PROMPTS]]
    positions = tokens.shape[1] - 1
    top = ranked(model, tokens).top_token

    def draw(each: int | None, seed: int, of_prompts: int | None = None) -> DrawnTokens:
        own = top
        if of_prompts is not None:
            own = tokens_of_drawn_prompts(
                top, positions=positions, prompts=PROMPTS, prompts_per_head=of_prompts, seed=seed
            )
        return draw_tokens(
            own,
            positions=positions,
            prompts=PROMPTS,
            tokens_per_head=each,
            random_tokens_per_head=0,
            first_position=prompts.first_position,
            seed=seed,
        )

    every = draw(None, 0)
    result = sweep_tokens(model, tokens, every, donors=donors)
    rows = result.arrays() | {"top": every.top, "random": every.random}
    number = {place: at for at, place in enumerate(places(every))}
    whole = by_depth(rows)
    print(f"All {top.shape[-1]} top tokens of each head in {PROMPTS} prompts, drawn {DRAWS} times:")
    for what, options in {
        f"{DRAWN} tokens": {"each": DRAWN},
        f"all in {DRAWN_PROMPTS} prompts": {"each": None, "of_prompts": DRAWN_PROMPTS},
    }.items():
        inside: dict[tuple[str, str], list[bool]] = {}
        apart: dict[tuple[str, str], list[float]] = {}
        width: dict[tuple[str, str], list[float]] = {}
        for seed in range(DRAWS):
            some = draw(**options, seed=seed)
            at = torch.tensor([number[place] for place in places(some)])
            drawn = by_depth({name: values[at] for name, values in rows.items()})
            for full, part in zip(whole.to_dicts(), drawn.to_dicts(), strict=True):
                for name in QUANTITIES:
                    value, low, high = (part[column] for column in bounded(name))
                    key = full["depth"], name
                    inside.setdefault(key, []).append(low <= full[name] <= high)
                    apart.setdefault(key, []).append(value - full[name])
                    width.setdefault(key, []).append((high - low) / 2)
        print(f"\n{what}, {len(some)} in all in the last draw:\n")
        print(
            "| | quantity | all | drawn, mean difference | half the interval | inside the interval |"
        )
        print("|---|---|---|---|---|---|")
        for (depth, name), found in inside.items():
            key, value = (depth, name), whole.filter(depth=depth)[name].item()
            mean, half = sum(apart[key]) / DRAWS, sum(width[key]) / DRAWS
            line = f"| {depth} | {name} | {value:.3f} | {mean:+.3f} | {half:.3f} "
            print(f"{line}| {sum(found)} of {DRAWS} |")
        total = sum(map(sum, inside.values()))
        print(f"\nInside: {total} of {DRAWS * len(inside)}.")


if __name__ == "__main__":
    main()
