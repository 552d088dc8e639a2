"""The recorded studies: their results lie in the store, and dvc.yaml has their stages."""

from collections.abc import Mapping, Sequence

# The default study, whose stages are called as its phases are; those of another begin with its name.
DEFAULT = "config/config.yaml"
# Files of studies, and of each the models that are recorded: all (None), or some while others still run,
# without the claims and figures then, which are of all.
RECORDED: Mapping[str, Sequence[str] | None] = {
    DEFAULT: None,
}
