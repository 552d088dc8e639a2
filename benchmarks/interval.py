"""Seconds to a given interval: what a full sweep, one of top tokens, and two of draws of them cost for it.

Part of `make benchmark`, fifteen minutes on two cores. Resample-ablates every head of SmolLM2 on the default
study's text, in four ways, and takes the 95 % interval of the last quarter's mean self-repair on top tokens
as the tables do. Intervals shrink with the root of the work, so the seconds to another interval follow.
Prints a Markdown table and writes it, with the numbers, to results/benchmark/interval.md and interval.json.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import polars as pl
import torch
from sweep import RESULTS, ROOT, default_study, smollm2
from torch import Tensor

import selfrepair
from selfrepair.files.provenance import environment
from selfrepair.files.storage import write_json, write_text
from selfrepair.measure.clean_pass import clean_shard
from selfrepair.measure.drawing import DrawnTokens, draw_tokens
from selfrepair.measure.prompt_draw import tokens_of_drawn_prompts
from selfrepair.measure.ranking import Ranking, rank
from selfrepair.measure.token_sweep import sweep_tokens
from selfrepair.model.decoder import Decoder
from selfrepair.tables.heads import head_tables
from selfrepair.tables.swept import DrawnHeads
from selfrepair.text.documents import sample_documents
from selfrepair.text.windows import cut_prompts
from selfrepair.vocabulary import QUARTERS

# Prompts swept in full; prompts ranked for the drawn tokens, and those that they are drawn from.
FULL, RANKED, DRAWN_FROM = 16, 160, 64
TOKENS_PER_HEAD, PROMPTS_PER_HEAD = 6, 5
WANTED = 0.05  # logits either way
BATCH = 16


@dataclass
class Way:
    """One way of measuring; seconds of ranking (the clean pass) and of ablating, logits."""

    what: str
    ranking_seconds: float
    sweep_seconds: float
    tokens_per_head: float
    value: float
    low: float
    high: float

    @property
    def seconds_to_wanted(self) -> float:
        """Of ranking and sweep, both of as many times the text, until the interval is ± WANTED."""
        half = (self.high - self.low) / 2
        return (self.ranking_seconds + self.sweep_seconds) * (half / WANTED) ** 2


def main() -> None:
    _, model = smollm2()
    tokens, donors = prompts_of(model)
    few, ranking_few = timed(lambda: ranked(model, tokens[:FULL]))
    many, ranking_many = timed(lambda: ranked(model, tokens))
    all_top = drawn(few, tokens, prompts=FULL)
    parts = {
        f"{TOKENS_PER_HEAD} drawn tokens": drawn(
            many, tokens, prompts=DRAWN_FROM, count=TOKENS_PER_HEAD
        ),
        f"all in {PROMPTS_PER_HEAD} drawn prompts": drawn(
            many, tokens, prompts=DRAWN_FROM, of_prompts=PROMPTS_PER_HEAD
        ),
    }
    ways = [
        way("full sweep", model, tokens[:FULL], donors[:FULL], all_top, ranking_few, whole=True),
        way("all top tokens", model, tokens[:FULL], donors[:FULL], all_top, ranking_few),
        *(
            way(what, model, tokens[:DRAWN_FROM], donors[:DRAWN_FROM], some_top, ranking_many)
            for what, some_top in parts.items()
        ),
    ]
    text = report(ways)
    print(text)
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_text(RESULTS / "interval.md", text + "\n")
    rows = [asdict(w) | {"seconds_to_wanted": w.seconds_to_wanted} for w in ways]
    write_json(RESULTS / "interval.json", {"ways": rows, "wanted": WANTED, **environment()})


def prompts_of(model: Decoder) -> tuple[Tensor, Tensor]:
    """RANKED prompts of the default study's text, and the tokens of each one's resample partner."""
    config, wheels = default_study()
    text, sources = config["text"], config["text"]["sources"]
    options = {
        "prompts": RANKED,
        "tokens_per_prompt": text["tokens_per_prompt"],
        "seed": config["seed"],
    }
    documents = sample_documents(sources, wheels=wheels, cache=ROOT / config["cache"], **options)
    table = cut_prompts(documents, model.tokenizer, sources, bos_token=None, **options)
    tokens = torch.tensor(table.sort("prompt")["tokens"].to_list())
    return tokens, tokens[torch.tensor(table.sort("prompt")["donor"].to_list())]


def timed(work: Callable[[], Ranking]) -> tuple[Ranking, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def ranked(model: Decoder, tokens: Tensor) -> Ranking:
    return rank(
        [clean_shard(model, tokens, candidate_share=0.1, batch=BATCH).arrays()], first_position=0
    )


def drawn(
    ranking: Ranking,
    tokens: Tensor,
    *,
    prompts: int,
    count: int | None = None,
    of_prompts: int | None = None,
) -> DrawnTokens:
    """Top tokens of every head in the first prompts: all, so many drawn, or all in so many drawn prompts."""
    positions, top_token = tokens.shape[1] - 1, ranking.top_token
    if of_prompts is not None:
        top_token = tokens_of_drawn_prompts(
            top_token, positions=positions, prompts=prompts, prompts_per_head=of_prompts, seed=0
        )
    return draw_tokens(
        top_token,
        positions=positions,
        prompts=prompts,
        tokens_per_head=count,
        random_tokens_per_head=0,
        first_position=0,
        seed=0,
    )


def way(
    what: str,
    model: Decoder,
    tokens: Tensor,
    donors: Tensor,
    chosen: DrawnTokens,
    ranking_seconds: float,
    *,
    whole: bool = False,
) -> Way:
    """Sweep the chosen tokens, or all tokens of which only the chosen count; a full sweep needs no ranking
    before it."""
    start = time.perf_counter()
    if whole:
        result = selfrepair.sweep(model, tokens, donors=donors, batch=BATCH)
        at = (chosen.prompt, chosen.position, chosen.layer, chosen.head)
        values = {
            name: array[at] if array.ndim == 4 else array[at[:2]]
            for name, array in result.arrays().items()
        }
        ranking_seconds = 0.0
    else:
        swept = sweep_tokens(model, tokens, chosen, donors=donors, batch=BATCH)
        values = swept.arrays()
    taken = time.perf_counter() - start
    places = {
        n: getattr(chosen, n) for n in ("prompt", "position", "layer", "head", "top", "random")
    }
    rows = DrawnHeads(
        {**values, **places},
        prompts=len(tokens),
        n_layers=model.n_layers,
        n_heads=model.n_heads,
    )
    _, depth = head_tables({"resample": rows}, model=what, seed=0, resamples=2000)
    row = depth.filter(pl.col("depth") == QUARTERS[-1]).row(0, named=True)
    return Way(
        what,
        ranking_seconds,
        taken,
        len(chosen) / (model.n_layers * model.n_heads),
        row["self_repair"],
        row["self_repair_low"],
        row["self_repair_high"],
    )


def report(ways: list[Way]) -> str:
    lines = [
        f"{environment()['device']}, {torch.get_num_threads()} threads, float32, all heads of SmolLM2, resample "
        "ablation; self-repair of the last quarter",
        "",
        f"| | ranking s | sweep s | top tokens a head | self-repair, logits | seconds to ± {WANTED} |",
        "|---|---|---|---|---|---|",
    ]
    for w in ways:
        lines.append(
            f"| {w.what} | {w.ranking_seconds:.0f} | {w.sweep_seconds:.0f} | {w.tokens_per_head:.0f} "
            f"| {w.value:.2f} [{w.low:.2f}, {w.high:.2f}] | {w.seconds_to_wanted:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
