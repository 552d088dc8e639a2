"""Throughput of a sweep beside the hooked model and this machine's own ceiling, and how it grows.

`make benchmark`: at most 10 minutes on two cores. Prints Markdown tables and writes them, with the
numbers, to results/benchmark/sweep.md and sweep.json.

GFLOP/s count the arithmetic floor: per token, each ablated head's MLP and all later layers, two
operations per parameter. The ceiling is the best rate of a matrix product with the model's own
matrices at the size of a chunk, packed or not, with all threads on one product or a product each,
measured before and after the sweep.
"""

import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

import selfrepair
from selfrepair.files.provenance import environment
from selfrepair.files.storage import write_json, write_text
from selfrepair.files.wheels import wheels_of
from selfrepair.model.decoder import Decoder
from selfrepair.model.memory import release_memory
from selfrepair.model.packed import PackedLinear
from selfrepair.model.sizes import Shape, chunk_tokens, shape_from
from selfrepair.model.weights import model_location
from selfrepair.study.config import read_study
from selfrepair.testing.reference import hooked

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results/benchmark"
PROMPTS, LENGTH = 8, 128
REPEATS = 10  # of a matrix product
Heads = list[tuple[int, int]]


@dataclass
class Case:
    """One line of a table; seconds of wall time, peak memory of the whole process in MB."""

    model: str
    what: str
    heads: int
    tokens: int
    seconds: float
    token_heads_per_second: float
    gflops: float
    ceiling_gflops: float
    peak_mb: float

    @property
    def share(self) -> float:
        return self.gflops / self.ceiling_gflops


# --- models ------------------------------------------------------------------------------------


def default_study() -> tuple[dict, dict]:
    """The default study's config, and its wheels."""
    folder = ROOT / "config"
    config = read_study(folder / "config.yaml", schema=folder / "schema.yaml")
    return config, wheels_of(config["wheels"])


def smollm2_folder() -> str:
    """Where the default study's model lies."""
    config, wheels = default_study()
    return model_location(
        config["models"]["smollm2"], wheels, ROOT / config["cache"], key="smollm2"
    )


def smollm2() -> tuple[str, Decoder]:
    """The default study's model."""
    return "SmolLM2-135M", selfrepair.load_model(smollm2_folder(), device="cpu")


@cache
def scratch() -> tempfile.TemporaryDirectory[str]:
    """Of the models that are made here; removed when the process ends."""
    return tempfile.TemporaryDirectory()


def gpt2_shape(tokenizer: object, layers: int = 12) -> tuple[str, Decoder]:
    """A random model of GPT-2 small's sizes, or with fewer layers."""
    torch.manual_seed(0)
    folder = tempfile.mkdtemp(dir=scratch().name)  # kept: the hooked model is loaded from it, too
    GPT2LMHeadModel(GPT2Config(n_layer=layers)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)  # type: ignore[attr-defined]
    return "GPT-2 small's shape", selfrepair.load_model(folder, device="cpu")


def shape_of(model: Decoder) -> Shape:
    shape = shape_from(model.network.config.to_dict())
    assert shape is not None
    return shape


# --- measuring ---------------------------------------------------------------------------------


