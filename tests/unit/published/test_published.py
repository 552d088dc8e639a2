"""Released tables are read without running them, fetched once, and compared head by head."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from selfrepair.errors import InputError
from selfrepair.figures.published import PANELS, published_against_measured, published_caption
from selfrepair.published import tables as published
from selfrepair.published.tables import (
    QUANTITIES,
    compare,
    fetch_table,
    read_table,
    table_file,
)

RELEASED = Path(__file__).parents[4] / "shared" / "published"
MODELS = {
    "gpt2-small": (12, 12),
    "gpt2-medium": (24, 16),
    "pythia-160m": (12, 12),
    "pythia-410m": (24, 16),
}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def pickled(value: object) -> bytes:
    """As the authors wrote theirs."""
    return pickle.dumps(value, protocol=4)


def write(folder: Path, content: bytes) -> tuple[Path, str]:
    path = folder / "toy_condensed_direct_effects"
    path.write_bytes(content)
    return path, sha256(content)


def refusal(folder: Path, content: bytes) -> str:
    """The one line with which a file is refused whose SHA-256 is the pinned one."""
    path, digest = write(folder, content)
    with pytest.raises(InputError) as error:
        read_table(path, sha256=digest)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    return message


# Reading


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (12, 12), (300, 20)])
def test_a_table_comes_back_bit_by_bit(tmp_path, shape):
    table = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    table[0, 0] = float("nan")
    path, digest = write(tmp_path, pickled(table))
    read = read_table(path, sha256=digest)
    assert type(read) is torch.Tensor
    assert read.dtype == torch.float32
    assert torch.equal(read.view(torch.int32), table.view(torch.int32))


def test_the_checksum_comes_before_anything_is_interpreted(tmp_path, monkeypatch):
    def never(content):
        pytest.fail("interpreted")

    monkeypatch.setattr(published, "_unpickle", never)
    path, digest = write(tmp_path, b"anything")
    with pytest.raises(InputError, match=f"SHA-256 is {digest}, expected {'0' * 64}") as error:
        read_table(path, sha256="0" * 64)
    assert str(path) in str(error.value)


def test_a_large_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "large"
    with path.open("wb") as stream:
        stream.truncate(published.MOST_BYTES + 1)
    monkeypatch.setattr(published, "_check_hash", lambda *_: pytest.fail("read"))
    with pytest.raises(InputError, match="1,048,577 bytes, but a table has at most 1,048,576"):
        read_table(path, sha256="0" * 64)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="none: missing"):
        read_table(tmp_path / "none", sha256="0" * 64)


@pytest.mark.parametrize("cut", [0, 1, 30, 90, 400, -40, -1])
def test_a_truncated_file_is_refused(tmp_path, cut):
    message = refusal(tmp_path, pickled(torch.ones(4, 5))[:cut])
    assert "is not a table of numbers" in message


@pytest.mark.parametrize("seed", range(20))
def test_garbage_is_refused(tmp_path, seed):
    draw = np.random.default_rng(seed)
    content = bytearray(pickled(torch.ones(4, 5)))
    start = int(draw.integers(0, 200))  # before the numbers
    content[start : start + 40] = draw.bytes(40)
    assert "is not a table of numbers" in refusal(tmp_path, bytes(content))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.ones(4), r"shape is \(4,\), not \[layer, head\]"),
        (torch.ones(2, 3, 4), r"shape is \(2, 3, 4\)"),
        (torch.ones(()), r"shape is \(\)"),
        (torch.ones(0, 3), r"shape is \(0, 3\)"),
        (torch.ones(3, 4).T, "does not fit"),
        (torch.ones(9, 4)[:3], "does not fit its 36 numbers"),
        (torch.ones(3, 4, dtype=torch.float64), r"torch\.DoubleStorage"),
        (torch.ones(3, 4, dtype=torch.int64), r"torch\.LongStorage"),
        (torch.nn.Parameter(torch.ones(3, 4)), r"torch\._utils\._rebuild_parameter"),
        (torch.ones(3, 4).to_sparse(), r"torch\._utils\._rebuild_sparse_tensor"),
        (np.ones((3, 4), dtype=np.float32), r"numpy\..*_reconstruct"),
        ((1, 2), "is a tuple"),
        ("words", "is a str"),
        ([torch.ones(3, 4)], "EMPTY_LIST"),
    ],
)  # fmt: skip
def test_what_is_no_float32_matrix_is_refused(tmp_path, value, reason):
    assert re.search(reason, refusal(tmp_path, pickled(value)))


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def bare_storage(content: bytes) -> bytes:
    return pickled(Call(torch.storage._load_from_bytes, content))


def in_storage(value: object) -> bytes:
    """torch's old format, which is what `_load_from_bytes` gets."""
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def shell(target: Path) -> str:
    return f"touch {target}"


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text.encode())]) + text.encode()


