"""The per-head tables that the paper's authors released, read safely and set against a study.

A released file is a pickled torch tensor, and a pickle may run any program when it is opened. So a
file is opened only if its SHA-256 is the pinned one, and then by a reader that can do one thing:
make a float32 matrix out of the numbers inside.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import pickletools
import re
import warnings
from collections import OrderedDict
from collections.abc import Collection, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float32

from ..errors import InputError
from ..files.storage import atomic, file_sha256
from ..tables.bootstrap import divide, interval, prompt_weights

# Name of a quantity in the released files -> column of the heads table. Effects are in logits,
# `logit_diff` is ablated less clean as here, `percent_*` lie in 0..1 in spite of their name.
QUANTITIES = {
    "direct_effects": "direct_effect",
    "ablated_direct_effects": "ablated_direct_effect",
    "logit_diff": "delta_logit",
    "self_repair_from_heads": "from_heads",
    "self_repair_from_layers": "from_mlps",
    "self_repair_from_LN": "from_norm",
    "percent_heads_of_DE": "from_heads_share_clipped",
    "percent_layers_of_DE": "from_mlps_share_clipped",
    "percent_LN_of_DE": "from_norm_share_clipped",
}
# What the authors measured: the rows of the heads table that their numbers belong to.
ABLATION, SELECTION = "resample", "top"
# Bytes; the released tables have one to two thousand.
MOST_BYTES = 2**20
# Seconds without an answer from a server.
TIMEOUT = 30.0
# Fewer heads than this have a line and a correlation, but none that means anything.
FEWEST_HEADS = 3

# Every instruction of the released pickles, and the wider integers of a larger table.
_TABLE_OPCODES = {
    "PROTO", "FRAME", "MARK", "STOP", "MEMOIZE", "SHORT_BINUNICODE", "BINBYTES",
    "SHORT_BINBYTES", "BININT1", "BININT2", "BININT", "NEWFALSE", "NEWTRUE", "EMPTY_TUPLE",
    "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE", "STACK_GLOBAL", "REDUCE",
}  # fmt: skip
# The same for the storage inside: five small pickles and then the numbers (torch's old format).
_STORAGE_OPCODES = {
    "PROTO", "MARK", "STOP", "BINPUT", "BINUNICODE", "LONG1", "BININT1", "BININT2", "BININT",
    "NEWTRUE", "NONE", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "TUPLE",
    "GLOBAL", "BINPERSID",
}  # fmt: skip
_STORAGE_PICKLES = 5
_STORAGE_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.serialization.MAGIC_NUMBER

Published = Mapping[str, Float[torch.Tensor, "layer head"]]


# Where the files come from


def table_file(model: str, quantity: str) -> str:
    """Name of a released file; `model` as the authors spell it, `quantity` a key of QUANTITIES.

    Raises:
        InputError: an unknown quantity.
    """
    if quantity not in QUANTITIES:
        raise InputError(
            f"published: {quantity!r} is no released quantity; take one of {', '.join(QUANTITIES)}"
        )
    return f"{model}_condensed_{quantity}"


def fetch_table(location: str | Path, file: str, *, sha256: str, cache: Path) -> Path:
    """Path of a released table; downloaded into `cache` only if it is not there with this SHA-256.

    Args:
        location: a folder, whose file is left where it is (`read_table` checks it), or the http(s)
            address of one.
    Raises:
        InputError: no such file, no answer, an answer that is too long, or another SHA-256.
    """
    if re.fullmatch(r"[^/\\]+", file) is None or file in {".", ".."}:
        raise InputError(f"published: {file!r} is not the name of a file in {location}")
    if "://" not in str(location):
        path = Path(location, file)
        if not path.is_file():
            raise InputError(f"{location}: has no file {file}; correct `location` or put it there")
        return path
    url = f"{str(location).rstrip('/')}/{quote(file)}"
    kept = cache / file
    if kept.is_file() and file_sha256(kept) == sha256:
        return kept
    content = _download(url)
    _check_hash(content, sha256, url)
    with atomic(kept) as temporary:
        temporary.write_bytes(content)
    return kept


def _download(url: str) -> bytes:
    if not url.lower().startswith(("http://", "https://")):
        raise InputError(f"{url}: not an http(s) address; give one, or a folder")
    try:
        request = Request(url, headers={"User-Agent": "selfrepair"})
        with urlopen(request, timeout=TIMEOUT) as answer:
            content: bytes = answer.read(MOST_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:
        reason = _one_line(error) or type(error).__name__
        raise InputError(
            f"{url}: cannot be downloaded ({reason}); check the address and the connection,"
            " or put the files into a folder and give that"
        ) from error
    if len(content) > MOST_BYTES:
        raise InputError(f"{url}: more than {MOST_BYTES:,} bytes, no per-head table; correct it")
    return content


def _check_hash(content: bytes, sha256: str, source: str | Path) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise InputError(
            f"{source}: SHA-256 is {found}, expected {sha256}; replace the file if it is damaged,"
            " or correct the pinned value if you trust it"
        )


def _one_line(words: object) -> str:
    """Text from outside as one short printable line."""
    text = " ".join(str(words).split())
    return "".join(c if c.isprintable() else "?" for c in text)[:200]


# Reading


class _RefusedError(Exception):
    """Why a file is not a table of numbers."""


def read_table(path: Path, *, sha256: str) -> Float32[torch.Tensor, "layer head"]:
    """The numbers of a released table: [layer, head], in logits or, for `percent_*`, 0..1.

    Nothing but the three globals that the released files name is ever resolved, each to a stand-in
    of this module, so that no content of the file can make another function run.

    Raises:
        InputError: missing, over MOST_BYTES, another SHA-256 (checked before anything is
            interpreted), a global or instruction that no table needs, damaged, or no float32
            matrix.
    """
    content = _small_file(path)
    _check_hash(content, sha256, path)
    try:
        table = _unpickle(content)
    except _RefusedError as refusal:
        raise InputError(
            f"{path}: is not a table of numbers: {refusal}; refuse this file (nothing in it was"
            " run) and take the one that the authors released"
        ) from None
    # Garbage makes an unpickler raise nearly anything.
    except Exception as error:
        reason = f"{type(error).__name__}: {_one_line(error)}"
        raise InputError(
            f"{path}: is not a table of numbers: it cannot be read ({reason}); fetch it again"
        ) from error
    return table


def _small_file(path: Path) -> bytes:
    """The content of a file that is small enough, never reading more of a larger one."""
    try:
        if not path.is_file():
            raise InputError(f"{path}: missing; fetch it first")
        with path.open("rb") as stream:
            size = path.stat().st_size
            content = stream.read(MOST_BYTES + 1) if size <= MOST_BYTES else b""
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its rights") from error
    if max(size, len(content)) > MOST_BYTES:
        raise InputError(
            f"{path}: {size:,} bytes, but a table has at most {MOST_BYTES:,}; correct the path"
        )
    return content


def _unpickle(content: bytes) -> Float32[torch.Tensor, "layer head"]:
    stream = io.BytesIO(content)
    _inspect(stream, opcodes=_TABLE_OPCODES, allowed=_STAND_INS)
    if stream.read(1):
        raise _RefusedError("it goes on after its end")
    table = _TableUnpickler(io.BytesIO(content)).load()
    if type(table) is not torch.Tensor or table.ndim != 2:
        raise _RefusedError(f"what it holds is a {type(table).__name__}, not [layer, head]")
    return table


def _inspect(stream: io.BytesIO, *, opcodes: Collection[str], allowed: Collection[str]) -> None:
    """Read one pickle up to its end without running it; refuse what a table has no use for.

    STACK_GLOBAL's global is a guess here, the last two words; `find_class` sees what it really is.
    """
    words, needless = ["?", "?"], ""
    for opcode, argument, _ in pickletools.genops(stream):
        if isinstance(argument, str):
            words.append(argument)
        if opcode.name in {"GLOBAL", "INST"}:
            _check_global(".".join(words[-1].split(" ")), allowed)
        if opcode.name == "STACK_GLOBAL":
            _check_global(".".join(words[-2:]), allowed)
        if opcode.name not in opcodes:
            needless = needless or opcode.name
    if needless:  # only now: a global says more about what a file is up to
        raise _RefusedError(f"it uses the pickle instruction {needless}")


def _check_global(name: str, allowed: Collection[str]) -> None:
    if name not in allowed:
        raise _RefusedError(f"it wants to call {_one_line(name)}")


class _TableUnpickler(pickle.Unpickler):
    """Resolves the globals of a released table to stand-ins, and no other."""

    def find_class(self, module: str, name: str, /) -> Any:
        _check_global(f"{module}.{name}", _STAND_INS)
        return _STAND_INS[f"{module}.{name}"]


def _numbers(content: object) -> Float32[torch.Tensor, " number"]:
    """Stands in for `torch.storage._load_from_bytes`, which would unpickle with full powers."""
    if not isinstance(content, bytes) or not content.startswith(_STORAGE_START):
        raise _RefusedError("its numbers are not in the format of the released files")
    stream = io.BytesIO(content)
    for _ in range(_STORAGE_PICKLES):
        _inspect(stream, opcodes=_STORAGE_OPCODES, allowed={"torch.FloatStorage"})
    storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(storage, torch.TypedStorage):
        raise _RefusedError(f"in place of numbers it holds one {type(storage).__name__}")
    with warnings.catch_warnings():
        # torch announces the end of typed storages, which is what the files have.
        warnings.simplefilter("ignore", UserWarning)
        return torch.empty(0, dtype=torch.float32).set_(storage.untyped())


def _matrix(
    numbers: object, offset: object, size: object, stride: object, *_: object
) -> Float32[torch.Tensor, "layer head"]:
    """Stands in for `torch._utils._rebuild_tensor_v2`: a whole contiguous matrix, no view."""
    if type(numbers) is not torch.Tensor:
        raise _RefusedError("it is a tensor without numbers")
    counts = isinstance(size, tuple) and all(type(n) is int and n > 0 for n in size)
    if not (isinstance(size, tuple) and counts and len(size) == 2):
        raise _RefusedError(f"its shape is {_one_line(size)}, not [layer, head]")
    if offset != 0 or stride != (size[1], 1) or numbers.numel() != size[0] * size[1]:
        raise _RefusedError(
            f"its shape {_one_line(size)} does not fit its {numbers.numel()} numbers"
        )
    return numbers.view(size)


def _no_hooks() -> OrderedDict[str, object]:
    """Stands in for `collections.OrderedDict`, the hooks of a tensor: a table has none."""
    return OrderedDict()


_STAND_INS = {
    "torch._utils._rebuild_tensor_v2": _matrix,
    "torch.storage._load_from_bytes": _numbers,
    "collections.OrderedDict": _no_hooks,
}


# Comparison


def compare(
    heads: pl.DataFrame, tables: Published, *, seed: int, resamples: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A study's heads against the released numbers of the same model, and how well they agree.

    Args:
        heads: main table of one model (`decomposition.head_tables`); resample ablation and top
            tokens are taken, as the authors did.
        tables: [layer, head] by quantity of the released files (keys of QUANTITIES). With the three
            that `self_repair` is made of (method section 2) it is compared too.
        seed, resamples: of the bootstrap over heads.
    Returns:
        comparison: a row per (model, quantity, layer, head) with `published`, `measured`,
        `measured_low`, `measured_high`, in logits or shares of 0..1; `quantity` is our column's
        name; null bounds where the column has no interval.
        summary: a row per quantity. Differences are measured less published, over the `n_heads`
        that have both values (`n_dropped` have not). `slope` and `intercept` are least squares of
        measured on published; `_low` and `_high` are 95 % intervals over heads, which say how much
        hangs on single heads, not how noisy a head is. `within_interval` is the share of heads
        whose published value lies in our interval over prompts. NaN where undefined.
    Raises:
        InputError: no such rows, more than one model, no or unknown quantities, or another shape.
    """
    names = _columns(tables)
    rows, model = _measured(heads, [*names.values(), "self_repair"])
    shape = (rows["layer"].n_unique(), rows["head"].n_unique())
    for name, table in tables.items():
        if tuple(table.shape) != shape:
            raise InputError(
                f"{model}: published {name} has shape {_shape(table.shape)} (layers x heads), the"
                f" study {_shape(shape)}; compare tables of the same model"
            )
    values = {names[name]: table.double().flatten().numpy() for name, table in tables.items()}
    values |= _self_repair(values)
    parts = [_paired(rows, column, published) for column, published in values.items()]
    summaries = [_agreement(part, seed=seed, resamples=resamples) for part in parts]
    return pl.concat(parts), pl.DataFrame(summaries, schema=_SUMMARY_SCHEMA)


