"""Which token stands in front of a window: what the tokenizer does, always one, or none."""

import pytest
from tokenizers.processors import TemplateProcessing

from selfrepair.errors import InputError
from selfrepair.model.tokenizer import END_OF_TEXT, bos_token_of
from tiny_models import tiny_tokenizer

BOS, EOS = 1, 2
SPECIAL = [("<bos>", BOS), ("<eos>", EOS)]


def tokenizer(template=None, *, without=(), more=()):
    """The tiny tokenizer with a template of what it adds, without some special tokens, with others."""
    made = tiny_tokenizer()
    if template:
        made.backend_tokenizer.post_processor = TemplateProcessing(
            single=template, special_tokens=SPECIAL
        )
    for name in without:
        setattr(made, name, None)
    made.add_tokens(list(more), special_tokens=True)
    return made


@pytest.mark.parametrize(
    ("template", "own"), [(None, None), ("<bos> $A", BOS), ("$A <eos>", None), ("<eos> $A", EOS)]
)
def test_auto_is_what_the_tokenizer_does_itself(template, own):
    assert bos_token_of(tokenizer(template), "auto") == own
    assert bos_token_of(tokenizer(template), "always") == BOS
    assert bos_token_of(tokenizer(template), "never") is None


def test_always_takes_the_end_of_text_where_there_is_no_bos():
    assert bos_token_of(tokenizer(without=["bos_token"]), "always") == EOS
    chat = tokenizer(without=["bos_token"], more=[END_OF_TEXT])
    assert bos_token_of(chat, "always") == chat.convert_tokens_to_ids(END_OF_TEXT) != EOS


@pytest.mark.parametrize(
    ("made", "bos", "line"),
    [
        ({"without": ["bos_token", "eos_token"]}, "always", "neither a beginning-of-sequence nor"),
        ({"template": "<eos> <bos> $A"}, "auto", r"2 tokens in front of a text \(<eos> <bos>\)"),
    ],
)
def test_what_cannot_be_put_in_front_is_refused_in_one_line(made, bos, line):
    with pytest.raises(InputError, match=f"^text.bos: {bos}, but .*{line}") as error:
        bos_token_of(tokenizer(**made), bos)
    assert "\n" not in str(error.value)