def hostile(kind: str, target: Path) -> bytes:
    """A pickle that creates `target` when an ordinary unpickler opens it."""
    command, statement = shell(target), f"open({str(target)!r}, 'w').close()"
    system = Call(os.system, command)
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    contents: dict[str, Callable[[], bytes]] = {
        "os.system by GLOBAL": lambda: f"cos\nsystem\n(V{command}\ntR.".encode(),
        "posix.system, protocol 2": lambda: pickle.dumps(system, protocol=2),
        "posix.system by STACK_GLOBAL": lambda: (
            b"\x80\x04" + short("posix") + short("system") + b"\x93" + short(command) + b"\x85R."
        ),
        "os.system by INST": lambda: f"(V{command}\nios\nsystem\n.".encode(),
        "builtins.eval": lambda: pickled(Call(eval, statement.replace(".close()", ""))),
        "builtins.exec": lambda: pickled(Call(exec, statement)),
        "torch.load": lambda: pickled(Call(torch.load, str(target.with_suffix(".pt")))),
        "torch.serialization.load by name": lambda: (
            b"\x80\x04" + short("torch.serialization") + short("os.system") + b"\x93"
            + short(command) + b"\x85R."
        ),
        "through a function's globals": lambda: (
            b"\x80\x04" + short("torch._utils") + short("_rebuild_tensor_v2.__globals__") + b"\x93."
        ),
        "nested": lambda: bare_storage(in_storage(system)),
        "nested, protocol 4": lambda: bare_storage(magic + pickled(system)),
        "nested without the format": lambda: bare_storage(pickled(system)),
        "nested, zip": lambda: bare_storage(zipped(system)),
        "twice nested": lambda: bare_storage(
            in_storage(Call(torch.storage._load_from_bytes, in_storage(system)))
        ),
        "as the hooks of a table": lambda: pickled(
            Call(
                torch._utils._rebuild_tensor_v2,
                Call(torch.storage._load_from_bytes, in_storage(torch.FloatStorage(4))),
                0, (2, 2), (2, 1), False, system,
            )
        ),
        "after a table": lambda: pickled(torch.ones(2, 2)) + pickled(system),
    }  # fmt: skip
    return contents[kind]()


