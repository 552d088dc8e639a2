"""Shared set-up: no network, enforced shape annotations, tiny models made once per session."""

import hashlib
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
# Tiny matrices: threads that wait for each other cost ten times what they compute.
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import jaxtyping

assert "selfrepair" not in sys.modules, (
    "shapes are only enforced in modules imported after the hook"
)
jaxtyping.install_import_hook("selfrepair", "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402

from checkouts import Checkout, finished_study, made_once  # noqa: E402
from threads import threads  # noqa: E402


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The Hugging Face directory of a tiny model, by name."""
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            from tiny_models import save_tiny_model

            folders[name] = save_tiny_model(name, tmp_path_factory.mktemp(name))
        return folders[name]

    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder: Callable[[str], Path]) -> Callable[..., Any]:
    """A loaded tiny model by name and dtype, on the CPU; the same object at every call."""
    loaded: dict[tuple[str, str], Any] = {}

    def load(name: str, dtype: str = "float32") -> Any:
        if (name, dtype) not in loaded:
            import selfrepair

            loaded[name, dtype] = selfrepair.load_model(
                tiny_folder(name), device="cpu", dtype=dtype
            )
        return loaded[name, dtype]

    return load


@pytest.fixture
def three_threads() -> Iterator[None]:
    with threads(3):
        yield


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of one test run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def save_material(folder: Path) -> None:
    """A tiny model, made up words, and tables as the authors would have released them."""
    from tiny_models import random_words, save_tiny_model

    save_tiny_model("gpt2", folder / "model")
    words = "\n\n\n".join(random_words(60, seed=seed) for seed in range(9))
    (folder / "words.txt").write_text(words)
    released = folder / "released"
    released.mkdir()
    for number, quantity in enumerate(("direct_effects", "ablated_direct_effects", "logit_diff")):
        table = torch.randn(3, 3, generator=torch.Generator().manual_seed(number))
        path = released / f"gpt2-tiny_condensed_{quantity}"
        path.write_bytes(pickle.dumps(table, protocol=4))


@pytest.fixture(scope="session")
def tiny_config(shared_folder: Path) -> dict:
    """The config of a study that takes a minute: a tiny model, made up words and tables."""
    folder = made_once(shared_folder / "material", save_material)
    text, released = folder / "words.txt", folder / "released"
    hashes = {
        path.name.removeprefix("gpt2-tiny_condensed_"): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(released.iterdir())
    }
    return {
        "study": "tiny",
        "models": {"gpt2": {"title": "Tiny GPT-2", "name": str(folder / "model")}},
        "text": {
            "prompts": 24,
            "tokens_per_prompt": 16,
            "bos": "always",
            "sources": {"words": {"kind": "file", "path": str(text), "licence": "made up"}},
        },
        "clean": {"prompts_per_shard": 16, "candidate_share": 0.2},
        "ablations": {
            "resample": {
                "prompts": 20,
                "tokens_per_head": 4,
                "random_tokens_per_head": 6,
                "map": True,
            },
            "zero": {"prompts": 12, "tokens_per_head": 2, "random_tokens_per_head": 3},
        },
        "sweep": {"prompts_per_shard": 12},
        "experiments": {
            "prompts": 20,
            "iterative_prompts": 12,
            "prompts_per_shard": 20,
            "heads_per_model": 2,
            "mlps": [1, -1],
            "chosen_tokens_per_head": 4,
            "chosen_random_tokens_per_head": 20,
            "iterative_tokens_per_head": 2,
        },
        "statistics": {"resamples": 1000},
        "published": {
            "location": str(released),
            "tables": {"gpt2": {"name": "gpt2-tiny", "sha256": hashes}},
        },
    }


@pytest.fixture(scope="session")
def finished(shared_folder: Path, tiny_config: dict) -> Checkout:
    """The study of tiny_config, run to its end; do not change it."""
    return finished_study(shared_folder, tiny_config)


@pytest.fixture
def shapes_unchecked() -> Iterator[None]:
    """Annotations off, as for a user: the library's own messages must name what is wrong."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
