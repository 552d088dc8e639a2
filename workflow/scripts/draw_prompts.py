"""Draw the prompts that a sweep replays of each head, and the tokens that it measures in them."""

from pathlib import Path

from common.adapter import run
from selfrepair.files.storage import read_tensors, write_table
from selfrepair.measure.drawing import draw_tokens
from selfrepair.measure.prompt_draw import tokens_of_drawn_prompts
from selfrepair.text.prompts import first_position


def main(snakemake):
    settings, ablation = snakemake.params.settings, snakemake.params.ablation
    tensors, provenance = read_tensors(Path(snakemake.input.clean), ["top_token"])
    top_token, prompts_per_head = (
        tensors["top_token"],
        settings[f"ablations.{ablation}.prompts_per_head"],
    )
    sample = {
        "positions": provenance["tokens_per_prompt"] - 1,
        "prompts": settings[f"ablations.{ablation}.prompts"],
        "seed": settings["seed"],
    }
    if prompts_per_head is not None:  # of this model
        top_token = tokens_of_drawn_prompts(top_token, prompts_per_head=prompts_per_head, **sample)
    drawn = draw_tokens(
        top_token,
        tokens_per_head=settings[f"ablations.{ablation}.tokens_per_head"],
        random_tokens_per_head=settings[f"ablations.{ablation}.random_tokens_per_head"],
        first_position=first_position(provenance["bos_token"]),
        **sample,
    )
    write_table(Path(snakemake.output[0]), drawn.table())


run(snakemake, main)
