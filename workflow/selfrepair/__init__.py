"""Self-repair in language models: ablate an attention head, measure what makes up for it.

model  = selfrepair.load_model("path/or/hub-name", device="auto", dtype="float32")
result = selfrepair.sweep(model, tokens, donors=donor_tokens, ablation="resample")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import ExactnessError, InputError
    from .measure.clean_pass import clean_pass
    from .measure.sweep import sweep
    from .measure.sweep_result import SweepResult
    from .model.loading import load_model

__version__ = "0.1.0"
__all__ = ["ExactnessError", "InputError", "SweepResult", "clean_pass", "load_model", "sweep"]

_HOME = {
    "load_model": "model.loading",
    "sweep": "measure.sweep",
    "SweepResult": "measure.sweep_result",
    "clean_pass": "measure.clean_pass",
    "InputError": "errors",
    "ExactnessError": "errors",
}


def __getattr__(name: str) -> Any:
    """Import on first use: drawing a figure must not load torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