def zipped(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


HOSTILE = {
    "os.system by GLOBAL": "wants to call os.system;",
    "posix.system, protocol 2": "wants to call posix.system;",
    "posix.system by STACK_GLOBAL": "wants to call posix.system;",
    "os.system by INST": "wants to call os.system;",
    "builtins.eval": "wants to call builtins.eval;",
    "builtins.exec": "wants to call builtins.exec;",
    "torch.load": "wants to call torch.serialization.load;",
    "torch.serialization.load by name": "wants to call torch.serialization.os.system;",
    "through a function's globals": "wants to call torch._utils._rebuild_tensor_v2.__globals__;",
    "nested": "wants to call posix.system;",
    "nested, protocol 4": "nothing in it was run",
    "nested without the format": "not in the format of the released files",
    "nested, zip": "not in the format of the released files",
    "twice nested": "wants to call torch.storage._load_from_bytes;",
    "as the hooks of a table": "wants to call",
    "after a table": "it goes on after its end",
}
# These would do nothing even to an unpickler that trusts everything: it fails or stops before.
TOOTHLESS = {"nested, protocol 4", "through a function's globals", "after a table"}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_pickle_does_nothing(tmp_path, kind):
    target = tmp_path / "created"
    torch.save(Call(os.system, shell(target)), target.with_suffix(".pt"))
    message = refusal(tmp_path, hostile(kind, target))
    assert not target.exists()
    assert "is not a table of numbers" in message
    assert HOSTILE[kind] in message


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE")
@pytest.mark.parametrize("kind", [k for k in HOSTILE if k not in TOOTHLESS])
def test_the_same_pickle_bites_an_ordinary_unpickler(tmp_path, monkeypatch, kind):
    """Otherwise the test before would prove nothing."""
    target = tmp_path / "created"
    torch.save(Call(os.system, shell(target)), target.with_suffix(".pt"))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    content = hostile(kind, target)
    # What comes back is no tensor, which many of these trip over, too late.
    with contextlib.suppress(Exception):
        pickle.loads(content)
    assert target.exists()


def test_the_environment_cannot_switch_the_safe_loader_off(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    target = tmp_path / "created"
    refusal(tmp_path, hostile("nested", target))
    assert not target.exists()


def test_the_enforcing_part_alone_lets_nothing_through(tmp_path, monkeypatch):
    """Without the inspection of instructions `find_class` still refuses."""
    monkeypatch.setattr(published, "_inspect", lambda stream, **_: stream.read())
    for kind in ("os.system by GLOBAL", "os.system by INST", "builtins.eval", "nested"):
        target = tmp_path / "created"
        refusal(tmp_path, hostile(kind, target))
        assert not target.exists()


def test_state_cannot_be_set_on_what_a_table_calls(tmp_path):
    build = b"\x80\x04" + short("collections") + short("OrderedDict") + b"\x93}b."
    assert "the pickle instruction EMPTY_DICT" in refusal(tmp_path, build)
    build = b"\x80\x04" + short("collections") + short("OrderedDict") + b"\x93)b."
    assert "the pickle instruction BUILD" in refusal(tmp_path, build)


def test_names_in_a_file_cannot_break_the_line_or_flood_it(tmp_path):
    name = "a\nb\x1b[31m" + "x" * 240
    content = b"\x80\x04" + short("os") + short(name[:200]) + b"\x93."
    message = refusal(tmp_path, content)
    assert "wants to call os.a b?[31mx" in message
    assert "\x1b" not in message


@pytest.mark.parametrize("claimed", [5, 2**31 - 1])
def test_numbers_that_are_claimed_but_not_there(tmp_path, claimed):
    """Neither read from beyond the file nor waited for."""
    honest, header = in_storage(torch.FloatStorage(4)), b"cpuq\x03"
    assert honest.count(header + b"K\x04N") == 1
    number = b"J" + claimed.to_bytes(4, "little")
    inner = honest.replace(header + b"K\x04N", header + number + b"N")
    assert "cannot be read" in refusal(tmp_path, bare_storage(inner))


def test_bare_numbers_are_no_table(tmp_path):
    assert "not [layer, head]" in refusal(tmp_path, bare_storage(in_storage(torch.FloatStorage(4))))


# Fetching


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[tuple[str, Path, list[str]]]:
    """Address, folder and requests of a web server on loopback."""
    folder = tmp_path / "served"
    folder.mkdir()
    requests: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            requests.append(self.path)

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    handler = partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/", folder, requests
        running.shutdown()
        thread.join()


def fetch_refusal(location: str | Path, cache: Path, digest: str = "0" * 64) -> str:
    with pytest.raises(InputError) as error:
        fetch_table(location, "t_condensed_x", sha256=digest, cache=cache)
    assert len(str(error.value).splitlines()) == 1
    assert not cache.exists() or not list(cache.iterdir())
    return str(error.value)


def test_a_file_in_a_folder_stays_there(tmp_path):
    (tmp_path / "t_condensed_x").write_bytes(b"1")
    for location in (tmp_path, str(tmp_path)):
        path = fetch_table(location, "t_condensed_x", sha256="0" * 64, cache=tmp_path / "cache")
        assert path == tmp_path / "t_condensed_x"
    assert not (tmp_path / "cache").exists()


def test_a_file_missing_from_a_folder_is_named(tmp_path):
    message = fetch_refusal(tmp_path / "away", tmp_path / "cache")
    assert message.startswith(f"{tmp_path / 'away'}: has no file t_condensed_x")


@pytest.mark.parametrize("file", ["", "..", "a/b", "../x", "a\\b"])
def test_only_names_of_files_are_fetched(tmp_path, file):
    with pytest.raises(InputError, match="is not the name of a file"):
        fetch_table(tmp_path, file, sha256="0" * 64, cache=tmp_path)


def test_a_file_is_downloaded_once(tmp_path, server):
    address, folder, requests = server
    (folder / "t_condensed_x").write_bytes(b"content")
    digest, cache = sha256(b"content"), tmp_path / "deep" / "cache"
    for _ in range(2):
        path = fetch_table(address, "t_condensed_x", sha256=digest, cache=cache)
        assert path == cache / "t_condensed_x"
        assert path.read_bytes() == b"content"
    assert requests == ["/t_condensed_x"]
    assert [p.name for p in cache.iterdir()] == ["t_condensed_x"]


def test_a_damaged_copy_is_replaced(tmp_path, server):
    address, folder, _ = server
    (folder / "t_condensed_x").write_bytes(b"content")
    (tmp_path / "t_condensed_x").write_bytes(b"damaged")
    path = fetch_table(address, "t_condensed_x", sha256=sha256(b"content"), cache=tmp_path)
    assert path.read_bytes() == b"content"


def test_another_checksum_leaves_nothing_in_the_cache(tmp_path, server):
    address, folder, _ = server
    (folder / "t_condensed_x").write_bytes(b"content")
    message = fetch_refusal(address, tmp_path / "cache")
    assert message.startswith(f"{address}t_condensed_x: SHA-256 is {sha256(b'content')}")
    assert "0" * 64 in message


def test_a_file_that_the_server_does_not_have(tmp_path, server):
    message = fetch_refusal(server[0], tmp_path / "cache")
    assert message.startswith(f"{server[0]}t_condensed_x: cannot be downloaded (HTTP Error 404")


def test_a_server_that_does_not_answer(tmp_path, server):
    # Bound to nothing: the discard port of loopback.
    message = fetch_refusal("http://127.0.0.1:9", tmp_path / "cache")
    assert message.startswith("http://127.0.0.1:9/t_condensed_x: cannot be downloaded")
    assert "refused" in message


def test_a_long_answer_is_cut_off(tmp_path, server):
    address, folder, _ = server
    (folder / "t_condensed_x").write_bytes(bytes(published.MOST_BYTES + 1))
    assert "more than 1,048,576 bytes" in fetch_refusal(address, tmp_path / "cache")


def test_a_slow_server_times_out(tmp_path, server, monkeypatch):
    monkeypatch.setattr(published, "TIMEOUT", 0.1)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "do_GET", lambda _: threading.Event().wait(0.5))
    assert "timed out" in fetch_refusal(server[0], tmp_path / "cache")


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/x", "file:///tmp", "http://[bad/x"])
def test_other_addresses_are_refused(tmp_path, location):
    assert fetch_refusal(location, tmp_path / "cache").startswith(f"{location}/t_condensed_x: ")


# The released files


needs_released = pytest.mark.skipif(
    not RELEASED.is_dir(), reason="the authors' tables are not in ../shared/published"
)


def released(model: str) -> dict[str, torch.Tensor]:
    tables = {}
    for quantity in QUANTITIES:
        path = RELEASED / table_file(model, quantity)
        tables[quantity] = read_table(path, sha256=sha256(path.read_bytes()))
    return tables


@needs_released
@pytest.mark.parametrize("model", MODELS)
def test_released_tables_are_what_the_names_say(model):
    """Sign, scale and identity: self-repair is the sum of its parts (largest error seen 6.3e-7)."""
    tables = released(model)
    assert {tuple(table.shape) for table in tables.values()} == {MODELS[model]}
    value = {QUANTITIES[name]: table.double() for name, table in tables.items()}
    self_repair = value["delta_logit"] - (value["ablated_direct_effect"] - value["direct_effect"])
    parts = value["from_heads"] + value["from_mlps"] + value["from_norm"]
    assert float((self_repair - parts).abs().max()) < 1e-6
    for name in value:
        if name.endswith("_share_clipped"):
            assert 0 <= float(value[name].min()) < float(value[name].max()) < 1
    assert float(value["direct_effect"].min()) > 0
    assert float(value["delta_logit"].mean()) < 0


@needs_released
@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_downstream_of_a_last_layer_head(model):
    """Parallel attention (Pythia): not even the MLP of its layer. Sequential (GPT-2): that MLP."""
    tables = released(model)
    last = tables["self_repair_from_layers"][-1]
    assert torch.equal(last, torch.zeros_like(last)) == model.startswith("pythia")
    assert not tables["self_repair_from_heads"][-1].any()


def test_file_names():
    assert table_file("gpt2-small", "logit_diff") == "gpt2-small_condensed_logit_diff"
    with pytest.raises(InputError, match="'self_repair' is no released quantity; take one of"):
        table_file("gpt2-small", "self_repair")


# Comparison


def toy_tables(layers: int = 4, heads: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    draw = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(draw.uniform(0, 1, (layers, heads)).astype(np.float32))
        for name in QUANTITIES
    }


def study(
    tables: dict[str, torch.Tensor], *, scale: float = 1, shift: float = 0, noise: float = 0
) -> pl.DataFrame:
    """A heads table that measured scale * published + shift + noise, each within 0.1."""
    draw = np.random.default_rng(1)
    values = {QUANTITIES[name]: table.double().numpy() for name, table in tables.items()}
    values["self_repair"] = values["delta_logit"] - (
        values["ablated_direct_effect"] - values["direct_effect"]
    )
    layers, heads = next(iter(values.values())).shape
    layer, head = np.divmod(np.arange(layers * heads), heads)
    columns: dict[str, object] = {"layer": layer, "head": head}
    for name, value in values.items():
        seen = (scale * value + shift + noise * draw.normal(size=value.shape)).ravel()
        columns[name] = seen
        if not name.endswith("_clipped"):
            columns |= {f"{name}_low": seen - 0.1, f"{name}_high": seen + 0.1}
    top = pl.DataFrame(columns).select(
        pl.lit("toy").alias("model"),
        pl.lit("resample").alias("ablation"),
        pl.lit("top").alias("selection"),
        pl.all(),
    )
    # Rows that are not the authors' must not enter, and order must not matter.
    other = top.with_columns(ablation=pl.lit("mean"), direct_effect=pl.lit(99.0))
    every = top.with_columns(selection=pl.lit("all"), direct_effect=pl.lit(99.0))
    return pl.concat([other, every, top]).sample(fraction=1, shuffle=True, seed=0)


def agreement(tables, heads, **options) -> tuple[pl.DataFrame, dict[str, dict]]:
    comparison, summary = compare(heads, tables, **{"seed": 3, "resamples": 200} | options)
    return comparison, {row["quantity"]: row for row in summary.to_dicts()}


def test_each_head_meets_its_published_value():
    tables = toy_tables()
    comparison, summary = agreement(tables, study(tables, scale=2, shift=-0.25))
    names = [*QUANTITIES.values(), "self_repair"]
    assert list(summary) == names
    assert comparison.height == len(names) * 20
    row = comparison.row(
        by_predicate=(pl.col("quantity") == "from_mlps")
        & (pl.col("layer") == 2)
        & (pl.col("head") == 3),
        named=True,
    )
    value = float(tables["self_repair_from_layers"][2, 3])
    assert row["model"] == "toy"
    assert row["published"] == value
    assert row["measured"] == pytest.approx(2 * value - 0.25)
    assert row["measured_low"] == pytest.approx(2 * value - 0.35)
    assert row["measured_high"] == pytest.approx(2 * value - 0.15)


def test_self_repair_is_derived_and_only_from_all_three():
    tables = toy_tables()
    comparison, _ = agreement(tables, study(tables))
    derived = comparison.filter(quantity="self_repair")["published"].to_numpy().reshape(4, 5)
    three = [
        tables[name].double().numpy()
        for name in ("logit_diff", "ablated_direct_effects", "direct_effects")
    ]
    np.testing.assert_array_equal(derived, three[0] - (three[1] - three[2]))
    del tables["logit_diff"]
    comparison, _ = agreement(tables, study(toy_tables()))
    assert "self_repair" not in comparison["quantity"]


def test_a_line_gives_its_slope_and_intercept():
    tables = toy_tables()
    _, summary = agreement(tables, study(tables, scale=2, shift=-0.25))
    row = summary["from_norm"]
    for key in ("correlation", "correlation_low", "correlation_high"):
        assert row[key] == pytest.approx(1)
    for key in ("slope", "slope_low", "slope_high"):
        assert row[key] == pytest.approx(2)
    assert row["intercept"] == pytest.approx(-0.25)
    value = tables["self_repair_from_LN"].double().numpy()
    assert row["mean_difference"] == pytest.approx((value - 0.25).mean())
    assert row["largest_difference"] == pytest.approx(abs(value - 0.25).max())
    place = np.unravel_index(abs(value - 0.25).argmax(), value.shape)
    assert (row["largest_layer"], row["largest_head"]) == place
    assert row["n_heads"] == 20
    assert row["n_dropped"] == 0
    assert row["within_interval"] == pytest.approx((abs(value - 0.25) <= 0.1).mean())


def test_clipped_shares_have_no_interval():
    tables = toy_tables()
    comparison, summary = agreement(tables, study(tables))
    shares = comparison.filter(pl.col("quantity").str.ends_with("_share_clipped"))
    assert shares.height == 60
    assert shares["measured_low"].null_count() == shares["measured_high"].null_count() == 60
    assert summary["from_heads_share_clipped"]["within_interval"] is None
    assert summary["from_heads"]["within_interval"] == 1


def test_numbers_agree_with_numpy_and_the_interval_with_a_plain_bootstrap():
    tables = toy_tables(12, 12)
    comparison, summary = agreement(tables, study(tables, noise=0.3), resamples=4000)
    part, row = comparison.filter(quantity="direct_effect"), summary["direct_effect"]
    x, y = part["published"].to_numpy(), part["measured"].to_numpy()
    slope, intercept = np.polyfit(x, y, 1)
    assert row["slope"] == pytest.approx(slope)
    assert row["intercept"] == pytest.approx(intercept)
    assert row["correlation"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    draw = np.random.default_rng(0)
    drawn = [draw.integers(0, len(x), len(x)) for _ in range(4000)]
    fits = np.array([(np.corrcoef(x[i], y[i])[0, 1], np.polyfit(x[i], y[i], 1)[0]) for i in drawn])
    ends = np.quantile(fits, [0.025, 0.975], axis=0)
    # Two bootstraps of 4000 differ by their own noise: at most 0.005 and 0.008 over 5 seeds.
    for index, name in enumerate(("correlation", "slope")):
        for end, value in zip(("low", "high"), ends[:, index], strict=True):
            assert row[f"{name}_{end}"] == pytest.approx(value, abs=0.02)


def test_the_seed_decides_the_interval():
    tables = toy_tables()
    heads = study(tables, noise=0.2)
    first, again = (agreement(tables, heads, seed=5)[1]["from_heads"] for _ in range(2))
    other = agreement(tables, heads, seed=6)[1]["from_heads"]
    assert first == again
    assert first["slope_low"] != other["slope_low"]
    assert first["slope"] == other["slope"]


def test_missing_values_are_dropped_in_pairs_and_counted():
    tables = toy_tables()
    heads = study(tables, scale=2)
    tables["direct_effects"][1, 2] = float("nan")
    where = (pl.col("layer") == 3) & (pl.col("head") == 0)
    missing = pl.when(where).then(float("nan")).otherwise(pl.col("direct_effect"))
    null = pl.when(where).then(None).otherwise(pl.col("from_heads"))
    heads = heads.with_columns(direct_effect=missing, from_heads=null)
    comparison, summary = agreement(tables, heads)
    assert comparison.filter(quantity="direct_effect").height == 20
    assert (summary["direct_effect"]["n_heads"], summary["direct_effect"]["n_dropped"]) == (18, 2)
    assert summary["direct_effect"]["slope"] == pytest.approx(2)
    assert summary["from_heads"]["n_dropped"] == 1
    assert summary["self_repair"]["n_dropped"] == 1


def test_what_is_undefined_is_nan():
    tables = toy_tables()
    heads = study(tables)
    tables["direct_effects"][:] = float("nan")
    tables["self_repair_from_heads"][:] = 0.3
    _, summary = agreement(tables, heads)
    nothing, constant = summary["direct_effect"], summary["from_heads"]
    assert nothing["n_heads"] == 0
    assert nothing["largest_layer"] is None
    assert nothing["within_interval"] is None
    for key in ("correlation", "slope", "slope_low", "intercept"):
        assert np.isnan(nothing[key])
        assert np.isnan(constant[key])
    assert np.isnan(nothing["mean_difference"])
    assert np.isfinite(constant["mean_difference"])


def test_tables_of_another_model_are_refused():
    message = r"toy: published direct_effects has shape 4 x 5 \(layers x heads\), the study 6 x 8;"
    with pytest.raises(InputError, match=message):
        compare(study(toy_tables(6, 8)), toy_tables(), seed=0, resamples=10)


@pytest.mark.usefixtures("shapes_unchecked")
def test_a_list_of_numbers_is_no_table():
    tables = {"direct_effects": torch.ones(20)}
    with pytest.raises(InputError, match="has shape 20 "):
        compare(study(toy_tables()), tables, seed=0, resamples=10)


def test_input_without_the_right_rows_is_refused():
    tables, heads = toy_tables(), study(toy_tables())
    cases = [
        (heads.drop("from_norm"), tables, "no column from_norm"),
        (heads.filter(ablation="mean"), tables, "resample ablation .* has none"),
        (
            pl.concat([heads, heads.with_columns(model=pl.lit("other"))]),
            tables,
            "of one model, the heads table has (toy, other|other, toy)",
        ),
        (pl.concat([heads, heads]), tables, "toy: the heads table has 40 rows for 4 layers x 5"),
        (heads, {}, "nothing to compare"),
        (heads, {"from_norm": tables["logit_diff"]}, "from_norm to compare; take tables of"),
    ]
    for table, published_tables, message in cases:
        with pytest.raises(InputError, match=message) as error:
            compare(table, published_tables, seed=0, resamples=10)
        assert len(str(error.value).splitlines()) == 1


# The figure


def drawn(comparison: pl.DataFrame) -> tuple[dict, list[dict]]:
    spec = published_against_measured(comparison).to_dict()
    return spec, [panel for row in spec["vconcat"] for panel in row["hconcat"]]


def points_of(panel: dict) -> list[dict]:
    marks = [layer for layer in panel["layer"] if layer["mark"].get("type") == "point"]
    return [row for mark in marks for row in mark["data"]["values"]]


def test_a_panel_per_quantity_with_every_head():
    tables = toy_tables()
    comparison, summary = agreement(tables, study(tables, noise=0.1))
    spec, panels = drawn(comparison)
    titles = [title for row in PANELS for title in row.values()]
    assert [panel["title"]["text"] for panel in panels] == titles
    assert all(len(points_of(panel)) == 20 for panel in panels)
    assert spec["title"]["subtitle"][0].startswith("toy, resample ablation")
    r = summary["direct_effect"]["correlation"]
    assert panels[0]["title"]["subtitle"] == f"r = {r:.2f}, 20 heads"
    dots = panels[0]["layer"][-1]["encoding"]
    assert dots["x"]["scale"]["domain"] == dots["y"]["scale"]["domain"]
    assert dots["x"]["title"] == "Published (logits)"
    assert dots["color"]["field"] == "layer"
    assert panels[-1]["layer"][-1]["encoding"]["y"]["title"] == "Measured (share)"
    json.dumps(spec, allow_nan=False)


def test_the_line_is_the_identity_and_bars_are_our_intervals():
    tables = toy_tables()
    comparison, _ = agreement(tables, study(tables))
    _, panels = drawn(comparison)
    kinds = [[layer["mark"]["type"] for layer in panel["layer"]] for panel in panels]
    assert kinds[0] == ["rule", "line", "rule", "point"]
    assert kinds[-1] == ["rule", "line", "point"]  # no interval
    for panel in panels:
        line = panel["layer"][1]["data"]["values"]
        assert all(end["x"] == end["y"] for end in line)


def test_far_and_missing_heads_are_counted():
    tables = toy_tables(12, 12)
    heads = study(tables)
    tables["direct_effects"][3, 4] = 1000
    tables["self_repair_from_heads"][0, 1] = float("nan")
    comparison, _ = agreement(tables, heads)
    names = ("direct_effect", "from_heads")
    spec, panels = drawn(comparison.filter(pl.col("quantity").is_in(names)))
    notes = spec["title"]["subtitle"]
    assert "Beyond the axes, triangles at the edge: 1 of 287 points" in notes
    assert "Rows of the table without a finite value, not drawn: 1" in notes
    assert [len(points_of(panel)) for panel in panels] == [144, 143]
    far = [row for row in points_of(panels[0]) if row["edge"] != "within the axes"]
    assert [(row["layer"], row["head"], row["published"]) for row in far] == [(3, 4, 1000)]


def test_a_constant_has_no_correlation():
    tables = toy_tables()
    heads = study(tables)
    tables["direct_effects"][:] = 0.5
    comparison, _ = agreement(tables, heads)
    _, panels = drawn(comparison)
    assert panels[0]["title"]["subtitle"] == "r undefined, 20 heads"


def test_the_figure_refuses_what_it_cannot_draw():
    comparison, _ = agreement(toy_tables(), study(toy_tables()))
    two = pl.concat([comparison, comparison.with_columns(model=pl.lit("b"))])
    cases = [
        (two, "takes one model, got toy and b"),
        (comparison.drop("measured_low"), "no column measured_low"),
        (comparison.with_columns(measured=pl.lit(float("nan"))), "no rows with finite"),
        (comparison.with_columns(quantity=pl.lit("x")), "published: no panel for x"),
    ]
    for table, message in cases:
        for function in (published_against_measured, published_caption):
            with pytest.raises(InputError, match=message):
                function(table)


def test_the_caption_says_what_is_drawn():
    comparison, _ = agreement(toy_tables(), study(toy_tables()))
    text = published_caption(comparison)
    assert "toy (20 per panel)" in text
    assert "bars are 95 % bootstrap intervals" in text
    shares = comparison.filter(pl.col("quantity").str.ends_with("_clipped"))
    assert "bars" not in published_caption(shares)


def test_drawing_needs_no_torch():
    code = "import sys, selfrepair.published_figure; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
