"""Models on the Hugging Face hub: their files in the hub's own cache, fetched if they are not there."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import (
    constants,
    hf_hub_download,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..errors import InputError, first_line

_CONFIG_AND_TOKENIZER = ["*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt"]
# In the order in which they are looked for: PyTorch's own format only where there is no other.
_WEIGHTS = ["*.safetensors", "pytorch_model*.bin"]
# Subfolders and these files hold the same weights in formats of other programs.
_DUPLICATES = ["*/*", "consolidated*"]


def is_local(name: str) -> bool:
    """Whether a name means a directory, by its first character or because there is one."""
    return name.startswith((".", "/", "~")) or Path(name).exists()


def locate_model(
    name: str, *, revision: str | None = None, weights: bool = True
) -> tuple[Path, str | None]:
    """Directory with a model's files, and their commit on the hub (None if the name is a directory).

    Args:
        name: a hub name, or a local Hugging Face directory.
        revision: a hub branch, tag or commit.
        weights: whether the weights are needed, besides config and tokenizer.
    Raises:
        InputError: no such directory; no such model or revision on the hub; a gated model that the
            user has no access to; a model neither in the cache nor reachable; no weights.
    """
    if is_local(name):
        if not Path(name, "config.json").is_file():
            raise InputError(
                f"model {name}: no such Hugging Face directory (it has no config.json)"
            )
        return Path(name), None
    folder = _snapshot(name, revision, _CONFIG_AND_TOKENIZER)
    # From here on by commit: a branch may move between two questions to the hub.
    if weights and not any(_has(name, folder.name, kind) for kind in _WEIGHTS):
        raise InputError(
            f"model {name}: no weights ({' or '.join(_WEIGHTS)}) in {folder}; fetch them with access "
            "to the hub (`make fetch CONFIG=...`), or name a model that has them"
        )
    return folder, folder.name


def locate_file(
    name: str | None, file: str, *, revision: str | None = None, download: bool = True
) -> Path:
    """A single file of a model: in a repository of the hub, in a directory, or by its own path.

    Args:
        name: a hub name or a directory; None if `file` is a path.
        file: its path in there.
        revision: a hub branch, tag or commit.
        download: whether a file of the hub is fetched; without, only whether it may be is checked.
    Raises:
        InputError: there is no such file; or as `locate_model`.
    """
    if name is None or is_local(name):
        path = Path(name or "", file).expanduser()
        if not path.is_file():
            raise InputError(f"{path}: no such file; correct `gguf`")
        return path
    try:
        found = hf_hub_download(name, file, revision=revision, dry_run=not download)
    except Exception as error:
        raise InputError(f"model {name}: {_reason(error, name, revision, file)}") from error
    return Path(found if isinstance(found, str) else found.local_path)


def cached_file(name: str | None, file: str, revision: str | None = None) -> Path | None:
    """As `locate_file`, but only what is on this machine, without asking the hub; None if it is not."""
    path = Path(name or "", file).expanduser()
    if path.is_file() or name is None:
        return path if path.is_file() else None
    try:
        found = try_to_load_from_cache(name, file, revision=revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def commit_of(path: Path) -> str | None:
    """The commit of a file in the hub's cache; None for other files."""
    cache = Path(constants.HF_HUB_CACHE)
    if not path.is_relative_to(cache):
        return None
    # models--owner--name/snapshots/<commit>/...
    return path.relative_to(cache).parts[2]


def _has(name: str, commit: str, kind: str) -> bool:
    return any(_snapshot(name, commit, [*_CONFIG_AND_TOKENIZER, kind]).glob(kind))


def _snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=patterns, ignore_patterns=_DUPLICATES
            )
        )
    except Exception as error:
        raise InputError(f"model {name}: {_reason(error, name, revision)}") from error


def _reason(error: Exception, name: str, revision: str | None, file: str = "") -> str:
    """What went wrong between us and the hub, and what to do about it; file: the only one asked for."""
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    if isinstance(cause, GatedRepoError):
        return _gated(f"{constants.ENDPOINT}/{name}")
    if isinstance(cause, RevisionNotFoundError):
        return f"the hub has no revision {revision!r} of it; correct `revision` or leave it out"
    if isinstance(cause, RepositoryNotFoundError):
        return (
            "the hub has no model of this name that you may see; correct `name`, or, if it is "
            "private, set HF_TOKEN or run `hf auth login`"
        )
    if isinstance(cause, RemoteEntryNotFoundError):
        return f"the hub has no file {file!r} in it; correct `gguf`"
    if isinstance(cause, HFValidationError):
        return "neither a directory nor a hub name (organisation/model); correct `name`"
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        what = (
            "renew the token (HF_TOKEN, `hf auth login`)" if status in (401, 403) else "try later"
        )
        return f"the hub refuses the request ({first_line(cause)}); {what}"
    if isinstance(error, LocalEntryNotFoundError):
        which = f" at revision {revision!r}" if revision else ""
        missing = f"{file} is not" if file else "not, or not all of it,"
        return f"{missing} in the hub's cache{which}, and {_remedy(name, revision, file)}"
    return f"cannot be fetched ({first_line(error)}); try again, or name a local directory"


def dataset_reason(error: Exception, name: str) -> str:
    """Why `datasets` did not give a data set, and what to do about it."""
    from datasets.exceptions import DatasetNotFoundError

    if isinstance(error, (ConnectionError, HTTPError)) and not isinstance(error, HfHubHTTPError):
        return f"is not in the cache of data sets, and {_offline('`make fetch CONFIG=...`')}"
    if not isinstance(error, DatasetNotFoundError):
        return f"cannot be loaded ({first_line(error)})"
    # `datasets` tells these apart in its message only.
    if "gated" in str(error):
        return f"is {_gated(f'{constants.ENDPOINT}/datasets/{name}')}"
    if "Revision" in str(error):
        return "has no such commit on the hub; correct `revision` or leave it out"
    return (
        "is no data set on the hub that you may see; correct `dataset`, or, if it is private, set "
        "HF_TOKEN or run `hf auth login`"
    )


def _gated(page: str) -> str:
    """What to do about a model or data set that the hub gives to those who accepted its licence."""
    return (
        f"gated, and you have no access yet; accept its licence on {page}, then set HF_TOKEN or run "
        "`hf auth login`, or name a local directory"
    )


def _offline(commands: str) -> str:
    """What to do about something that is not in the cache when the hub is out of reach."""
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
    return (
        f"{why}; fetch it on a machine with access first: {commands}, with the same HF_HOME (here "
        f"{constants.HF_HOME})"
    )


def _remedy(name: str, revision: str | None, file: str) -> str:
    download = " ".join(["hf download", name, *([file] if file else [])])
    if revision:
        download += f" --revision {revision}"
    return _offline(f"`make fetch CONFIG=...` or `{download}`")
