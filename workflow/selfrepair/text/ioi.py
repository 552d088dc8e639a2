"""Prompts of a narrow task, indirect object identification (docs/method.md section 5).

Two people are named, one of them again as the giver, and the other is the answer: "..., Anna and Peter ...,
and Peter handed the map to" -> " Anna". The task is that of Wang et al. 2022 (arXiv 2211.00593); sentences,
names, places and objects are our own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from ..errors import InputError
from .mixture import generator_of

# Of about one length in words, so that most tokenizers cut most of them into as many tokens.
TEMPLATES = (
    "Last week, {first} and {second} met at the {place}, where {giver} handed the {object} to",
    "This morning, {first} and {second} drove to the {place}, and {giver} lent the {object} to",
    "After lunch, {first} and {second} stopped at the {place}, and {giver} passed the {object} to",
    "Before sunrise, {first} and {second} reached the {place}, where {giver} showed the {object} to",
    "On Sunday, {first} and {second} sat near the {place}, and {giver} offered the {object} to",
    "Every Friday, {first} and {second} meet at the {place}, where {giver} shows the {object} to",
    "Once again, {first} and {second} talked outside the {place}, then {giver} returned the {object} to",
    "Late yesterday, {first} and {second} walked past the {place}, and {giver} sold the {object} to",
    "In spring, {first} and {second} worked near the {place}, and {giver} brought the {object} to",
    "Very early, {first} and {second} arrived at the {place}, and {giver} threw the {object} to",
    "That evening, {first} and {second} ate by the {place}, before {giver} gave the {object} to",
    "For hours, {first} and {second} looked around the {place}, until {giver} gave the {object} to",
    "Days later, {first} and {second} returned to the {place}, where {giver} gave the {object} to",
    "At noon, {first} and {second} rested behind the {place}, and {giver} passed the {object} to",
    "In winter, {first} and {second} slept beside the {place}, where {giver} sent the {object} to",
    "Years ago, {first} and {second} worked at the {place}, and {giver} promised the {object} to",
)
PLACES = (
    *("market", "harbor", "library", "museum", "bakery", "stadium", "theater", "river"),
    *("bridge", "castle", "park", "farm", "beach", "lake", "church", "hotel"),
)
OBJECTS = (
    *("letter", "map", "book", "lamp", "camera", "ticket", "blanket", "key"),
    *("hammer", "bottle", "phone", "photo", "hat", "coat", "pen", "box"),
)
NAMES = (
    *("Adam", "Alice", "Anna", "Arthur", "Clara", "Daniel", "Diana", "Edward", "Emma", "Eric"),
    *("Frank", "George", "Helen", "Henry", "Jane", "Julia", "Karen", "Laura", "Leo", "Lucy"),
    *("Maria", "Martin", "Nina", "Oliver", "Oscar", "Paul", "Peter", "Philip", "Rachel", "Robert"),
    *("Ruth", "Sarah", "Simon", "Sophie", "Susan", "Thomas", "Victor", "Walter"),
)
# Fewer names that are tokens of their own than this: the task would be about a handful of tokens.
FEWEST_NAMES = 12

# Order of the names: answer, giver, giver; or giver, answer, giver.
ABBA, BABA = "ABBA", "BABA"
ORDERS = (ABBA, BABA)

SCHEMA: dict[str, Any] = {
    "prompt": pl.Int32,
    **dict.fromkeys(("order", "place", "object", "answer", "subject"), pl.String),
    "template": pl.Int32,
    **dict.fromkeys(("text", "donor_text"), pl.String),
    **dict.fromkeys(("answer_token", "subject_token", "bos_token"), pl.Int32),
    **dict.fromkeys(("tokens", "donor_tokens"), pl.List(pl.Int32)),
}


@dataclass(frozen=True)
class _Frame:
    """A sentence with a place and an object, but no names yet."""

    template: int
    place: str
    object: str

    def text(self, first: str, second: str, giver: str) -> str:
        return TEMPLATES[self.template].format(
            first=first, second=second, giver=giver, place=self.place, object=self.object
        )


def ioi_prompts(
    tokenizer: Any, *, prompts: int, seed: int, bos_token: int | None = None
) -> pl.DataFrame:
    """Prompts that end with their answer, each with a resample partner: the same sentence with other names.

    All are of one length in tokens. Prompts 0, 2, ... have the answer named first (ABBA), prompts 1, 3, ...
    second (BABA); two such neighbours share their template. Prompt i depends on the seed and the tokenizer,
    not on the number of prompts. The partner names three other people, once each, so nobody is the answer;
    its last token, which only stands there for the length, is a fourth.

    Args:
        tokenizer: of Hugging Face; bos_token: put first in every prompt and partner, None: nothing is.
    Returns:
        a row per prompt, columns as SCHEMA. `subject` is the giver, `template` the index into TEMPLATES;
        `tokens` and `donor_tokens` begin with bos_token, if any; `text` and `donor_text` have no BOS.
    Raises:
        InputError: too few names are a single token of this tokenizer, or it cuts no sentence so that names
            can be exchanged.
    """
    names = single_token_names(tokenizer)
    if len(names) < FEWEST_NAMES:
        raise InputError(
            f"indirect object task: {len(names)} of {len(NAMES)} names are a single token of this"
            f" tokenizer, at least {FEWEST_NAMES} are needed"
        )
    frames = _frames_of_one_length(tokenizer, names)
    templates = sorted({frame.template for frame in frames})
    dealt = generator_of(seed, "indirect object").permutation(templates).tolist()
    rows: list[dict[str, Any]] = []
    for prompt in range(prompts):
        template = dealt[prompt // 2 % len(dealt)]
        mine = [frame for frame in frames if frame.template == template]
        draw = generator_of(seed, f"indirect object {prompt}")
        frame = mine[draw.integers(len(mine))]
        people = draw.choice(sorted(names), 6, replace=False).tolist()
        row = _row(tokenizer, frame, people, names, order=ORDERS[prompt % 2])
        rows.append({"prompt": prompt, "bos_token": bos_token, **row})
    first = [] if bos_token is None else [bos_token]
    for row in rows:
        row |= {name: first + row[name] for name in ("tokens", "donor_tokens")}
    return pl.DataFrame(rows, schema=SCHEMA)


def no_ioi_prompts() -> pl.DataFrame:
    """The table without a prompt: of a tokenizer that the task is not possible for."""
    return pl.DataFrame(schema=SCHEMA)


def single_token_names(tokenizer: Any) -> dict[str, int]:
    """The token of each of NAMES that is a single one, with the space before it; in the middle of a text."""
    before = _ids(tokenizer, "and")
    found: dict[str, int] = {}
    for name in NAMES:
        after = _ids(tokenizer, f"and {name}")[len(before) :]
        known = len(after) == 1 and after[0] not in (tokenizer.unk_token_id, *found.values())
        if known:
            found[name] = after[0]
    return found


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _frames_of_one_length(tokenizer: Any, names: dict[str, int]) -> list[_Frame]:
    """The frames of the length in tokens that most templates can have; of equals, that of most frames.

    Raises:
        InputError: in no frame the names are tokens of their own.
    """
    people = sorted(names)[:3]
    by_length: dict[int, list[_Frame]] = {}
    for frame in _frames():
        text = frame.text(*people)
        ids = _ids(tokenizer, text)
        if _names_in(ids, names) == [names[name] for name in people]:
            by_length.setdefault(len(ids), []).append(frame)
    if not by_length:
        raise InputError(
            "indirect object task: this tokenizer cuts no sentence so that every name is one token"
        )
    return max(
        by_length.values(), key=lambda some: (len({frame.template for frame in some}), len(some))
    )


def _frames() -> Iterator[_Frame]:
    for template in range(len(TEMPLATES)):
        for place in PLACES:
            for thing in OBJECTS:
                yield _Frame(template, place, thing)


def _names_in(ids: list[int], names: dict[str, int]) -> list[int]:
    known = set(names.values())
    return [token for token in ids if token in known]


def _row(
    tokenizer: Any, frame: _Frame, people: list[str], names: dict[str, int], *, order: str
) -> dict[str, Any]:
    """A prompt and its partner, without BOS; people: answer, giver, and four others."""
    answer, giver, *others, last = people
    named = (answer, giver) if order == ABBA else (giver, answer)
    row: dict[str, Any] = {"order": order, "place": frame.place, "object": frame.object}
    row |= {"answer": answer, "subject": giver, "template": frame.template}
    row |= {"answer_token": names[answer], "subject_token": names[giver]}
    sentences = {"": ((*named, giver), answer), "donor_": (tuple(others), last)}
    for prefix, (three, end) in sentences.items():
        text = f"{frame.text(*three)} {end}"
        ids = _ids(tokenizer, text)
        if _names_in(ids, names) != [names[name] for name in (*three, end)]:
            raise InputError(
                f"indirect object task: this tokenizer cuts a name of {text!r} into several tokens"
            )
        row |= {f"{prefix}text": text, f"{prefix}tokens": ids}
    if len(row["tokens"]) != len(row["donor_tokens"]):
        raise InputError(
            f"indirect object task: this tokenizer cuts {row['text']!r} and {row['donor_text']!r} into"
            " different numbers of tokens"
        )
    return row
