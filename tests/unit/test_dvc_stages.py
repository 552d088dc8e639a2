"""dvc.yaml says what the rules say; .dvcignore tells a study's records apart."""

import base64
import random
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from checkouts import new_checkout, run_in

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "workflow/scripts"))

from common.dvc_ignore import base64_pattern, dvc_ignore  # noqa: E402
from common.dvc_stages import MATERIALS, Recorded, dvc_yaml, records_kept  # noqa: E402
from common.recorded import DEFAULT as CONFIG  # noqa: E402
from common.recorded import RECORDED, WITHOUT_TOP_TOKENS  # noqa: E402
from common.study_jobs import Job, Study, jobs_of_study  # noqa: E402
from selfrepair.errors import InputError  # noqa: E402
from selfrepair.study.materials import read_materials  # noqa: E402
from selfrepair.study.schema import read_schema, read_yaml  # noqa: E402

SHARED = {"sources": {"news": {"kind": "csv", "wheel": "texts"}}, "wheels": {"texts": {}, "a": {}}}
WRITTEN = {
    "study": "small",
    "seed": 0,
    "dtype": "float32",
    "models": {"one": {"wheel": "a", "member": "x"}, "two": {"wheel": "a", "member": "y"}},
    "text": {"prompts": 4, "sources": {"news": {"weight": 1}}},
    "sweep": {"store": "float16"},
}


def made_up(**changes) -> Study:
    """Three phases: documents, a sweep in two shards of each model, a figure of all models."""

    def job(rule, phase, model, inputs, outputs, *keys):
        return Job(
            rule, phase, model, inputs, (f"scripts/{rule}.py",), outputs, dict.fromkeys(keys)
        )

    jobs = [
        job(
            "sample",
            "documents",
            None,
            ("texts/own.txt", "/far/away.txt"),
            {"0": "results/small/documents.parquet", "1": "results/small/texts.json"},
            *("text.prompts", "text.sources", "wheels.texts"),
        )
    ]
    for model in ("one", "two"):
        shards = [f"results/small/{model}/sweeps/mean/shard-{i}of2.safetensors" for i in (0, 1)]
        for shard in shards:
            jobs.append(
                job(
                    "ablate",
                    "ablate",
                    model,
                    ("results/small/documents.parquet",),
                    {"tensors": shard},
                    *("dtype", "sweep.store", "models.{model}.member", "wheels.a"),
                    *changes.get("ablate", ()),
                )
            )
        jobs.append(
            job(
                "gather",
                "ablate",
                model,
                tuple(shards),
                {"0": f"results/small/{model}/sweeps/mean.json"},
            )
        )
    sweeps = tuple(f"results/small/{model}/sweeps/mean.json" for model in ("one", "two"))
    figures = {"png": "figures/small/E1-x.png", "metrics": "results/small/headline.json"}
    jobs.append(job("draw", "figures", None, sweeps, figures, "seed"))
    rules = {"documents": ["sample"], "ablate": ["ablate", "gather", "spare"], "figures": ["draw"]}
    complete = ("results/small/documents.parquet", "results/small/texts.json", *sweeps)
    return Study(jobs, rules, (*complete, *figures.values()))


def stages(study: Study, config=WRITTEN) -> dict:
    return yaml.safe_load(dvc_yaml([Recorded(CONFIG, config, study)], SHARED))["stages"]


def test_a_stage_runs_its_phase_alone():
    written = stages(made_up())
    assert list(written) == ["documents", "ablate", "figures", "records"]
    assert (
        "--allowed-rules sample documents $SNAKEMAKE_ARGS -- documents"
        in written["documents"]["cmd"]
    )
    assert written["ablate"]["foreach"] == ["one", "two"]
    command = written["ablate"]["do"]["cmd"]
    # A rule that this study does not need is allowed, so that another number format needs no new stage.
    assert "--allowed-rules ablate gather spare ablate@${item} " in command
    assert written["figures"]["cmd"].endswith("-- all")


def test_a_stage_depends_on_what_other_phases_made_and_on_its_own_code():
    written = stages(made_up())
    deps = written["documents"]["deps"]
    assert deps[0] == "texts/own.txt"
    assert "/far/away.txt" not in deps
    assert deps[-2:] == ["workflow/rules/documents.smk", "scripts/sample.py"]
    deps = written["ablate"]["do"]["deps"]
    assert deps[0] == "results/small/documents.parquet"
    assert [path for path in deps if path.startswith("results")] == deps[:1]
    assert {"scripts/ablate.py", "scripts/gather.py"} < set(deps)
    # The last stage also waits for all that makes the study complete and is not behind the rest of it.
    assert written["figures"]["deps"][:3] == [
        "results/small/one/sweeps",
        "results/small/texts.json",
        "results/small/two/sweeps",
    ]