def seconds(work: Callable[[], object], *, repeats: int = 1) -> float:
    """Best time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def ceiling(model: Decoder) -> float:
    """GFLOP/s of the fastest matrix product of a layer on a chunk of tokens."""
    linears = [m for m in model.layers[0].block.modules() if hasattr(m, "in_features")]
    best, threads = 0.0, torch.get_num_threads()
    for linear in {(m.in_features, m.out_features): m for m in linears}.values():
        x = torch.randn(chunk_tokens("cpu"), linear.in_features)
        work = 2 * x.numel() * linear.out_features / 1e9
        products = [partial(torch.matmul, x, linear.weight.T.contiguous()), partial(linear, x)]
        for product in products if isinstance(linear, PackedLinear) else products[:1]:
            best = max(best, work / seconds(product, repeats=REPEATS))
            best = max(best, threads * work / each_its_own(product, threads))
    return best


def each_its_own(product: Callable[[], Tensor], threads: int) -> float:
    """Seconds of a product when every thread of torch has one of its own."""
    torch.set_num_threads(1)

    def many(_: int) -> float:
        start = time.perf_counter()
        for _ in range(REPEATS):
            product()
        return (time.perf_counter() - start) / REPEATS

    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        taken = max(pool.map(many, range(threads)))
    torch.set_num_threads(threads)
    return taken


def cost(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a call, and the largest resident memory of this process in it, in MB."""
    release_memory()  # what earlier work freed but kept
    Path("/proc/self/clear_refs").write_text("5")  # Linux: start counting anew
    taken = seconds(work)
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    return taken, peak


def random_tokens(model: Decoder, prompts: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, model.vocabulary, (prompts, LENGTH), generator=generator)


def floor_gflop(model: Decoder, heads: Iterable[tuple[int, int]]) -> float:
    shape = shape_of(model)
    return sum(shape.flop_of_head(layer) for layer, _ in heads) / 1e9


def all_heads(model: Decoder) -> Heads:
    return [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]


def case(
    name: str, what: str, model: Decoder, heads: Heads, tokens: int, work: Callable[[], object]
) -> Case:
    """Time some work that measures heads on tokens; the ceiling is measured around it."""
    print(f"{name}: {what}, {len(heads)} heads ...", file=sys.stderr)
    before = ceiling(model)
    taken, peak = cost(work)
    best = max(before, ceiling(model))
    return Case(
        model=name,
        what=what,
        heads=len(heads),
        tokens=tokens,
        seconds=taken,
        token_heads_per_second=tokens * len(heads) / taken,
        gflops=floor_gflop(model, heads) * tokens / taken,
        ceiling_gflops=best,
        peak_mb=peak,
    )


def sweep_of(model: Decoder, heads: Heads, prompts: int = PROMPTS) -> Callable[[], object]:
    """A resample sweep of random prompts."""
    tokens = random_tokens(model, prompts)
    return partial(
        selfrepair.sweep,
        model,
        tokens,
        donors=tokens.roll(1, 0),
        heads=heads,
    )


def sweep_case(name: str, model: Decoder, heads: Heads) -> Case:
    return case(name, "sweep", model, heads, PROMPTS * (LENGTH - 1), sweep_of(model, heads))


def clean_case(name: str, model: Decoder, prompts: int = 32) -> Case:
    """The clean pass alone, per token instead of per token and head; its floor counts the unembedding."""
    tokens = random_tokens(model, prompts)
    work = partial(selfrepair.clean_pass, model, tokens)
    found = case(name, "clean pass, no head ablated", model, [], prompts * (LENGTH - 1), work)
    gflops = shape_of(model).flop_of_pass() / 1e9 * found.tokens / found.seconds
    return replace(found, gflops=gflops, token_heads_per_second=found.tokens / found.seconds)


def hooked_case(name: str, model: Decoder) -> Case:
    """The least that a hook-based study does per head: one whole ablated run, nothing measured."""
    tokens, layer = random_tokens(model, PROMPTS), model.n_layers // 2

    def ablate(z: Tensor, hook: object) -> Tensor:
        z = z.clone()
        z[..., 0, :] = 0
        return z

    def run() -> None:
        with torch.no_grad():
            hooked(model).run_with_hooks(
                tokens, fwd_hooks=[(f"blocks.{layer}.attn.o.hook_in", ablate)]
            )

    run()  # the first one of a length is slower
    return case(name, "hooked model", model, [(layer, 0)], PROMPTS * (LENGTH - 1), run)


# --- growth ------------------------------------------------------------------------------------


