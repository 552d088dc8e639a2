"""Charts are checked against Vega-Lite's schema whole, when a test asks for the specification, not part by part as
well; and only once if they differ in rows, numbers and titles alone. That was half of the time of these tests."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from altair.utils.schemapi import SchemaBase, debug_mode


def form_of(spec: dict[str, Any]) -> str:
    """A specification without its rows, numbers and title: what makes it valid or not."""
    form = json.dumps({key: part for key, part in spec.items() if key not in ("datasets", "title")})
    return re.sub(r"data-[0-9a-f]{32}|-?\d+(\.\d+)?(e-?\d+)?", "0", form)


@pytest.fixture(autouse=True, scope="session")
def checked_once() -> Iterator[None]:
    forms, validate = set(), SchemaBase.validate.__func__  # type: ignore[attr-defined]

    def validate_new(cls: type[SchemaBase], instance: dict[str, Any], schema: Any = None) -> None:
        form = form_of(instance)
        if form not in forms:
            validate(cls, instance, schema)
            forms.add(form)

    with debug_mode(False), pytest.MonkeyPatch.context() as patch:
        patch.setattr(SchemaBase, "validate", classmethod(validate_new))
        yield
