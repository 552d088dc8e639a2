"""`selfrepair check` and `selfrepair init`: see docs/your-model.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Set before anything imports these libraries: their progress bars and notices are not ours.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if sys.stderr.isatty() else "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from .errors import ExactnessError, InputError
from .model.sizes import BYTES

# The checkout that this package is installed from; a study runs there.
ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; what is wrong is told in one line, with exit status 1."""
    asked = _parser().parse_args(arguments)
    try:
        asked.run(asked)
    except (InputError, ExactnessError, OSError) as error:
        line = " ".join(str(error).split())
        if getattr(asked, "json", False):
            print(json.dumps({"supported": False, "reason": line}, indent=1))
        print(f"error: {line}", file=sys.stderr)
        return 1
    return 0


def check(asked: argparse.Namespace) -> None:
    """Print what can be said of a model; raises InputError for one that is not supported."""
    from dataclasses import replace

    from .command.candidate import entry_of, find_candidate
    from .command.check import device_here, exactness_of, examine
    from .command.report import as_json, as_lines

    entry = entry_of(asked.model, gguf=asked.gguf, revision=asked.revision, pickle=asked.pickle)
    candidate = find_candidate(entry, cache=asked.cache)
    report = examine(candidate, dtype=asked.dtype, device=device_here())
    if candidate.has_weights if asked.weights is None else asked.weights:
        text = Path(asked.text) if asked.text else None
        found = exactness_of(report, dtype=asked.dtype, device=device_here(), text=text)
        report = replace(report, exactness=found)
    print(json.dumps(as_json(report), indent=1) if asked.json else "\n".join(as_lines(report)))


def init(asked: argparse.Namespace) -> None:
    """Write a config for a model and a text; raises InputError for what cannot be studied."""
    from .command.candidate import entry_of, find_candidate
    from .command.check import device_here, examine
    from .command.first_study import Checkout, first_study
    from .command.study_text import source_of
    from .files.storage import write_text

    if asked.path.exists() and not asked.force:
        raise InputError(f"{asked.path}: is there already; name another file, or add --force")
    checkout = Checkout.at(ROOT)
    source = source_of(asked.text, column=asked.column) if asked.text else None
    entry = entry_of(asked.model, gguf=asked.gguf, revision=asked.revision, pickle=asked.pickle)
    candidate = find_candidate(entry, cache=asked.cache, title=asked.title)
    report = examine(candidate, dtype=asked.dtype, device=device_here())
    study = first_study(
        report,
        source,
        path=asked.path,
        checkout=checkout,
        dtype=asked.dtype,
        prompts=asked.prompts,
        minutes=asked.minutes,
    )
    write_text(asked.path, study.yaml)
    took = "" if study.minutes is None else f", about {study.minutes:,.0f} minutes here"
    place = checkout.written(asked.path).removeprefix("./")
    print(f"{asked.path} is written. To run it{took}: make study CONFIG={place}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="selfrepair", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_check(commands)
    _add_init(commands)
    return parser


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("check", help="is a model supported, and what would it cost here?")
    parser.add_argument("model", help="hub name, Hugging Face directory, or GGUF file")
    _add_model_options(parser)
    parser.add_argument(
        "--weights",
        action=argparse.BooleanOptionalAction,
        help="load the weights too and check on real text that all adds up; by default if they are in a "
        "local directory",
    )
    parser.add_argument("--text", metavar="FILE", help="text for that; by default two sentences")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    parser.set_defaults(run=check)


def _add_init(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("init", help="write a small config for a model and a text")
    parser.add_argument("path", type=Path, help="the file to write, such as my-study.yaml")
    parser.add_argument(
        "--model", required=True, help="hub name, Hugging Face directory, or GGUF file"
    )
    _add_model_options(parser)
    parser.add_argument(
        "--text",
        metavar="FILE_OR_DATASET",
        help=".txt (documents separated by two blank lines), .jsonl, or a data set of the hub or of a "
        "local directory; by default the texts of the default study",
    )
    parser.add_argument(
        "--column",
        default="text",
        help="key of a .jsonl or column of a data set that holds the text",
    )
    parser.add_argument("--title", help="name of the model in the figures; by default its own")
    parser.add_argument("--prompts", type=int, help="prompts in the sample")
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="that the study may take here (default: 10)"
    )
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    parser.set_defaults(run=init)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gguf", metavar="FILE", help="a GGUF file in that repository or directory"
    )
    parser.add_argument("--revision", help="branch, tag or commit on the hub")
    parser.add_argument(
        "--pickle", action="store_true", help="weights may be in PyTorch's own format, a pickle"
    )
    parser.add_argument("--dtype", choices=list(BYTES), default="float32", help="number format")
    parser.add_argument(
        "--cache",
        type=Path,
        default=ROOT / "resources",
        help="folder for weights that are converted from GGUF",
    )


if __name__ == "__main__":
    sys.exit(main())
