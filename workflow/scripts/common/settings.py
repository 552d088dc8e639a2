"""What a script reads of the study's config.

Its rule declares the keys that the result depends on, as `params: settings=settings("seed", ...)`; the
script reads them as `snakemake.params.settings["seed"]`, so a key that is not declared is an error, not a
stale result. Keys on which no result depends (`Machine`) come from the config itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfrepair.files.wheels import Wheel, model_location


@dataclass(frozen=True)
class Machine:
    """Where and how a job runs, which changes no result beyond rounding.

    device: of the model; cache: folder of what was fetched and converted; prompts_at_once, rows_at_once:
    what is held in memory together (None: as much as fits); shape: the sizes of the job's model that the
    config states for planning, empty if it states none.
    """

    device: str
    cache: Path
    prompts_at_once: int
    rows_at_once: int | None
    shape: Mapping[str, Any]


def machine_of(snakemake: Any) -> Machine:
    """What the config says of the machine that this job runs on."""
    config, memory = snakemake.config, snakemake.config["memory"]
    model = config["models"].get(snakemake.wildcards.get("model"), {})
    return Machine(
        config["device"],
        Path(config["cache"]),
        memory["prompts_at_once"],
        memory["rows_at_once"],
        model.get("shape", {}),
    )


def title_of(snakemake: Any) -> str:
    """How figures and tables call the model of this job."""
    return snakemake.params.settings["models.{model}.title"] or snakemake.wildcards.model


def wheels_among(settings: Mapping[str, Any]) -> dict[str, Wheel]:
    """The wheels whose versions and hashes are among the settings, by name."""
    return {
        key.removeprefix("wheels."): Wheel(name=key.removeprefix("wheels."), **entry)
        for key, entry in settings.items()
        if key.startswith("wheels.")
    }


def location_of_model(snakemake: Any) -> tuple[str | Path, str | None]:
    """Where the model of this job is loaded from (a directory, GGUF file or hub name), and its revision."""
    settings = snakemake.params.settings
    keys = ("name", "revision", "wheel", "member")
    model = {key: settings[f"models.{{model}}.{key}"] for key in keys}
    stated = {key: value for key, value in model.items() if value is not None}
    cache = machine_of(snakemake).cache
    return model_location(stated, wheels_among(settings), cache), model["revision"]
