"""Write the prompts of the narrow task for one model's tokenizer."""

from pathlib import Path

from common.adapter import run, warn
from common.model_location import location_of_model
from selfrepair.errors import InputError
from selfrepair.files.storage import write_table
from selfrepair.model.tokenizer import bos_token_of, load_tokenizer
from selfrepair.text.ioi import ioi_prompts, no_ioi_prompts


def main(snakemake):
    settings = snakemake.params.settings
    location, revision = location_of_model(snakemake)
    tokenizer = load_tokenizer(location, revision=revision)
    bos_token = bos_token_of(tokenizer, settings["text.bos"])
    try:
        prompts = ioi_prompts(
            tokenizer,
            prompts=settings["experiments.narrow_prompts"],
            seed=settings["seed"],
            bos_token=bos_token,
        )
    except InputError as error:
        # No reason to end a study: E18 says that there is no such task for this model.
        warn(snakemake, f"models.{snakemake.wildcards.model}: {error}; E18 is left out")
        prompts = no_ioi_prompts()
    write_table(Path(snakemake.output[0]), prompts)


run(snakemake, main)