def agreement_metrics(agreement: pl.DataFrame) -> dict[str, dict[str, float]]:
    """The agreement as scalars by quantity, which `dvc metrics show` reads; missing left out."""
    names = ("correlation", "slope", "mean_difference", "largest_difference", "within_interval")
    return {
        row["quantity"]: {
            name: row[name] for name in names if row[name] is not None and np.isfinite(row[name])
        }
        for row in agreement.iter_rows(named=True)
    }


def _columns(tables: Published) -> dict[str, str]:
    unknown = [name for name in tables if name not in QUANTITIES]
    if unknown or not tables:
        raise InputError(
            f"published: {', '.join(unknown) or 'nothing'} to compare;"
            f" take tables of {', '.join(QUANTITIES)}"
        )
    return {name: QUANTITIES[name] for name in tables}


def _measured(heads: pl.DataFrame, columns: list[str]) -> tuple[pl.DataFrame, str]:
    """The rows that the released tables are about, in their order, and the model's name."""
    needed = ["model", "ablation", "selection", "layer", "head", *columns]
    missing = [name for name in needed if name not in heads.columns]
    if missing:
        raise InputError(f"published: the heads table has no column {', '.join(missing)}")
    rows = heads.filter(ablation=ABLATION, selection=SELECTION).sort("layer", "head")
    models = rows["model"].unique(maintain_order=True).to_list()
    if len(models) != 1:
        raise InputError(
            f"published: takes {ABLATION} ablation on top tokens of one model, the heads table has"
            f" {', '.join(models) or 'none'}; run the sweep with it or choose a model"
        )
    layers, n_heads = rows["layer"].n_unique(), rows["head"].n_unique()
    if rows.select("layer", "head").n_unique() != rows.height or rows.height != layers * n_heads:
        raise InputError(
            f"{models[0]}: the heads table has {rows.height} rows for {layers} layers x {n_heads}"
            " heads; write it again with the decomposition"
        )
    return rows, str(models[0])


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


