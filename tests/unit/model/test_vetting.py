"""Models from outside: what is wrong with them is told in one line, quickly, in little memory, and nothing of
them is run."""

import json
import re
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from gguf import GGMLQuantizationType
from safetensors.torch import load_file, save_file

import gguf_files
import selfrepair
from selfrepair import InputError
from selfrepair.model.vetting import vet_gguf, vet_settings, vet_weights, vetted_location

# What refusing may take. Measured: 0.4 s and 30 MB, most of it what transformers imports on first use.
SECONDS, MEGABYTES = 60, 200
WEIGHT = "model.layers.2.self_attn.q_proj.weight"
FUZZED = 60


@pytest.fixture
def folder(tiny_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    return copytree(tiny_folder("llama"), tmp_path / "model")


@pytest.fixture
def ran(folder: Path) -> Path:
    """Code that a model brings along; running it leaves this file."""
    ran = folder.with_name("ran")
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Any: pass\n")
    return ran


def vet(folder: Path, **options: Any) -> list[str]:
    vet_settings(folder, name="m")
    return vet_weights(folder, name="m", **options)


def refusal(call: Callable[[], object]) -> str:
    """The one line that a call is refused with, in bounded time and memory."""
    start, process = time.monotonic(), psutil.Process()
    before = process.memory_info().rss
    with pytest.raises(InputError) as caught:
        call()
    assert time.monotonic() - start < SECONDS
    assert process.memory_info().rss - before < MEGABYTES << 20
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


def told(call: Callable[[], object]) -> str | None:
    """The one line that a call is refused with, None if it is not."""
    try:
        call()
    except InputError as error:
        message = str(error)
    else:
        return None
    assert "\n" not in message
    return message


# --- safetensors --------------------------------------------------------------------------------


def rewrite(folder: Path, change: Callable[[dict, bytes], None]) -> None:
    """The weights with another header, whether or not it is true."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    change(header, body)
    written = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(written)) + written + body)


def lie(**entry: Any) -> Callable[[dict, bytes], None]:
    return lambda header, _: header[WEIGHT].update(entry)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lie(shape=[2**40, 2**40]), "cannot be read as safetensors"),
        (lie(shape=[2**62]), "cannot be read as safetensors"),
        (lie(data_offsets=[0, 2**60]), "cannot be read as safetensors"),
        (lie(data_offsets=[-8, 8]), "cannot be read as safetensors"),
        (lie(data_offsets=[0, 4 * 32 * 24]), "cannot be read as safetensors"),  # another one's
        (lie(dtype="F7"), "cannot be read as safetensors"),
        (lambda header, _: header.pop(WEIGHT), "cannot be read as safetensors"),
    ],
)
def test_a_header_that_lies_is_refused(folder: Path, change: Any, said: str) -> None:
    rewrite(folder, change)
    assert said in refusal(lambda: vet(folder))


def test_a_million_tensors_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    end = len(content) - 8 - length
    entry = f'{{"dtype":"F32","shape":[0],"data_offsets":[{end},{end}]}}'
    more = ",".join(f'"t{i}":{entry}' for i in range(10**6)).encode()
    header = content[8 : 8 + length].rstrip().removesuffix(b"}") + b"," + more + b"}"
    path.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
    assert "more than any model needs" in refusal(lambda: vet(folder))


@pytest.mark.parametrize("length", [0, 1, 2**25, 2**40, 2**63, 2**64 - 1])
def test_a_header_of_another_length_is_refused(folder: Path, length: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    assert "model.safetensors" in refusal(lambda: vet(folder))


def test_fuzzed_safetensors_are_refused_or_whole(folder: Path) -> None:
    """A changed byte of the header is refused in one line, or changed nothing that is loaded."""
    path = folder / "model.safetensors"
    content, rng = path.read_bytes(), np.random.default_rng(0)
    length = struct.unpack("<Q", content[:8])[0]
    expected = load_file(path)
    for _ in range(FUZZED):
        fuzzed = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            fuzzed[rng.integers(0, 8 + length)] = rng.integers(0, 256)
        path.write_bytes(fuzzed[: rng.integers(1, len(fuzzed))] if rng.random() < 0.2 else fuzzed)
        if told(lambda: vet(folder)) is None:
            assert {k: v.shape for k, v in load_file(path).items()} == {
                k: v.shape for k, v in expected.items()
            }


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("missing", [WEIGHT, "lm_head.weight", "model.norm.weight"])
def test_weights_that_lack_a_tensor_are_refused(folder: Path, missing: str) -> None:
    """transformers would fill it with random numbers, and everything would add up."""
    change_weights(folder, lambda tensors: tensors.pop(missing))
    assert f"lack 1 tensors ({missing})" in refusal(lambda: vet(folder))
    assert missing in refusal(lambda: selfrepair.load_model(folder, device="cpu"))


def test_a_tensor_of_another_shape_is_refused(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({WEIGHT: torch.zeros(3, 5)}))
    assert f"{WEIGHT} of shape [3, 5], its config.json says [32, 24]" in refusal(
        lambda: vet(folder)
    )


def test_integers_that_nothing_explains_are_refused(folder: Path) -> None:
    change_weights(folder, lambda t: t.update({WEIGHT: torch.ones(32, 24, dtype=torch.int8)}))
    assert "in I8, and config.json states no quantization_config" in refusal(lambda: vet(folder))


def test_tensors_that_nothing_uses_are_told(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({"stray": torch.zeros(1)}))
    assert vet(folder) == ["stray"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_single_number_that_is_none_is_found(
    folder: Path, value: float, dtype: torch.dtype
) -> None:
    """Attention on a CPU turns NaN into zeros: the model would be measured, another one than meant."""

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        for name in tensors:
            tensors[name] = tensors[name].to(dtype)
        tensors[WEIGHT].view(-1)[5] = value

    change_weights(folder, spoil)
    assert f"NaN or infinity in {WEIGHT}" in refusal(lambda: vet(folder))
    assert WEIGHT in refusal(lambda: selfrepair.load_model(folder, device="cpu"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_largest_numbers_are_numbers(folder: Path, dtype: torch.dtype) -> None:
    def stretch(tensors: dict[str, torch.Tensor]) -> None:
        for name in tensors:
            tensors[name] = tensors[name].to(dtype)
        tensors[WEIGHT].view(-1)[:3] = torch.tensor(
            [torch.finfo(dtype).max, torch.finfo(dtype).min, torch.finfo(dtype).tiny], dtype=dtype
        )

    change_weights(folder, stretch)
    assert vet(folder) == []


# --- pickles ------------------------------------------------------------------------------------


class Evil:
    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> tuple:
        return open, (str(self.ran), "w")


def pickled(folder: Path, content: object) -> None:
    torch.save(content, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_pickled_weights_need_a_word(folder: Path) -> None:
    pickled(folder, load_file(folder / "model.safetensors"))
    assert "allow it with `pickle: true`" in refusal(lambda: vet(folder))
    assert "pickle" in refusal(lambda: selfrepair.load_model(folder, device="cpu"))
    assert vet(folder, pickle=True) == []
    assert selfrepair.load_model(folder, device="cpu", pickle=True).n_layers == 3


def test_a_pickle_that_is_allowed_runs_nothing(folder: Path, ran: Path) -> None:
    pickled(folder, {WEIGHT: Evil(ran)})
    assert "its weights are not those" in refusal(lambda: vet(folder, pickle=True))
    assert not ran.exists()


# --- an index -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["../outside.safetensors", "/etc/hostname", "", "..", 7, None])
def test_an_index_names_files_beside_it(folder: Path, place: object) -> None:
    path = (folder / "model.safetensors").rename(folder.with_name("outside.safetensors"))
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(path), place)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "no file beside it" in refusal(lambda: vet(folder))


# --- config and tokenizer -----------------------------------------------------------------------


def set_config(folder: Path, file: str = "config.json", **keys: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("config.json", {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Any"}}),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Any", None]}},
        ),
    ],
)
def test_code_of_a_model_is_never_run(folder: Path, ran: Path, file: str, keys: dict) -> None:
    set_config(folder, file, **keys)
    assert "code of its own (auto_map), which is never run" in refusal(lambda: vet(folder))
    refusal(lambda: selfrepair.load_model(folder, device="cpu"))
    assert not ran.exists()


def test_code_that_transformers_does_not_need_is_ignored(folder: Path, ran: Path) -> None:
    code = {"AutoConfig": "evil.Any", "AutoModelForCausalLM": "evil.Any"}
    set_config(folder, auto_map=code)
    assert vet(folder) == []
    assert selfrepair.load_model(folder, device="cpu").architecture == "LlamaForCausalLM"
    assert not ran.exists()


@pytest.mark.parametrize(
    "keys",
    [
        {"num_hidden_layers": 2**40},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 0},
        {"num_attention_heads": 0},
        {"num_key_value_heads": 0},
        {"hidden_size": 2**40},
        {"hidden_size": "a"},
        {"vocab_size": 2**50},
        {"vocab_size": 10},
        {"num_hidden_layers": 1e308},
        {"dtype": "os.system"},
        {"attn_implementation": "someone/kernel"},
        {"quantization_config": {"quant_method": "unheard of"}},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"quantization_config": 7},
        {"model_type": "../../etc"},
    ],
    ids=str,
)
def test_a_config_of_no_model_is_refused(folder: Path, keys: dict) -> None:
    set_config(folder, **keys)
    refusal(lambda: vet(folder))
    refusal(lambda: selfrepair.load_model(folder, device="cpu"))


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "{}", "7", "", "\0"])
def test_a_config_that_is_no_config_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    assert "its config.json cannot be read" in refusal(lambda: vet(folder))


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "{", "{}", "7", "\0", "[]"])
def test_a_broken_tokenizer_is_refused(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    assert "no tokenizer found" in refusal(lambda: selfrepair.load_model(folder, device="cpu"))


def test_a_fuzzed_tokenizer_is_refused_or_loaded(folder: Path) -> None:
    from selfrepair.model.tokenizer import load_tokenizer

    path, rng = folder / "tokenizer.json", np.random.default_rng(0)
    content = path.read_bytes()
    for _ in range(FUZZED):
        fuzzed = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            fuzzed[rng.integers(0, len(fuzzed))] = rng.integers(32, 127)
        path.write_bytes(fuzzed)
        told(lambda: load_tokenizer(str(folder)))


# --- GGUF ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    quantised = {"blk.0.ffn_up.weight": GGMLQuantizationType.Q8_0}
    gguf_files.write_gguf(path, gguf_files.tiny_model("llama"), quantised=quantised)
    return path.read_bytes()


def put(content: bytes, at: int, kind: str, value: int) -> bytes:
    new = struct.pack(kind, value)
    return content[:at] + new + content[at + len(new) :]


# Where something stands in the file: after a name, so many bytes on.
UP = b"blk.0.ffn_up.weight"


@pytest.mark.parametrize(
    ("after", "skip", "kind", "value", "said"),
    [
        (b"GGUF", 0, "<I", 0, "version 0"),
        (b"GGUF", 4, "<Q", 10**6, "claims 1,000,000 tensors"),
        (b"GGUF", 4, "<Q", 2**63, "claims 9,223,372,036,854,775,808 tensors"),
        (b"GGUF", 12, "<Q", 2**63, "9,223,372,036,854,775,808 entries"),
        (UP, 0, "<I", 2**31, "cannot be read"),
        (UP, 4, "<Q", 2**40, "cannot be read"),
        (UP, 4, "<Q", 0, "without values"),
        (UP, 20, "<I", 255, "cannot be read"),
        (UP, 20, "<I", 0, "overlap"),
        (UP, 24, "<Q", 2**40, "cannot be read"),
        (UP, 24, "<Q", 2**64 - 32, "overlap"),
        (UP, 24, "<Q", 0, "overlap"),
        (b"tokenizer.ggml.tokens", 8, "<Q", 2**60, "cannot be read"),
        (b"tokenizer.ggml.tokens", 4, "<I", 9, "cannot be read"),
        (b"llama.block_count", 4, "<I", 2**31, "claims 2,147,483,648 layers"),
        (b"llama.embedding_length", 4, "<I", 0, "llama.embedding_length is 0"),
        (b"llama.attention.head_count", 4, "<I", 0, "llama.attention.head_count is 0"),
    ],
)
def test_a_gguf_header_that_lies_is_refused(
    gguf: bytes, tmp_path: Path, after: bytes, skip: int, kind: str, value: int, said: str
) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(put(gguf, gguf.index(after) + len(after) + skip, kind, value))
    assert said in refusal(lambda: vet_gguf(path, name="m"))
    assert said in refusal(lambda: vetted_location({"gguf": str(path)}, {}, tmp_path, key="m"))
    assert not list(tmp_path.glob("models/*/"))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_gguf_file_that_ends_early_is_refused(gguf: bytes, tmp_path: Path, share: float) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf[: int(share * len(gguf))])
    assert "cannot be read as a GGUF file" in refusal(lambda: vet_gguf(path, name="m"))


def test_nan_in_a_gguf_file_is_found_once_it_is_converted(tmp_path: Path) -> None:
    model = gguf_files.tiny_model("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    path = gguf_files.write_gguf(tmp_path / "x.gguf", model)
    folder = Path(vetted_location({"gguf": str(path)}, {}, tmp_path, key="m"))
    assert "NaN or infinity in model.layers.0.mlp.up_proj" in refusal(lambda: vet(folder))


@pytest.mark.parametrize(
    "seeds", [range(15), pytest.param(range(15, 300), marks=pytest.mark.hostile)]
)
def test_a_fuzzed_gguf_file_is_refused_or_converted(
    gguf: bytes, tmp_path: Path, seeds: range
) -> None:
    """The header, which ends before the first zeros of padding; 15 files here, more in `make test-hostile`."""

    def convert(path: Path) -> object:
        return vetted_location({"gguf": str(path)}, {}, tmp_path, key="m")

    last = re.search(rb"blk\.1\.\w+\.weight.{32}(?!.*blk\.)", gguf, re.DOTALL)
    assert last
    for seed in seeds:
        rng, fuzzed = np.random.default_rng(seed), bytearray(gguf)
        for _ in range(rng.integers(1, 4)):
            fuzzed[rng.integers(0, last.end())] = rng.integers(0, 256)
        path = tmp_path / f"{seed}.gguf"
        path.write_bytes(fuzzed)
        told(partial(convert, path))
