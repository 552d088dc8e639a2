"""Where the model of a job is loaded from."""

from typing import Any

from common.settings import below, machine_of
from selfrepair.files.wheels import wheels_of
from selfrepair.model.weights import model_location


def location_of_model(snakemake: Any) -> tuple[str, str | None]:
    """A directory or hub name, and the revision on the hub if the config states one."""
    settings = snakemake.params.settings
    stated = {key: value for key, value in below(settings, "models.{model}").items() if value}
    wheels = wheels_of(below(settings, "wheels"))
    key = snakemake.wildcards.model
    location = model_location(stated, wheels, machine_of(snakemake).cache, key=key)
    return location, stated.get("revision")