def _self_repair(
    values: Mapping[str, Float[np.ndarray, " head"]],
) -> dict[str, Float[np.ndarray, " head"]]:
    """Published self-repair, which has no file: delta_logit less the change of the direct effect."""
    names = ("delta_logit", "ablated_direct_effect", "direct_effect")
    if any(name not in values for name in names):
        return {}
    delta_logit, ablated, clean = (values[name] for name in names)
    return {"self_repair": delta_logit - (ablated - clean)}


def _paired(rows: pl.DataFrame, column: str, published: Float[np.ndarray, " head"]) -> pl.DataFrame:
    """Both values of one quantity, a row per head; a missing value is NaN."""
    missing = pl.lit(None, dtype=pl.Float64)
    bounds = {
        f"measured_{end}": pl.col(f"{column}_{end}")
        if f"{column}_{end}" in rows.columns
        else missing
        for end in ("low", "high")
    }
    return rows.select(
        pl.col("model"),
        pl.lit(column).alias("quantity"),
        pl.col("layer").cast(pl.Int32),
        pl.col("head").cast(pl.Int32),
        pl.Series("published", published),
        pl.col(column).cast(pl.Float64).fill_null(float("nan")).alias("measured"),
        *(bound.cast(pl.Float64).alias(name) for name, bound in bounds.items()),
    )


