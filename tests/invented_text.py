"""Sources made of invented words, for the tests of text."""

from pathlib import Path


def words(count, start=0):
    """So many words that the tiny tokenizer knows, each a token."""
    return " ".join(f"w{4 + (start + i) % 57}" for i in range(count))


def source(file, **more):
    """The completed entry of a source, by default a local file."""
    entry = {"kind": "file", "path": str(file), "column": "text", "licence": "mine", "weight": 1}
    return entry | more


def write_documents(path: Path, count=9):
    """A file of documents of 40 tokens and more."""
    path.write_text("\n\n\n".join(words(40 + 7 * i, start=i) for i in range(count)))
    return path
