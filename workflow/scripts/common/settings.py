"""What a script reads of the study's config.

Its rule declares the keys that the result depends on, as `params: settings=settings("seed", ...)`; the
script reads them as `snakemake.params.settings["seed"]`, so a key that is not declared is an error, not a
stale result. Keys on which no result depends (`Machine`) come from the config itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Machine:
    """Where and how a job runs, which changes no result beyond rounding.

    device: of the model; cache: folder of what was fetched and converted; prompts_at_once, rows_at_once:
    what is held in memory together (None: as much as fits); shape: the sizes of the job's model that the
    config states for planning, empty if it states none.
    """

    device: str
    cache: Path
    prompts_at_once: int | None
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


def below(settings: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The settings of one section by the rest of their key: of "wheels", those of "wheels.<name>" by name."""
    start = f"{section}."
    return {key.removeprefix(start): settings[key] for key in settings if key.startswith(start)}