def test_shards_are_packed_and_the_packing_is_code_of_their_stage():
    written = stages(made_up())
    packing = 'PATH="$PWD/.venv/bin:$PATH" python workflow/scripts/pack_shards.py'
    ablate = written["ablate"]["do"]
    assert ablate["cmd"].endswith(
        f"-- ablate@${{item}} && {packing} results/small/${{item}}/sweeps"
    )
    assert "workflow/scripts/pack_shards.py" in ablate["deps"]
    for stage in ("documents", "figures"):
        assert "pack_shards" not in written[stage]["cmd"]
        assert "workflow/scripts/pack_shards.py" not in written[stage]["deps"]


def with_top_tokens() -> Study:
    """The made up study with a clean pass before its sweep."""
    study = made_up()
    stem = "results/small/{}/clean"
    for number, job in enumerate(study.jobs):
        if job.rule == "ablate":
            inputs = (*job.inputs, f"{stem.format(job.model)}.safetensors")
            study.jobs[number] = replace(job, inputs=inputs)
    for model in ("one", "two"):
        own = stem.format(model)
        made = {"tensors": f"{own}.safetensors", "provenance": f"{own}.json"}
        study.jobs.insert(1, Job("rank", "clean", model, (), (), made, {}))
    rules = {"documents": ["sample"], "clean": ["rank"]} | dict(study.rules)
    return replace(study, rules=rules)


def test_top_tokens_are_kept_or_made_again_by_the_stage_that_needs_them():
    kept = stages(with_top_tokens())
    own = "results/small/${item}/clean"
    outs = [path for out in kept["clean"]["do"]["outs"] for path in out]
    assert outs == [f"{own}.safetensors", f"{own}.json"]
    assert f"{own}.safetensors" in kept["ablate"]["do"]["deps"]
    assert "--allowed-rules ablate gather" in kept["ablate"]["do"]["cmd"]

    assert WITHOUT_TOP_TOKENS == ("config/families.yaml",)
    recorded = Recorded(WITHOUT_TOP_TOKENS[0], WRITTEN, with_top_tokens())
    written = yaml.safe_load(dvc_yaml([recorded], SHARED))["stages"]
    assert written["small-clean"]["do"]["outs"] == [{f"{own}.json": {"persist": True}}]
    deps = written["small-ablate"]["do"]["deps"]
    assert f"{own}.json" in deps
    assert f"{own}.safetensors" not in deps
    assert "--allowed-rules rank ablate gather" in written["small-ablate"]["do"]["cmd"]


def test_outputs_are_files_folders_of_shards_metrics_and_pictures():
    written = stages(made_up())
    keep = {"persist": True}
    assert written["ablate"]["do"]["outs"] == [{"results/small/${item}/sweeps": keep}]
    assert written["figures"]["metrics"] == [{"results/small/headline.json": keep}]
    assert written["figures"]["outs"] == [{"figures/small": keep}]
    # Snakemake's records are packed by a stage of its own, which waits for the last one.
    packing = 'PATH="$PWD/.venv/bin:$PATH" python workflow/scripts/pack_records.py'
    assert written["records"]["cmd"] == f"{packing} results/small/ figures/small/"
    ends = ["figures/small", "results/small/headline.json"]
    code = [f"workflow/scripts/{name}.py" for name in ("pack_records", "common/packed_records")]
    assert written["records"]["deps"] == [*ends, ".snakemake/metadata", *code]
    assert written["records"]["outs"] == [{".snakemake/records.tar.xz": keep}]
    content = yaml.safe_load(dvc_yaml([Recorded(CONFIG, WRITTEN, made_up())], SHARED))
    assert content["plots"] == ["figures/small/E1-x.png"]


def test_parameters_are_the_keys_that_the_rules_declare_in_the_file_that_states_them():
    written = stages(made_up())
    assert written["documents"]["params"] == [
        {CONFIG: ["study", "text"]},
        {MATERIALS: ["sources.news", "wheels.texts"]},
    ]
    # A section that is read to its last key is named as a whole: what is added to it counts too.
    assert written["ablate"]["do"]["params"] == [
        {CONFIG: ["dtype", "models.${item}.member", "study", "sweep"]},
        {MATERIALS: ["wheels.a"]},
    ]
    assert written["figures"]["params"] == [{CONFIG: ["seed", "study"]}]


def test_a_key_at_its_default_counts_through_the_section_that_it_would_be_added_to():
    study = made_up(ablate=("sweep.tokens", "models.{model}.revision"))
    params = stages(study)["ablate"]["do"]["params"][0][CONFIG]
    assert params == ["dtype", "models.${item}", "study", "sweep"]
    wider = WRITTEN | {"sweep": {"store": "float16", "prompts_per_shard": 8}}
    assert "sweep.store" in stages(made_up(), wider)["ablate"]["do"]["params"][0][CONFIG]