_SUMMARY_SCHEMA = {
    "model": pl.String,
    "quantity": pl.String,
    "n_heads": pl.Int32,
    "n_dropped": pl.Int32,
    "correlation": pl.Float64,
    "correlation_low": pl.Float64,
    "correlation_high": pl.Float64,
    "slope": pl.Float64,
    "slope_low": pl.Float64,
    "slope_high": pl.Float64,
    "intercept": pl.Float64,
    "mean_difference": pl.Float64,
    "largest_difference": pl.Float64,
    "largest_layer": pl.Int32,
    "largest_head": pl.Int32,
    "within_interval": pl.Float64,
}


def _agreement(part: pl.DataFrame, *, seed: int, resamples: int) -> dict[str, Any]:
    """One row of the summary, from the rows of one quantity."""
    both = part.filter(pl.col("published").is_finite() & pl.col("measured").is_finite())
    row: dict[str, Any] = dict(part.select("model", "quantity").row(0, named=True))
    row |= {"n_heads": both.height, "n_dropped": part.height - both.height}
    row |= _line(both["published"].to_numpy(), both["measured"].to_numpy(), seed, resamples)
    difference = both["measured"] - both["published"]
    row["mean_difference"] = float(difference.to_numpy().mean()) if both.height else float("nan")
    row |= {"largest_difference": float("nan"), "largest_layer": None, "largest_head": None}
    if both.height:
        worst = int(np.argmax(difference.abs().to_numpy()))
        row["largest_difference"] = abs(difference[worst])
        row |= {f"largest_{key}": both[key][worst] for key in ("layer", "head")}
    row["within_interval"] = _within(both)
    return row


