"""Throughput of a sweep beside the hooked model, run whole per head, and the machine's own ceiling.

    .venv/bin/python benchmarks/sweep.py

Prints a Markdown table for the default study's model: tokens x heads per second, GFLOP/s by the
arithmetic floor (heads x layers after the ablated one x 2 x parameters of a layer, per token), and
that as a share of the matrix product ceiling measured in the same run.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

import selfrepair
from selfrepair.assets import model_location
from selfrepair.models import Decoder
from selfrepair.study import complete_config, wheels_of

ROOT = Path(__file__).parents[1]
PROMPTS, LENGTH = 8, 128


def load() -> Decoder:
    config, schema = (
        yaml.safe_load((ROOT / "config" / name).read_text())
        for name in ("config.yaml", "schema.yaml")
    )
    config = complete_config(config, schema)
    entry = config["models"]["smollm2"]
    where = model_location(entry, wheels_of(config), ROOT / config["cache"])
    return selfrepair.load_model(where, device="cpu")


def seconds(work: Callable[[], object], *, repeats: int = 1) -> float:
    """Best time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def ceiling(model: Decoder) -> float:
    """GFLOP/s of packed matrix products at the model's own MLP size."""
    layer = model.layers[0].mlp
    linear = next(m for m in layer.modules() if hasattr(m, "in_features"))
    x = torch.randn(PROMPTS * (LENGTH - 1), linear.in_features)
    work = 2 * x.numel() * linear.out_features
    return work / seconds(lambda: linear(x), repeats=100) / 1e9


def hooked_run(model: Decoder, tokens: torch.Tensor) -> None:
    """The least that a hook-based study does per head: one whole ablated run, nothing measured."""

    def ablate(z: torch.Tensor, hook: object) -> torch.Tensor:
        z = z.clone()
        z[..., 0, :] = 0
        return z

    name = f"blocks.{model.n_layers // 2}.attn.o.hook_in"
    with torch.no_grad():
        model.bridge.run_with_hooks(tokens, fwd_hooks=[(name, ablate)])


def floor_gflop(model: Decoder, heads: list[tuple[int, int]]) -> float:
    """GFLOP per token that ablating these heads needs at least."""
    layer = sum(p.numel() for p in model.bridge.blocks[0].original_component.parameters())
    mlp = sum(p.numel() for p in model.bridge.blocks[0].mlp.parameters())
    after = sum(2 * ((model.n_layers - 1 - at) * layer + mlp) for at, _ in heads)
    return after / 1e9


def row(name: str, taken: float, tokens: int, heads: int, gflop: float, best: float) -> str:
    rate = gflop * tokens / taken
    return (
        f"| {name} | {heads} | {tokens} | {taken:.1f} | {tokens * heads / taken:.0f} "
        f"| {rate:.0f} | {100 * rate / best:.0f} % |"
    )


def main() -> None:
    model = load()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, model.vocabulary, (PROMPTS, LENGTH), generator=generator)
    donors = tokens.roll(1, 0)
    layers = range(0, model.n_layers, 3)
    heads = [(layer, head) for layer in layers for head in range(model.n_heads)]
    one = [(model.n_layers // 2, 0)]
    best, measured = ceiling(model), tokens[:, 1:].numel()
    fast = seconds(lambda: selfrepair.sweep(model, tokens, donors=donors, heads=heads))
    slow = seconds(lambda: hooked_run(model, tokens))
    print(f"{torch.get_num_threads()} threads, matrix product ceiling {best:.0f} GFLOP/s\n")
    print("| | heads | tokens | seconds | tokens x heads / s | GFLOP/s | share of ceiling |")
    print("|---|---|---|---|---|---|---|")
    print(row("sweep", fast, measured, len(heads), floor_gflop(model, heads), best))
    print(row("hooked model", slow, measured, 1, floor_gflop(model, one), best))


if __name__ == "__main__":
    main()
