"""The model that a command line names: a hub name, a directory or a GGUF file, and what its config says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from ..files.hub import is_local, locate_model
from ..files.hub_client import bound_silence
from ..model.tokenizer import bos_token_of, load_tokenizer
from ..model.vetting import vet_settings, vetted_location


@dataclass(frozen=True)
class Candidate:
    """entry: what a study's config would say under `models`; location: hub name or directory, as it is
    loaded from; folder: where its config and tokenizer are; title: for people."""

    entry: dict[str, Any]
    location: str
    folder: Path
    title: str
    config: PretrainedConfig
    tokenizer: Any

    @property
    def has_weights(self) -> bool:
        """Whether weights lie in a directory of the user's (not: in the hub's cache)."""
        files = [*self.folder.glob("*.safetensors"), *self.folder.glob("pytorch_model*.bin")]
        return is_local(self.location) and bool(files)

    @property
    def bos(self) -> int | None:
        """The token that its tokenizer puts in front of a text, None for none (raises as `bos_token_of`)."""
        return bos_token_of(self.tokenizer, "auto")


def entry_of(
    name: str, *, gguf: str | None = None, revision: str | None = None, pickle: bool = False
) -> dict[str, Any]:
    """What a study's config says under `models` of a model that a command line names.

    name: a hub name, a directory, or a GGUF file; gguf: a GGUF file inside the first two; pickle: whether
    weights may be in PyTorch's own format.
    """
    path = Path(name).expanduser()
    if path.suffix == ".gguf" and gguf is None and not path.is_dir():
        return {"gguf": str(path.absolute())}
    entry: dict[str, Any] = {"name": str(path.absolute()) if is_local(name) else name}
    stated = {"gguf": gguf, "revision": revision, "pickle": pickle}
    return entry | {key: value for key, value in stated.items() if value}


def find_candidate(entry: dict[str, Any], *, cache: Path, title: str | None = None) -> Candidate:
    """A model's config and tokenizer; of a hub name nothing else is fetched, a GGUF file is converted.

    cache: the folder for converted weights; title: by default the last part of its name.
    Raises:
        InputError: no such model, no tokenizer, a config that cannot be read or asks for code of its own; a
            GGUF file whose header is wrong.
    """
    bound_silence()
    title = title or Path(entry.get("gguf") or entry["name"]).name.removesuffix(".gguf")
    location = vetted_location(entry, {}, cache, key=title)
    folder, _ = locate_model(location, revision=entry.get("revision"), weights=False)
    config = vet_settings(folder, name=location)
    tokenizer = load_tokenizer(location, revision=entry.get("revision"))
    return Candidate(entry, location, folder, title, config, tokenizer)
