"""Draw the tokens that a sweep measures of each head."""

from pathlib import Path

from common.adapter import run
from selfrepair.files.storage import read_tensors, write_table
from selfrepair.measure.drawing import draw_tokens
from selfrepair.text.prompts import first_position


def main(snakemake):
    settings, ablation = snakemake.params.settings, snakemake.params.ablation
    tensors, provenance = read_tensors(Path(snakemake.input.clean), ["top_token"])
    drawn = draw_tokens(
        tensors["top_token"],
        positions=provenance["tokens_per_prompt"] - 1,
        prompts=settings[f"ablations.{ablation}.prompts"],
        tokens_per_head=settings[f"ablations.{ablation}.tokens_per_head"],
        random_tokens_per_head=settings[f"ablations.{ablation}.random_tokens_per_head"],
        first_position=first_position(provenance["bos_token"]),
        seed=settings["seed"],
    )
    write_table(Path(snakemake.output[0]), drawn.table())


run(snakemake, main)
