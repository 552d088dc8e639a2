"""Train the constant that does the least harm in place of each chosen head's output.

On prompts that nothing is ablated on. What is trained so far is kept beside the result: a job that was cut
off goes on from there, if nothing that it depends on has changed.
"""

import hashlib
import json
import shutil
from pathlib import Path

from tqdm import tqdm

from common.adapter import run, warn
from common.not_measured import not_measured
from common.progress import FORMAT, Lines
from common.provenance import provenance_of
from common.rule_model import load_rule_model
from common.settings import machine_of
from selfrepair.errors import InputError
from selfrepair.files.provenance import Stopwatch
from selfrepair.files.storage import file_sha256, read_json, read_tensors, sidecar, write_tensors
from selfrepair.measure.optimal_ablation import Training, no_constants, optimal_constants
from selfrepair.other_ablations import heads_to_train, training_prompts
from selfrepair.text.prompts import read_prompts


def main(snakemake):
    watch, machine = Stopwatch(), machine_of(snakemake)
    settings, output = snakemake.params.settings, Path(snakemake.output.tensors)
    prompts = read_prompts(Path(snakemake.input.prompts))
    train, held_out = training_prompts(
        len(prompts.tokens),
        count=settings["experiments.optimal_prompts"],
        kept_free=settings["experiments.pair_prompts"],
    )
    clean, _ = read_tensors(Path(snakemake.input.clean), ["mean_z"])
    chosen = read_json(Path(snakemake.input.heads))["heads"]
    heads = heads_to_train(
        settings["experiments.optimal_heads"], chosen, clean["mean_z"].shape[:2], prompts=len(train)
    )
    training = Training(steps=settings["experiments.optimal_steps"])
    if not heads:
        nothing = no_constants(clean["mean_z"].shape[-1], training)
        write_tensors(output, nothing.arrays(), not_measured(snakemake, watch, heads=[]))
        return
    model = load_rule_model(snakemake)
    unfinished = Unfinished(snakemake, output.with_suffix(".unfinished"))
    title = f"{snakemake.wildcards.model} constants of {len(heads)} heads"
    with tqdm(
        total=100, desc=title, file=Lines(), bar_format=FORMAT, mininterval=10, miniters=0
    ) as bar:
        found = optimal_constants(
            model,
            prompts.tokens[list(train)],
            prompts.tokens[list(held_out)],
            heads=heads,
            mean_z=clean["mean_z"],
            first_position=prompts.first_position,
            seed=settings["seed"],
            training=training,
            chunk=machine.rows_at_once,
            load=unfinished.load,
            save=unfinished.save,
            progress=lambda share: bar.update(100 * share),
        )
    provenance = provenance_of(
        snakemake,
        model,
        watch,
        [*train, *held_out],
        bos_token=prompts.bos_token,
        heads=[list(head) for head in heads],
        held_out_prompts=len(held_out),
        training=vars(training),
    )
    write_tensors(output, found.arrays(), provenance)
    unfinished.remove()


class Unfinished:
    """Trainings that are not finished, a file for each layer, of this job and of no other."""

    def __init__(self, snakemake, folder):
        self.snakemake, self.folder = snakemake, folder
        inputs = [
            *snakemake.input.code,
            *(snakemake.input[n] for n in ("prompts", "clean", "heads")),
        ]
        of_files = [file_sha256(Path(path)) for path in inputs]
        asked = json.dumps([of_files, snakemake.params.settings], sort_keys=True)
        self.key = hashlib.sha256(asked.encode()).hexdigest()

    def path(self, layer):
        return self.folder / f"layer-{layer}.safetensors"

    def load(self, layer):
        path = self.path(layer)
        if not sidecar(path).is_file():
            return None
        try:
            state, made = read_tensors(path)
        except InputError as error:
            warn(self.snakemake, f"{error}; this layer is trained from the start")
            return None
        return state if made["key"] == self.key else None

    def save(self, layer, state):
        write_tensors(self.path(layer), state, {"key": self.key})

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


run(snakemake, main)
