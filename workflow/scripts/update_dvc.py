"""Write what no template of DVC can say: into dvc.yaml each stage's code and the tables of every model,
into .dvcignore which of Snakemake's records belong to the study.

The code is the scripts of a stage's rules and the modules that they import. `make dvc-stages` runs
it, after an import has changed or a model was added to the config; `--check` tells whether it must.
"""

import base64
import io
import string
import sys
from pathlib import Path

from ruamel.yaml import YAML

from common.rule_code import code_of

ROOT = Path(__file__).parents[2]
# What every stage depends on, and per stage the files of its rules and their scripts.
ALWAYS = ["Snakefile", "config/schema.yaml", "workflow/rules/common.smk"]
STAGES = {
    "documents": (["data"], ["sample_documents"]),
    "clean": (["data", "ablation"], ["cut_prompts", "clean_pass"]),
    "ablate": (["ablation"], ["ablate", "gather"]),
    "experiments": (
        ["experiments", "ablation"],
        ["choose_heads", "ablate_chosen", "measure_neurons", "measure_iterative", "gather"],
    ),
    "tables": (
        ["decomposition", "experiments"],
        ["decompose", "tabulate_tokens", "tabulate_neurons", "tabulate_iterative"],
    ),
    "figures": (["figures", "claims", "decomposition"], ["summarise", "judge_claims", "draw"]),
}


def updated(text: str, models: list[str]) -> str:
    """dvc.yaml with these dependencies; everything else, comments too, as it was."""
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    content = yaml.load(text)
    for name, (rules, scripts) in STAGES.items():
        stage = content["stages"][name]
        stage = stage.get("do", stage)
        code = {path for script in scripts for path in code_of(script, ROOT)}
        data = [str(dep) for dep in stage["deps"] if str(dep).startswith("results/")]
        if name == "figures":
            tables = [path for out in content["stages"]["tables"]["do"]["outs"] for path in out]
            data = [path.replace("${key}", model) for model in models for path in tables]
        rule_files = [f"workflow/rules/{rule}.smk" for rule in rules]
        stage["deps"] = [*data, *ALWAYS, *rule_files, *sorted(code)]
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


def ignored(study: str) -> str:
    """.dvcignore: of Snakemake's records, named by the base64 of a path, only those of this study."""
    kept = "".join(
        f"!/.snakemake/metadata/{base64_pattern(f'{folder}/{study}/')}*\n"
        for folder in ("results", "figures")
    )
    return (
        "# Written by `make dvc-stages`. The bundled store, logs, and records of other studies.\n"
        f"/artifacts\n/logs\n/.snakemake/metadata/*\n{kept}"
    )


def base64_pattern(prefix: str) -> str:
    """What the base64 of every text with this prefix begins with, as a pattern of .gitignore."""
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    data = prefix.encode()
    whole = len(data) // 3 * 3
    pattern, rest = base64.urlsafe_b64encode(data[:whole]).decode(), data[whole:]
    if not rest:
        return pattern
    # The last character mixes the prefix's last bits with those of the next byte, whatever it is.
    bits = int.from_bytes(rest, "big")
    free = 6 - 8 * len(rest) % 6
    fixed = [bits >> shift & 63 for shift in range(8 * len(rest) - 6, -1, -6)]
    last = (bits << free) & 63
    choices = sorted((alphabet[last + i] for i in range(1 << free)), key="-".__eq__)
    return pattern + "".join(alphabet[i] for i in fixed) + f"[{''.join(choices)}]"


def main() -> None:
    config = YAML(typ="safe").load(ROOT / "config/config.yaml")
    path = ROOT / "dvc.yaml"
    wanted = {
        path: updated(path.read_text(encoding="utf-8"), list(config["models"])),
        ROOT / ".dvcignore": ignored(config["study"]),
    }
    for path, text in wanted.items():
        if "--check" in sys.argv and path.read_text(encoding="utf-8") != text:
            sys.exit(f"error: {path.name}: out of date; run make dvc-stages")
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
