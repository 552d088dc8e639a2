# What results depend on besides data: code, keys of the config, and files that scripts find by themselves.
from snakemake.io import sourcecache_entry

from selfrepair.files.storage import sidecar
from selfrepair.study.materials import named_wheels

from common import rule_code


def on_every_node(paths):
    """Inputs that lie where jobs run, in the checkout or on a volume, even if results are in a bucket.

    Flagged as Snakemake flags source files: local() would keep their jobs on this machine.
    """
    if not workflow.storage_settings.default_storage_provider:
        return paths
    return [sourcecache_entry(path, path) for path in paths]


def code_of(script, *modules):
    """A script and all of our modules that it imports; modules: those that it imports by a name it is
    given. Editing one of these files re-runs the rule."""
    return on_every_node(rule_code.code_of(script, Path(workflow.basedir), modules))


def settings(*keys):
    """The values of dotted keys of the config, by key: all that a rule's result depends on there.

    In a key, {model} is the job's model; a key with {wheel} stands for one key for each wheel that the
    model names. A key that the config does not have is None, or, if it ends in ? here, left out: a rule
    that gets such a key runs again for those who state it alone. What the model's `sizes` replaces has the
    model's value. dvc.yaml names the same keys.
    """

    def values(wildcards):
        model = wildcards.get("model", "")
        wheels = named_wheels(config["models"].get(model))
        named = [
            key.replace("{wheel}", wheel)
            for key in keys
            for wheel in (wheels if "{wheel}" in key else [""])
        ]
        found = {
            key: config_value(
                config_of(model), key.rstrip("?").replace("{model}", model)
            )
            for key in named
        }
        return {
            key.rstrip("?"): value
            for key, value in found.items()
            if value is not None or not key.endswith("?")
        }

    return values


def about_models(*names):
    """Keys of the config that say something of each model."""
    return [f"models.{model}.{name}" for model in MODELS for name in names]


def model_files(wildcards):
    """The files of a model that lie on this machine: what follows them is out of date when they change."""
    model = config["models"][wildcards.model]
    folder = Path(model.get("name", "")).expanduser()
    if "gguf" in model:
        path = Path(folder, model["gguf"]).expanduser()
        return on_every_node([str(path)] if path.is_file() else [])
    endings = (".json", ".safetensors", ".bin", ".model", ".txt")
    if not Path(folder, "config.json").is_file():
        return []
    return on_every_node(
        [str(p) for p in sorted(folder.iterdir()) if p.suffix in endings]
    )


def found_beside(files):
    """Files that a script finds beside its inputs: inputs too where jobs share no file system, and
    each gets only what its rule names."""
    return files if workflow.storage_settings.default_storage_provider else []


def sidecars(paths):
    return [str(sidecar(Path(path))) for path in paths]


def sidecars_of_clean(wildcards):
    return found_beside(sidecars(shards_of_clean(wildcards)))


def sidecars_of_sweep(wildcards):
    return found_beside(sidecars(shards_of_sweep(wildcards)))


def sidecars_of_experiment(wildcards):
    return found_beside(sidecars(shards_of_experiment(wildcards)))


def first_shards(wildcards):
    """The sidecar of the first shard of the checked sweep; its tensors lie beside it, or packed.

    A store has all sidecars, so that nothing is measured again for the check.
    """
    return sidecars(
        [shard_paths(wildcards.model, "sweeps", name)[0] for name in CHECKED]
    )


def tensors_of_first_shards(wildcards):
    return found_beside(
        [shard_paths(wildcards.model, "sweeps", name)[0] for name in CHECKED]
    )


def shards_of(models, folder, *measurements):
    """The shards that the indices of these measurements of some models list, and their sidecars."""
    paths = [
        path
        for model in models
        for name in measurements
        for path in shard_paths(model, folder, name)
    ]
    return found_beside(paths + sidecars(paths))


def shards_behind(folder, *measurements):
    """The same of a job's model."""
    return lambda wildcards: shards_of([wildcards.model], folder, *measurements)
