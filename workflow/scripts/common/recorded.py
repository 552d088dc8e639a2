"""The recorded studies: their results lie in the store, and dvc.yaml has their stages."""

from collections.abc import Mapping, Sequence

# The default study, whose stages are called as its phases are; those of another begin with its name.
DEFAULT = "config/config.yaml"
# Files of studies, and of each the models that are recorded: all (None), or some while others still run,
# without the claims and figures then, which are of all.
RECORDED: Mapping[str, Sequence[str] | None] = {
    DEFAULT: None,
    "config/families.yaml": None,
}
# Studies whose top tokens (clean.safetensors, 16 kB a head at 100,000 tokens) are not kept: the clean pass is
# run again, some minutes, before a sweep or an experiment that has to be.
WITHOUT_TOP_TOKENS = ("config/families.yaml",)
