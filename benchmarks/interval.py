"""Seconds to a given interval: what a full sweep, one of top tokens, and one of drawn tokens cost for it.

Part of `make benchmark`, five minutes on two cores. Resample-ablates the heads of SmolLM2's last quarter on
the default study's text, in three ways, and takes the 95 % interval of their mean self-repair on top tokens
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
from selfrepair.measure.ranking import Ranking, rank
from selfrepair.measure.token_sweep import sweep_tokens
from selfrepair.model.decoder import Decoder
from selfrepair.tables.heads import head_tables
from selfrepair.tables.swept import DrawnHeads
from selfrepair.text.documents import sample_documents
from selfrepair.text.windows import cut_prompts
from selfrepair.vocabulary import QUARTERS, depth_groups

# Prompts swept in full; prompts ranked for the drawn tokens, and those that they are drawn from.
FULL, RANKED, DRAWN_FROM = 16, 160, 64
TOKENS_PER_HEAD, WANTED = 6, 0.05  # logits either way
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
    layers = depth_groups(model.n_layers)[QUARTERS[-1]]
    heads = [(layer, head) for layer in layers for head in range(model.n_heads)]
    few, ranking_few = timed(lambda: ranked(model, tokens[:FULL]))
    many, ranking_many = timed(lambda: ranked(model, tokens))
    all_top = drawn(few, heads, tokens, prompts=FULL, count=None)
    some_top = drawn(many, heads, tokens, prompts=DRAWN_FROM, count=TOKENS_PER_HEAD)
    ways = [
        way("full sweep", model, tokens[:FULL], donors[:FULL], all_top, ranking_few, whole=True),
        way("all top tokens", model, tokens[:FULL], donors[:FULL], all_top, ranking_few),
        way(
            "drawn top tokens",
            model,
            tokens[:DRAWN_FROM],
            donors[:DRAWN_FROM],
            some_top,
            ranking_many,
        ),
    ]
    text = report(ways, len(heads))
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
    ranking: Ranking, heads: list, tokens: Tensor, *, prompts: int, count: int | None
) -> DrawnTokens:
    return draw_tokens(
        ranking.top_token,
        positions=tokens.shape[1] - 1,
        prompts=prompts,
        tokens_per_head=count,
        random_tokens_per_head=0,
        first_position=0,
        seed=0,
        heads=heads,
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
    """Sweep the chosen tokens, or all tokens of their heads of which only the chosen count; a full sweep
    needs no ranking before it."""
    start = time.perf_counter()
    if whole:
        heads = sorted(set(zip(chosen.layer.tolist(), chosen.head.tolist(), strict=True)))
        result = selfrepair.sweep(model, tokens, donors=donors, heads=heads, batch=BATCH)
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
        len(chosen) / row["n_heads"],
        row["self_repair"],
        row["self_repair_low"],
        row["self_repair_high"],
    )


def report(ways: list[Way], heads: int) -> str:
    lines = [
        f"{environment()['device']}, {torch.get_num_threads()} threads, float32, {heads} heads of SmolLM2's "
        "last quarter, resample ablation",
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