def _within(both: pl.DataFrame) -> float | None:
    """Share of heads whose published value lies in our interval; None without intervals."""
    low, high = pl.col("measured_low"), pl.col("measured_high")
    bounded = both.filter(low.is_finite() & high.is_finite())
    if not bounded.height:
        return None
    return bounded.filter(pl.col("published").is_between(low, high)).height / bounded.height


def _line(
    published: Float[np.ndarray, " head"],
    measured: Float[np.ndarray, " head"],
    seed: int,
    resamples: int,
) -> dict[str, float]:
    """Correlation and least squares of measured on published, with bootstrap intervals over heads."""
    names = ("correlation", "slope", "intercept")
    if len(published) < FEWEST_HEADS:
        keys = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
        return {key: float("nan") for key in keys if not key.startswith("intercept_")}
    weights = prompt_weights(len(published), resamples, seed=seed)  # here of heads
    estimates = np.stack(_fits(weights, published, measured), axis=1)
    value, low, high = interval(estimates)
    fits: dict[str, float] = dict(zip(names, value.tolist(), strict=True))
    for index, name in enumerate(names[:2]):
        fits |= {f"{name}_low": float(low[index]), f"{name}_high": float(high[index])}
    return fits


def _fits(
    weights: Float[np.ndarray, "resample head"],
    x: Float[np.ndarray, " head"],
    y: Float[np.ndarray, " head"],
) -> tuple[Float[np.ndarray, " resample"], ...]:
    """Correlation, slope and intercept of y on x in every resample; NaN where x or y is constant."""
    total = weights.sum(1)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    from_x, from_y = x - mean_x[:, None], y - mean_y[:, None]
    spread_x, spread_y = (
        _spread((weights * off**2).sum(1), values) for off, values in ((from_x, x), (from_y, y))
    )
    shared = (weights * from_x * from_y).sum(1)
    slope = divide(shared, spread_x)
    return divide(shared, np.sqrt(spread_x * spread_y)), slope, mean_y - slope * mean_x


def _spread(
    squares: Float[np.ndarray, " resample"], values: Float[np.ndarray, " head"]
) -> Float[np.ndarray, " resample"]:
    """Sums of squared deviations, exactly 0 where they are only the rounding of a constant."""
    return np.where(squares > 1e-24 * np.square(values).sum(), squares, 0.0)
