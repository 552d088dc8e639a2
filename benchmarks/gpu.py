"""A GPU's throughput on the default study's model, what fewer bits cost, and how it agrees with the CPU.

    make benchmark-gpu

Prints a Markdown table. GFLOP/s count the arithmetic floor, as in benchmarks/sweep.py; the ceiling is a large
matrix product in the same number format. Tokens are random: how fast they are does not depend on it.
"""

import sys
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from interval import ranked
from sweep import shape_of, smollm2_folder

import selfrepair
from selfrepair.measure.clean_pass import clean_pass
from selfrepair.measure.drawing import draw_tokens
from selfrepair.measure.sweep import sweep
from selfrepair.measure.sweep_result import SweepResult
from selfrepair.measure.token_sweep import sweep_tokens

LENGTH = 128
CLEAN_PROMPTS, SWEPT_PROMPTS, DRAWN_PROMPTS = 512, 32, 128
FORMATS = (("float32", "highest"), ("float32", "high"), ("bfloat16", "highest"))
Result = TypeVar("Result")


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    torch.cuda.synchronize()
    start = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return result, time.perf_counter() - start


def ceiling(dtype: torch.dtype) -> float:
    """FLOP/s of a matrix product of 8,192."""
    size, repeats = 8192, 5
    left = torch.randn(size, size, device="cuda", dtype=dtype)
    timed(lambda: [left @ left for _ in range(2)])
    _, seconds = timed(lambda: [left @ left for _ in range(repeats)])
    return repeats * 2 * size**3 / seconds


def measure(where: str, dtype: str, precision: str) -> tuple[str, SweepResult]:
    """A line of the table, and the full sweep behind it."""
    torch.set_float32_matmul_precision(precision)
    model = selfrepair.load_model(where, device="cuda", dtype=dtype)
    shape, positions = shape_of(model), LENGTH - 1
    tokens = random_tokens(shape.vocabulary)
    partners, heads = tokens.roll(-SWEPT_PROMPTS, 0), shape.layers * shape.heads
    clean_pass(model, tokens[:8])  # whatever is slow once
    _, clean_seconds = timed(lambda: clean_pass(model, tokens))
    sweep(model, tokens[:2], donors=partners[:2])
    torch.cuda.reset_peak_memory_stats()
    some = slice(SWEPT_PROMPTS)
    swept, sweep_seconds = timed(lambda: sweep(model, tokens[some], donors=partners[some]))
    memory = torch.cuda.max_memory_allocated()
    drawn = draw_tokens(
        ranked(model, tokens).top_token,
        positions=positions,
        prompts=DRAWN_PROMPTS,
        tokens_per_head=16,
        random_tokens_per_head=8,
        first_position=0,
        seed=0,
    )
    some = slice(DRAWN_PROMPTS)
    _, drawn_seconds = timed(
        lambda: sweep_tokens(model, tokens[some], drawn, donors=partners[some], mapped=True)
    )
    most = ceiling(model.dtype)
    swept_tokens = SWEPT_PROMPTS * positions
    cells = (
        dtype + (" (TF32)" if precision == "high" else ""),
        f"{most / 1e12:.0f}",
        f"{CLEAN_PROMPTS * positions / clean_seconds:,.0f}",
        f"{swept_tokens * heads / sweep_seconds:,.0f}",
        f"{shape.flop_of_sweep() * swept_tokens / sweep_seconds / most:.0%}",
        f"{len(drawn) / drawn_seconds:,.0f}",
        f"{memory / 1e9:.1f}",
    )
    return f"| {' | '.join(cells)} |", swept


def random_tokens(vocabulary: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, vocabulary, (CLEAN_PROMPTS, LENGTH), generator=generator)


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("error: torch sees no CUDA device; make benchmark measures the CPU")
    where = smollm2_folder()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, SmolLM2-135M\n")
    print(
        "| format | matrix product, TFLOP/s | clean pass, tokens/s | full sweep, tokens x heads/s "
        "| of the matrix product | drawn tokens/s, with map | full sweep, GB |"
    )
    print("|---|---|---|---|---|---|---|")
    swept: list[SweepResult] = []
    for dtype, precision in FORMATS:
        line, result = measure(where, dtype, precision)
        print(line, flush=True)
        swept.append(result)
    exact = swept[0].self_repair
    cpu = selfrepair.load_model(where, device="cpu")
    tokens, prompts = random_tokens(cpu.vocabulary), 2
    heads = [(layer, 0) for layer in range(0, cpu.n_layers, 3)]
    partners = tokens.roll(-SWEPT_PROMPTS, 0)
    few = sweep(cpu, tokens[:prompts], donors=partners[:prompts], heads=heads).self_repair
    layers = [layer for layer, _ in heads]
    gap = (few[:, :, layers, 0] - exact[:prompts, :, layers, 0]).abs().max()
    print(f"\nSelf-repair of {len(heads)} heads on {prompts} prompts, logits, largest difference:")
    print(f"- float32 from the CPU: {float(gap):.1e}")
    for (dtype, _), result in zip(FORMATS[1:], swept[1:], strict=True):
        error = (result.self_repair - exact).abs()
        name = dtype if dtype != "float32" else "TF32"
        print(
            f"- {name} from float32, all heads: {float(error.max()):.2g}, "
            f"mean {float(error.mean()):.2g}"
        )


if __name__ == "__main__":
    main()
