"""Self-repair in language models: ablate an attention head, measure what makes up for it.

model  = selfrepair.load_model("path/or/hub-name", device="auto", dtype="float32")
result = selfrepair.sweep(model, tokens, donors=donor_tokens, ablation="resample")
study  = selfrepair.load_results("results/families")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import ExactnessError, InputError
    from .measure.clean_pass import clean_pass
    from .measure.sweep import sweep
    from .measure.sweep_result import SweepResult
    from .model.opening import load_model
    from .reading.study import StudyResults, load_results

__version__ = "0.1.0"
__all__ = [
    "ExactnessError",
    "InputError",
    "StudyResults",
    "SweepResult",
    "clean_pass",
    "load_model",
    "load_results",
    "sweep",
]

_HOME = {
    "load_model": "model.opening",
    "sweep": "measure.sweep",
    "SweepResult": "measure.sweep_result",
    "clean_pass": "measure.clean_pass",
    "load_results": "reading.study",
    "StudyResults": "reading.study",
    "InputError": "errors",
    "ExactnessError": "errors",
}


def __getattr__(name: str) -> Any:
    """Import on first use: drawing a figure must not load torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
