"""Released tables come back bit by bit; whatever else a file says is refused and never run."""

from __future__ import annotations

import contextlib
import copyreg
import hashlib
import io
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from selfrepair.errors import InputError
from selfrepair.published import unpickle as module
from selfrepair.published.fetch import QUANTITIES, table_file
from selfrepair.published.unpickle import read_table

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
    monkeypatch.setattr(module, "_TableUnpickler", lambda _: pytest.fail("interpreted"))
    path, digest = write(tmp_path, b"anything")
    with pytest.raises(InputError, match=f"SHA-256 is {digest}, expected {'0' * 64}") as error:
        read_table(path, sha256="0" * 64)
    assert str(path) in str(error.value)


def test_a_large_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "large"
    with path.open("wb") as stream:
        stream.truncate(module.MOST_BYTES + 1)
    monkeypatch.setattr(module, "check_hash", lambda *_: pytest.fail("hashed"))
    with pytest.raises(InputError, match="more than 1,048,576 bytes, no per-head table"):
        read_table(path, sha256="0" * 64)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none: cannot be read \(No such file"):
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
        (torch.ones(4), "holds a Tensor that is no float32"),
        (torch.ones(2, 3, 4), "holds a Tensor that is no float32"),
        (torch.ones(()), "holds a Tensor that is no float32"),
        (torch.ones(0, 3), "has no 0 numbers"),
        (torch.ones(1, 1).expand(10_000, 10_000), "has no 100000000 numbers"),
        (torch.ones(3, 4, dtype=torch.float64), "but got type Double"),
        (torch.ones(3, 4, dtype=torch.int64), "but got type Long"),
        (torch.nn.Parameter(torch.ones(3, 4)), r"torch\._utils\._rebuild_parameter"),
        (torch.ones(3, 4).to_sparse(), r"torch\._utils\._rebuild_sparse_tensor"),
        (np.ones((3, 4), dtype=np.float32), r"numpy\..*_reconstruct"),
        ((1, 2), "holds a tuple"),
        ("words", "holds a str"),
        ([torch.ones(3, 4)], "holds a list"),
    ],
)
def test_what_is_no_float32_matrix_is_refused(tmp_path, value, reason):
    assert re.search(reason, refusal(tmp_path, pickled(value)))


@pytest.mark.parametrize("view", [lambda t: t.T, lambda t: t[:3], lambda t: t[1:, ::2]])
def test_a_part_of_a_matrix_comes_back_as_it_was(tmp_path, view):
    table = view(torch.arange(36.0).reshape(9, 4))
    path, digest = write(tmp_path, pickled(table))
    assert torch.equal(read_table(path, sha256=digest), table)


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
    }  # fmt: skip
    return contents[kind]()


def zipped(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


NO_NUMBERS = "torch's safe loader refuses its numbers"
HOSTILE = {
    "os.system by GLOBAL": "wants to call 'os.system'",
    "posix.system, protocol 2": "wants to call 'posix.system'",
    "posix.system by STACK_GLOBAL": "wants to call 'posix.system'",
    "os.system by INST": "wants to call 'os.system'",
    "builtins.eval": "wants to call 'builtins.eval'",
    "builtins.exec": "wants to call 'builtins.exec'",
    "torch.load": "wants to call 'torch.serialization.load'",
    "torch.serialization.load by name": "wants to call 'torch.serialization.os.system'",
    "through a function's globals": "wants to call 'torch._utils._rebuild_tensor_v2.__globals__'",
    "nested": NO_NUMBERS,
    "nested, protocol 4": NO_NUMBERS,
    "nested without the format": NO_NUMBERS,
    "nested, zip": NO_NUMBERS,
    "twice nested": NO_NUMBERS,
    "as the hooks of a table": "wants to call 'posix.system'",
}
# These would do nothing even to an unpickler that trusts everything: it fails or stops before.
TOOTHLESS = {"nested, protocol 4", "through a function's globals"}


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


def test_no_registered_extension_is_resolved(tmp_path):
    """An instruction that names what to call by a number."""
    target = tmp_path / "created"
    copyreg.add_extension("os", "system", 240)
    try:
        content = b"\x80\x02\x82\xf0X" + len(shell(target)).to_bytes(4, "little")
        content += shell(target).encode() + b"\x85R."
        assert "it wants to call 'os.system'" in refusal(tmp_path, content)
        assert not target.exists()
        pickle.loads(content)
        assert target.exists()
    finally:
        copyreg.remove_extension("os", "system", 240)


@pytest.mark.parametrize(
    "name",
    [
        "torch.storage _load_from_bytes",
        "torch._utils _rebuild_tensor_v2",
        "collections OrderedDict",
    ],
)
@pytest.mark.parametrize("attribute", ["__defaults__", "__kwdefaults__", "__code__", "__call__"])
def test_what_answers_a_table_cannot_be_changed(tmp_path, name, attribute):
    """BUILD sets attributes of whatever a file has named."""
    place, function = name.split()
    state = b"N}" + short(attribute) + short("x") + b"\x85s\x86b."
    message = refusal(tmp_path, b"\x80\x04" + short(place) + short(function) + b"\x93" + state)
    assert "is not a table of numbers" in message
    test_a_table_comes_back_bit_by_bit(tmp_path, (2, 3))


def test_numbers_are_never_made_up(tmp_path):
    """Neither by the shape of a matrix nor by the state that a file gives to a tensor."""
    numbers = in_storage(torch.FloatStorage(4))
    large = Call(torch._utils._rebuild_tensor_v2, Call(torch.storage._load_from_bytes, numbers),
                 0, (100, 100), (100, 1), False, OrderedDict())  # fmt: skip
    assert "out of bounds" in refusal(tmp_path, pickled(large))
    content = pickled(torch.ones(2, 2))[:-1]
    state = pickled((torch.ones(2), 0, (100, 100), (100, 1)))
    grown = content + state[11:-1] + b"b."  # without the head of the second pickle
    assert "is not a table of numbers" in refusal(tmp_path, grown)


def test_what_stands_after_a_table_is_not_looked_at(tmp_path):
    target = tmp_path / "created"
    path, digest = write(
        tmp_path, pickled(torch.ones(2, 2)) + pickled(Call(os.system, shell(target)))
    )
    assert torch.equal(read_table(path, sha256=digest), torch.ones(2, 2))
    assert not target.exists()


def test_names_in_a_file_cannot_break_the_line_or_flood_it(tmp_path):
    name = "a\nb\x1b[31m" + "x" * 240
    content = b"\x80\x04" + short("os") + short(name[:200]) + b"\x93."
    message = refusal(tmp_path, content)
    assert r"wants to call 'os.a\\nb\\x1b[31mx" in message
    assert "\x1b" not in message
    assert len(message) < len(str(tmp_path)) + 400


@pytest.mark.parametrize("claimed", [5, 2**31 - 1])
def test_numbers_that_are_claimed_but_not_there(tmp_path, claimed):
    """Neither read from beyond the file nor waited for."""
    honest, header = in_storage(torch.FloatStorage(4)), b"cpuq\x03"
    assert honest.count(header + b"K\x04N") == 1
    number = b"J" + claimed.to_bytes(4, "little")
    inner = honest.replace(header + b"K\x04N", header + number + b"N")
    assert "wrong byte size" in refusal(tmp_path, bare_storage(inner))


def test_bare_numbers_are_no_table(tmp_path):
    assert "no float32 [layer, head]" in refusal(
        tmp_path, bare_storage(in_storage(torch.FloatStorage(4)))
    )


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