def test_a_key_that_dvc_could_not_see_change_is_refused():
    with pytest.raises(InputError, match=r"config/config\.yaml: state tf32, even at its default"):
        stages(made_up(ablate=("tf32",)))


def test_a_model_with_a_dot_in_its_name_counts_with_all_models():
    models = {"qwen-0.6b": WRITTEN["models"]["one"], **WRITTEN["models"]}
    params = stages(made_up(), WRITTEN | {"models": models})["ablate"]["do"]["params"]
    assert params[0][CONFIG] == ["dtype", "models", "study", "sweep"]


FAMILIES = "config/families.yaml"


@pytest.fixture(scope="module")
def default() -> Study:
    """The jobs of the default study."""
    return jobs_of_study(ROOT, ROOT / CONFIG)


@pytest.fixture(scope="module")
def families() -> Study:
    """The jobs of the other recorded study."""
    return jobs_of_study(ROOT, ROOT / FAMILIES)


def covered(key: str, params: set[str]) -> bool:
    """Whether a key, or a section around it, is among the parameters."""
    return any(key == param or key.startswith(f"{param}.") for param in params)


@pytest.mark.slow
def test_what_is_measured_does_not_depend_on_what_is_a_control(default):
    readers = {
        job.rule for job in default.jobs if any(key.endswith(".control_of") for key in job.settings)
    }
    assert readers == {"summarise", "judge_claims", "write_page"}


@pytest.mark.slow
def test_every_stage_has_exactly_the_parameters_that_its_rules_read(default, families):
    """In the dvc.yaml of this repository: each declared key is covered, and nothing else is listed."""
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    others = [f"families-{phase}" for phase in families.rules]
    assert list(content) == [*default.rules, *others, "records"]
    for phase in default.rules:
        stage = content[phase]
        params = {
            key
            for file in stage.get("do", stage)["params"]
            for keys in file.values()
            for key in keys
        }
        params = {re.sub(r"^models\.(\$\{item\}|smollm2)", "models.{model}", p) for p in params}
        params = {re.sub(r"^sources\..*", "text.sources", p) for p in params}
        read = {
            re.sub(r"^models\.smollm2", "models.{model}", key)
            for job in default.jobs
            if job.phase == phase
            for key in job.settings
        }
        assert not [key for key in read if not covered(key, params)], phase
        unread = [p for p in params - {"study"} if not any(covered(key, {p}) for key in read)]
        assert not unread, phase


def test_number_formats_and_tokens_are_parameters_of_what_they_change():
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for phase in ("clean", "ablate", "experiments"):
        assert {"dtype", "tf32"} < set(content[phase]["do"]["params"][0][CONFIG]), phase
    assert "sweep.checked_heads" in content["check"]["do"]["params"][0][CONFIG]
    of_sweeps = {f"sweep.{key}" for key in ("tokens", "store", "prompts_per_shard")}
    assert of_sweeps < set(content["ablate"]["do"]["params"][0][CONFIG])
    # Of every head: what is drawn, and so measured, does not depend on it.
    assert "sweep.heads" in content["tables"]["do"]["params"][0][CONFIG]
    assert "measure_precision" in content["clean"]["do"]["cmd"]


@pytest.mark.slow
def test_a_second_rounding_is_a_setting_of_the_models_that_state_it_alone(default, families):
    """So that it runs nothing of other models again."""
    key = "models.{model}.requantise"
    assert not [job.rule for job in default.jobs if key in job.settings]
    assert {job.model for job in families.jobs if key in job.settings} == {"smollm2-requantised"}
    for job in families.jobs:
        if job.model == "smollm2-requantised" and "models.{model}.member" in job.settings:
            assert job.settings[key] == "Q4_0"


@pytest.mark.slow
def test_any_drift_is_noticed(default, families):
    """What `make check` compares: the file as a whole."""
    materials = read_materials(ROOT / MATERIALS, read_schema(ROOT / "config/schema.yaml"))
    assert dict(RECORDED) == {CONFIG: None, FAMILIES: None}

    def written(first: Study) -> str:
        studies = {CONFIG: first, FAMILIES: families}
        recorded = [Recorded(file, read_yaml(ROOT / file), jobs) for file, jobs in studies.items()]
        return dvc_yaml(recorded, materials)

    text = written(default)
    assert text == (ROOT / "dvc.yaml").read_text()
    assert written(Study(default.jobs[:-1], default.rules, default.complete)) != text


@pytest.mark.slow
def test_the_check_compares_and_writes_nothing(tmp_path):
    folder = new_checkout(tmp_path / "repo")
    shutil.copy(ROOT / ".dvcignore", folder)
    drifted = (ROOT / "dvc.yaml").read_text().replace("      - Snakefile\n", "", 1)
    (folder / "dvc.yaml").write_text(drifted)
    done = run_in(folder, sys.executable, "workflow/scripts/update_dvc.py", "--check")
    assert done.returncode == 1
    assert "error: dvc.yaml: out of date; run make dvc-stages" in done.stderr
    assert (folder / "dvc.yaml").read_text() == drifted