@dataclass
class Growth:
    """How time grows with something: time ~ size ** exponent, by least squares on logarithms."""

    along: str
    sizes: list[int]
    seconds: list[float]
    peak_mb: list[float]

    @property
    def exponent(self) -> float:
        x, y = ([math.log(v) for v in values] for values in (self.sizes, self.seconds))
        mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
        above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
        return above / sum((a - mean_x) ** 2 for a in x)


def growth(along: str, model_of: Callable[[int], Decoder], cases: dict[int, tuple]) -> Growth:
    found = Growth(along, list(cases), [], [])
    for size, (heads, prompts) in cases.items():
        print(f"{size} {along} ...", file=sys.stderr)
        model = model_of(size)
        taken, peak = cost(sweep_of(model, heads or all_heads(model), prompts))
        found.seconds.append(taken)
        found.peak_mb.append(peak)
    return found


# --- report ------------------------------------------------------------------------------------


def report(cases: list[Case], grown: list[Growth]) -> str:
    made = environment()
    lines = [
        f"{made['device']}, {torch.get_num_threads()} threads, float32, {PROMPTS} x {LENGTH} tokens",
        "",
        "| model | | heads | seconds | tokens x heads / s | GFLOP/s | ceiling | share | peak MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for c in cases:
        lines.append(
            f"| {c.model} | {c.what} | {c.heads} | {c.seconds:.1f} | {c.token_heads_per_second:,.0f} | "
            f"{c.gflops:.0f} | {c.ceiling_gflops:.0f} | {100 * c.share:.0f} % | {c.peak_mb:,.0f} |"
        )
    lines += [
        "",
        "The clean pass is per token, its unembedding counted.",
        "The hooked model is run whole once per head and measures nothing; a sweep measures everything.",
        "",
        "| time grows with | sizes | seconds | exponent | peak MB |",
        "|---|---|---|---|---|",
    ]
    for g in grown:
        cells = (
            ", ".join(map(str, g.sizes)),
            ", ".join(f"{s:.1f}" for s in g.seconds),
            f"{g.exponent:.2f}",
            ", ".join(f"{p:,.0f}" for p in g.peak_mb),
        )
        lines.append(f"| {g.along} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    started = time.perf_counter()
    name, model = smollm2()
    heads = all_heads(model)
    cases = [clean_case(name, model), sweep_case(name, model, heads), hooked_case(name, model)]
    few = [head for head in heads if head[0] == 5]
    grown = [
        growth(
            "prompts (9 heads of SmolLM2-135M's layer 5)",
            lambda _: model,
            {prompts: (few, prompts) for prompts in (4, 8, 16, 24)},
        ),
        growth(
            "heads (of SmolLM2-135M from layer 5 on, 4 prompts)",
            lambda _: model,
            {count: (heads[45 : 45 + count], 4) for count in (9, 27, 81)},
        ),
    ]
    tokenizer = model.tokenizer
    name, model = gpt2_shape(tokenizer)
    cases[3:3] = [sweep_case(name, model, all_heads(model)), hooked_case(name, model)]
    grown.append(
        growth(
            "layers (all heads of GPT-2 small's shape, 2 prompts)",
            lambda layers: gpt2_shape(tokenizer, layers)[1],
            {layers: (None, 2) for layers in (3, 6, 12)},
        )
    )
    text = report(cases, grown)
    print(text)
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_text(RESULTS / "sweep.md", text + "\n")
    content = {
        "cases": [asdict(c) | {"share": c.share} for c in cases],
        "growth": [asdict(g) | {"exponent": g.exponent} for g in grown],
        "wall_seconds": round(time.perf_counter() - started, 1),
        "load": os.getloadavg(),
        **environment(),
    }
    write_json(RESULTS / "sweep.json", content)
    print(f"\n{content['wall_seconds']:.0f} s in all; written to {RESULTS.relative_to(ROOT)}/")


if __name__ == "__main__":
    main()
