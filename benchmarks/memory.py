"""What a sweep of Llama-7B in bfloat16 holds in memory: planned from its sizes, and counted.

    .venv/bin/python benchmarks/memory.py

The count runs the model's real modules on tensors without values (the meta device) and adds up every
tensor that is alive. SmolLM2, a Llama too, tells what only values can. Prints a Markdown table.
"""

from sweep import smollm2

from selfrepair.model.sizes import chunk_tokens, shape_from
from selfrepair.testing.meta_device import LLAMA_7B, dry_run, meta_decoder

DTYPE, PROMPTS, POSITIONS = "bfloat16", 32, 127


def main() -> None:
    _, small = smollm2()
    model = meta_decoder(LLAMA_7B, like=small, dtype=DTYPE)
    rows = chunk_tokens("cuda") // POSITIONS
    counted = dry_run(model, prompts=PROMPTS, rows=rows, positions=POSITIONS)
    shape = shape_from(LLAMA_7B.to_dict())
    assert shape is not None
    weights = shape.weight_bytes(DTYPE, "cuda")
    working = shape.working_bytes(DTYPE, positions=POSITIONS, prompts=PROMPTS, rows=rows)
    most = max(counted.recording_peak, counted.recording + counted.replay)
    lines = [
        ("weights", weights, counted.weights),
        (
            f"{PROMPTS} prompts recorded, with donors and results",
            PROMPTS * shape.recording_bytes(DTYPE, POSITIONS),
            counted.recording,
        ),
        (
            f"{rows} rows of {POSITIONS} positions replayed",
            rows * POSITIONS * shape.replay_bytes(DTYPE),
            counted.replay,
        ),
        ("most at once", weights + working, counted.weights + most),
    ]
    print(f"| Llama-7B, {DTYPE} | planned GB | counted GB |\n|---|---|---|")
    for what, planned, found in lines:
        print(f"| {what} | {planned / 1e9:.2f} | {found / 1e9:.2f} |")


if __name__ == "__main__":
    main()