@pytest.mark.parametrize("prefix", ["results/default/", "results/ab/", "figures/x/", "figures/12/"])
def test_a_pattern_matches_exactly_the_paths_with_its_prefix(prefix):
    pattern = re.compile(base64_pattern(prefix))
    draw = random.Random(0)
    for _ in range(300):
        tail = "".join(draw.choice("abcXYZ/._-0189") for _ in range(draw.randint(1, 20)))
        inside, outside = prefix + tail, prefix[:-1] + draw.choice("ab-_2.") + "/" + tail
        assert pattern.match(base64.urlsafe_b64encode(inside.encode()).decode())
        assert not pattern.match(base64.urlsafe_b64encode(outside.encode()).decode())


def test_what_is_ignored_names_the_study():
    assert base64_pattern("results/mine/") in dvc_ignore(["results/mine/"])


OTHER = WRITTEN | {
    "study": "other",
    "models": {
        "one": WRITTEN["models"]["one"] | {"sizes": {"prompts": 2}},
        "two": WRITTEN["models"]["two"],
    },
}


def of_other() -> Study:
    """The made-up study under another name."""

    def renamed(path):
        return path.replace("/small/", "/other/")

    study = made_up(ablate=("text.prompts",))
    jobs = [
        Job(
            job.rule,
            job.phase,
            job.model,
            tuple(map(renamed, job.inputs)),
            job.code,
            {name: renamed(path) for name, path in job.outputs.items()},
            job.settings,
        )
        for job in study.jobs
    ]
    return Study(jobs, study.rules, tuple(map(renamed, study.complete)))


def recorded(models=None) -> list[Recorded]:
    return [
        Recorded(CONFIG, WRITTEN, made_up()),
        Recorded("config/other.yaml", OTHER, of_other(), models),
    ]


def test_a_second_study_has_stages_and_parameters_of_its_own():
    both = yaml.safe_load(dvc_yaml(recorded(), SHARED))
    alone = stages(made_up())
    phases = ("documents", "ablate", "figures")
    assert list(both["stages"]) == [*phases, *(f"other-{phase}" for phase in phases), "records"]
    assert {name: both["stages"][name] for name in phases} == {name: alone[name] for name in phases}
    ablate = both["stages"]["other-ablate"]["do"]
    assert "snakemake --configfile config/other.yaml --allowed-rules ablate" in ablate["cmd"]
    assert "-- ablate@${item} && " in ablate["cmd"]
    assert ablate["outs"] == [{"results/other/${item}/sweeps": {"persist": True}}]
    assert list(ablate["params"][0]) == ["config/other.yaml"]
    ends = both["stages"]["records"]["deps"]
    assert {"figures/small", "figures/other"} < set(ends)
    assert both["plots"] == ["figures/small/E1-x.png", "figures/other/E1-x.png"]


def test_sizes_of_a_model_are_parameters_of_what_reads_them():
    """Through the section around them that all models state; then a size that is added counts too."""
    written = yaml.safe_load(dvc_yaml(recorded(), SHARED))["stages"]
    params = written["other-ablate"]["do"]["params"][0]["config/other.yaml"]
    assert params == ["dtype", "models.${item}", "study", "sweep", "text.prompts"]
    sized = {key: each | {"sizes": {"prompts": 2}} for key, each in OTHER["models"].items()}
    study = [Recorded("config/other.yaml", OTHER | {"models": sized}, of_other())]
    params = yaml.safe_load(dvc_yaml(study, SHARED))["stages"]["other-ablate"]["do"]["params"]
    keys = params[0]["config/other.yaml"]
    assert {"models.${item}.member", "models.${item}.sizes"} < set(keys)


def test_some_models_are_recorded_without_what_is_of_all():
    written = yaml.safe_load(dvc_yaml(recorded(["one"]), SHARED))["stages"]
    assert [name for name in written if name.startswith("other")] == [
        "other-documents",
        "other-ablate",
    ]
    assert written["other-ablate"]["foreach"] == ["one"]
    assert "results/other/one/sweeps" in written["records"]["deps"]
    kept = records_kept(recorded(["one"]))
    assert kept == [
        *("results/small/", "figures/small/"),
        *("results/other/documents.parquet", "results/other/texts.json", "results/other/one/"),
    ]


def test_two_recorded_studies_of_one_name_are_refused():
    same = Recorded("config/other.yaml", WRITTEN, made_up())
    with pytest.raises(
        InputError, match=r"config/other\.yaml: another recorded study is called small"
    ):
        dvc_yaml([recorded()[0], same], SHARED)
