"""Texts from outside: refused in one line before anything is sampled from them, or measured as what they say."""

import json
import time

import numpy as np
import psutil
import pytest

from invented_text import source
from selfrepair.errors import InputError
from selfrepair.text import vetting
from selfrepair.text.documents import sample_documents
from selfrepair.text.spans import token_spans
from selfrepair.text.vetting import vet_text
from selfrepair.text.windows import cut_prompts
from tiny_models import tiny_tokenizer

WORDS = " ".join(f"w{4 + i % 50}" for i in range(300))


def write(tmp_path, content, ending=".txt"):
    """A source of a file with this text, or these bytes."""
    path = tmp_path / f"text{ending}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return source(path, column="text", weight=1)


def refusal(entry):
    start = time.monotonic()
    with pytest.raises(InputError) as caught:
        vet_text("mine", entry)
    assert time.monotonic() - start < 20  # measured: 1.3 s, of 200 MB 5 s
    message = str(caught.value)
    assert message.startswith("text.sources.mine.path: ")
    assert "\n" not in message
    assert len(message) < 600
    return message


def sampled(entry, tmp_path, prompts=3):
    """The documents of a text, once prompts are cut from them and each token is found in them again."""
    vet_text("mine", entry)
    options = {"prompts": prompts, "tokens_per_prompt": 16, "seed": 0}
    documents = sample_documents({"mine": entry}, wheels={}, cache=tmp_path, **options)
    tokenizer = tiny_tokenizer()
    cut = cut_prompts(documents, tokenizer, {"mine": entry}, bos_token=None, **options)
    assert len(token_spans(cut, documents, tokenizer)) == prompts
    return documents["text"].to_list()


# --- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf_16_is_told(tmp_path, encoding):
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    assert "is in UTF-16" in refusal(write(tmp_path, mark + WORDS.encode(encoding)))


@pytest.mark.parametrize("content", ["Straße für ".encode("latin1") * 50, bytes(range(256)) * 40])
def test_what_is_not_utf_8_is_told(tmp_path, content):
    assert "is not in UTF-8 (byte " in refusal(write(tmp_path, content))


@pytest.mark.parametrize("line", ["word " * (vetting.LONGEST // 4), "a" * (vetting.LONGEST + 1)])
def test_a_document_without_an_end_is_refused(tmp_path, line):
    line = line[: vetting.LONGEST + 1]
    assert "a document of it, from character 602 on, has 5," in refusal(
        write(tmp_path, f"{WORDS[:599]}\n\n\n{line}")
    )
    assert "line 1 has 5," in refusal(write(tmp_path, json.dumps({"text": line}), ".jsonl"))


@pytest.mark.hostile
def test_200_mb_in_one_line_are_refused(tmp_path):
    assert "has 200,000,000 characters" in refusal(write(tmp_path, b"lorem ips " * 20_000_000))


def test_a_file_larger_than_memory_is_refused_before_it_is_read(tmp_path):
    entry = write(tmp_path, "")
    with (tmp_path / "text.txt").open("wb") as stream:
        stream.truncate(psutil.virtual_memory().total)  # a hole
    assert "GB of memory are free" in refusal(entry)


@pytest.mark.parametrize(
    "line", ["[" * 10_000 + "]" * 10_000, '{"text":' * 10_000 + "1" + "}" * 10_000]
)
def test_a_line_nested_too_deeply_is_refused(tmp_path, line):
    content = json.dumps({"text": WORDS}) + "\n" + line
    assert "line 2 is nested too deeply" in refusal(write(tmp_path, content, ".jsonl"))


@pytest.mark.parametrize("value", [1, None, True, [WORDS], {"text": WORDS}])
def test_only_text_is_text(tmp_path, value):
    """str() of anything would be measured as if somebody had written it."""
    found = refusal(write(tmp_path, json.dumps({"text": value}), ".jsonl"))
    assert f"a {type(value).__name__} under 'text', not text" in found


@pytest.mark.parametrize(
    "line", ["{", "[]", "7", "{}", '{"text":', '"text"', '{"n": ' + "1" * 5000 + "}"]
)
def test_a_line_that_is_no_object_is_named(tmp_path, line):
    content = json.dumps({"text": WORDS}) + "\n" + line
    assert "line 2 is no JSON object with the key 'text'" in refusal(
        write(tmp_path, content, ".jsonl")
    )


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_line_separators_inside_a_line_are_told(tmp_path, separator):
    """Reading takes them for the end of the line (`sources`, which cannot change without measuring again)."""
    content = json.dumps({"text": f"{WORDS}{separator}{WORDS}"}, ensure_ascii=False)
    assert "holds a line or paragraph separator" in refusal(write(tmp_path, content, ".jsonl"))


# --- measured right -----------------------------------------------------------------------------


def test_nothing_and_one_document(tmp_path):
    for content in ("", "\n" * 100_000, "\0" * 100_000, "w4"):
        entry = write(tmp_path, content)
        with pytest.raises(InputError, match="documents has 16 tokens; lower"):
            sampled(entry, tmp_path)
    assert sampled(write(tmp_path, WORDS), tmp_path) == [WORDS]


@pytest.mark.parametrize(
    "odd",
    [
        "\u202ew5 שלום עולם\u202c",  # right to left
        "a" + "\u0301" * 1000,  # one letter, a thousand accents
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # one picture of five characters
        "ﬁ Ⅷ ㎏",  # compatibility characters
        "<script>alert(1)</script> {{x}} \\u0000 %s ${x}",
    ],
)
def test_odd_characters_are_kept_and_found_again(tmp_path, odd):
    text = f"{WORDS} {odd} {WORDS}"
    (found,) = sampled(write(tmp_path, text), tmp_path)
    assert found.count("w4 ") == text.count("w4 ")


@pytest.mark.parametrize("odd", ["\0", "\x07", "\ufeff"])
def test_control_characters_are_left_out(tmp_path, odd):
    (found,) = sampled(write(tmp_path, WORDS.replace(" ", f" {odd}")), tmp_path)
    assert found == WORDS


def test_a_document_with_lone_surrogates_is_left_out(tmp_path):
    lines = ['{"text": "' + "\\ud800 w5 " * 100 + '"}', json.dumps({"text": WORDS})]
    assert sampled(write(tmp_path, "\n".join(lines), ".jsonl"), tmp_path) == [WORDS]


def test_fuzzed_texts_are_refused_or_sampled(tmp_path):
    rng = np.random.default_rng(0)
    plain = {
        ".txt": "\n\n\n".join([WORDS] * 4),
        ".jsonl": "\n".join([json.dumps({"text": WORDS})] * 4),
    }
    for number in range(30):
        ending = list(plain)[number % 2]
        fuzzed = bytearray(plain[ending].encode())
        for _ in range(rng.integers(1, 6)):
            fuzzed[rng.integers(0, len(fuzzed))] = rng.integers(0, 256)
        entry = write(tmp_path, bytes(fuzzed), ending)
        try:
            sampled(entry, tmp_path)
        except InputError as error:
            message = str(error)
            assert "\n" not in message
