"""The sizes of a model as a study's config states them. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..model.sizes import Shape


def stated_shape(stated: Mapping[str, Any]) -> Shape:
    """The shape under `models.<key>.shape`; by default each head has keys and values of its own, and the
    heads share d_model out."""
    usual = {"kv_heads": stated["heads"], "d_head": stated["d_model"] // stated["heads"]}
    return Shape(**(usual | dict(stated)))
