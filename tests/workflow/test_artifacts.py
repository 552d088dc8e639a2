"""Recorded results: pull them, trust them, and let Snakemake and DVC agree about what is current."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from checkouts import PARTS, ROOT, made_in, new_checkout, planned_rules, run_in
from damage import flip

TRACKED = ("Makefile", "dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore")
SECOND = "config/two.yaml"
IDENTITY = ["-c", "user.name=test", "-c", "user.email=test@localhost"]


@dataclass
class Repository:
    """A git repository with the workflow, a tiny study as its default, and a bundled store."""

    folder: Path

    def run(
        self, *command: str, ok: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        done = run_in(self.folder, *command, **environment)
        assert not ok or done.returncode == 0, done.stdout + done.stderr
        return done

    def dvc(self, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "dvc", *arguments, **options)

    def git(self, *arguments: str) -> str:
        return self.run("git", *IDENTITY, *arguments).stdout.strip()

    def snakemake(self, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "snakemake", *arguments, **options)

    def planned(self) -> set[str]:
        """Rules that a dry run would run."""
        return planned_rules(self.snakemake("--dry-run", "--quiet", "rules"))

    def clean(self) -> bool:
        """Whether DVC finds every output, dependency and parameter as recorded."""
        return json.loads(self.dvc("status", "--json").stdout) == {}

    def change_config(self, **changes) -> None:
        path = self.folder / "config/config.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))

    def outputs(self, *, kept: bool = True) -> set[str]:
        """Every result and figure; kept: that the store has."""
        files = [path for path in made_in(self.folder) if path.is_file()]
        names = {str(path.relative_to(self.folder)) for path in files}
        return {name for name in names if not kept or self.keeps(name)}

    @staticmethod
    def keeps(name: str) -> bool:
        """Whether the store has a result: not the tensors of shards, nor the second study's top tokens."""
        top_tokens = name.startswith("results/tiny-two/") and name.endswith("/clean.safetensors")
        return not top_tokens and not ("/shard-" in name and name.endswith(".safetensors"))

    def jobs(self) -> dict[str, int]:
        """When each job last ran: its log is written anew. (DVC itself rewrites what it tracks.)"""
        logs = (self.folder / "logs").rglob("*.log")
        return {str(path.relative_to(self.folder)): path.stat().st_mtime_ns for path in logs}

    def ran(self) -> set[str]:
        """Names of the logs of the jobs that ran here."""
        return {Path(name).stem for name in self.jobs()}

    def make(self, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
        """Make with this Python's programs in place of those of a .venv of its own."""
        programs = f"BIN={Path(sys.executable).parent}"
        return self.run("make", "--old-file", ".venv/ready", programs, *arguments, **options)

    def record(self, *which: str) -> None:
        """Record a study or all, and commit."""
        self.make("record", *which)
        self.git("add", "-A")
        self.git("commit", "-qm", "record")

    def list_second(self, models: list[str] | None) -> None:
        """Add a study to those that are recorded, and name the models of it that are."""
        path = self.folder / "workflow/scripts/common/recorded.py"
        lines = [x for x in path.read_text().splitlines() if not x.startswith(f'    "{SECOND}"')]
        at = lines.index("    DEFAULT: None,") + 1
        lines.insert(at, f'    "{SECOND}": {models},')
        text = "\n".join(lines) + "\n"
        path.write_text(text.replace("config/families.yaml", SECOND))

    def nothing_to_do(self, *arguments: str) -> bool:
        done = self.snakemake("--dry-run", *arguments)
        return "Nothing to be done" in done.stdout + done.stderr

    def cloned(self, folder: Path) -> Repository:
        subprocess.run(["git", "clone", "-q", self.folder, folder], check=True)
        return Repository(folder)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory, tiny_config: dict) -> Repository:
    """The study run with Snakemake, then recorded with DVC; do not change it."""
    folder = new_checkout(tmp_path_factory.mktemp("origin") / "repo")
    for name in TRACKED:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    # Of the recorded studies the first alone, which is tiny here: the others are real.
    listed = folder / "workflow/scripts/common/recorded.py"
    listed.write_text(re.sub(r'(?m)^    "config/.*\.yaml": .*,\n', "", listed.read_text()))
    config = {key: value for key, value in tiny_config.items() if key != "published"}
    # A number format whose error is measured: one job more, and it has its stage too.
    config |= {"seed": 0, "dtype": "bfloat16", "tf32": False}
    resample, zero = config["ablations"]["resample"], config["ablations"]["zero"]
    config["ablations"] = {"resample": resample, "mean": zero}
    config["sweep"] = {"prompts_per_shard": 20, "store": "float16"}
    config["figures"] = {"formats": ["html", "svg", "png", "pdf"]}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config))
    repository = Repository(folder)
    repository.git("init", "-q", "-b", "main")
    repository.git("add", "-A")
    repository.git("commit", "-qm", "study")
    repository.snakemake("--cores", "2")
    before = repository.jobs()
    assert len(before) > 25
    repository.record()
    assert repository.jobs() == before, "recording recomputed something"
    return repository


@pytest.fixture
def clone(origin: Repository, tmp_path: Path) -> Repository:
    """A fresh clone, nothing pulled."""
    return origin.cloned(tmp_path / "clone")


@pytest.fixture
def pulled(clone: Repository) -> Repository:
    clone.make("pull")
    return clone


def test_recording_a_finished_study_leaves_both_tools_content(origin):
    assert origin.clean()
    assert origin.planned() == set()
    assert origin.git("status", "--porcelain") == ""


def test_a_cheaper_number_format_is_compared_with_float32(origin):
    folder = origin.folder / "results/tiny/gpt2"
    measured = json.loads((folder / "precision.json").read_text())
    assert measured["dtype"] == "bfloat16"
    repair = measured["differences_from_float32"]["self_repair"]
    assert 1e-4 < repair["mean"] < repair["largest"] < 1
    for path in ("sweeps/mean/shard-0of1.json", "experiments/neurons/shard-0of1.json"):
        provenance = json.loads((folder / path).read_text())
        assert provenance["dtype"] == "bfloat16"
        assert provenance["precision_error"] == repair["largest"]
    assert json.loads((folder / "heads.json").read_text())["precision_error"] == repair["largest"]


def test_a_pull_brings_everything_and_leaves_nothing_to_do(origin, pulled):
    assert pulled.outputs(kept=False) == origin.outputs() < origin.outputs(kept=False)
    assert pulled.clean()
    done = pulled.snakemake("--dry-run")
    assert "Nothing to be done" in done.stdout + done.stderr


def test_records_that_dvc_alone_has_pulled_are_unpacked_by_whatever_reads_them(clone):
    clone.dvc("pull")
    assert clone.nothing_to_do()
    assert clone.clean()


def test_damaged_records_are_refused_in_one_line(clone):
    """By Snakemake, by make study, by make verify, and by recording, which would lose them."""
    clone.dvc("pull")
    archive = clone.folder / ".snakemake/records.tar.xz"
    archive.chmod(0o644)
    flip(archive)
    dry_run = clone.snakemake("--dry-run", ok=False)
    others = [clone.make(command, ok=False) for command in ("verify", "pull", "record")]
    study = clone.run(
        *(sys.executable, "workflow/scripts/study.py", "config/config.yaml", "profiles/default"),
        ok=False,
    )
    for done in (dry_run, study, *others):
        assert done.returncode != 0
        (line,) = [x for x in done.stderr.splitlines() if "records.tar.xz: cannot be read" in x]
        assert line.endswith("delete it, and `make pull` gets it again")
        assert "Traceback" not in done.stderr
    archive.unlink()
    clone.make("pull")
    assert clone.clean()
    assert clone.nothing_to_do()


def test_metrics_plots_parameters_and_graph_tell_something(pulled, origin):
    metrics = json.loads(pulled.dvc("metrics", "show", "--json").stdout)[""]["data"]
    claims = metrics["results/tiny/claims.json"]["data"]["Tiny GPT-2"]
    assert isinstance(claims["later_layers_repair"]["value"], float)
    headline = metrics["results/tiny/headline.json"]["data"]["Tiny GPT-2"]
    assert isinstance(headline["second half"]["self_repair"], float)
    page = pulled.dvc("plots", "show", "--out", "plots").stdout.strip()
    text = Path(page.removeprefix("file://")).read_text()
    assert "E1-self-repair-by-depth" in text
    assert "E5-norm-share-by-depth" in text
    assert "ablate@gpt2" in pulled.dvc("dag").stdout
    pulled.change_config(statistics={"resamples": 1200})
    diff = json.loads(pulled.dvc("params", "diff", "--json").stdout)
    assert diff["config/config.yaml"]["statistics.resamples"]["new"] == 1200


def test_a_config_value_re_runs_what_depends_on_it(pulled):
    pulled.change_config(statistics={"resamples": 1200})
    planned = pulled.planned()
    assert {"decompose", "tabulate_neurons", "judge_claims", "draw_E1"} <= planned
    assert not planned & {"clean_pass", "ablate_resample", "measure_neurons", "gather_sweep"}
    status = json.loads(pulled.dvc("status", "--json").stdout)
    assert set(status) == {"tables@gpt2"}


def test_tables_are_made_anew_from_packed_shards(pulled, origin):
    pulled.change_config(statistics={"resamples": 1200})
    pulled.dvc("repro", "tables@gpt2")
    made = {
        "decompose",
        "tabulate_tokens",
        "tabulate_neurons",
        "tabulate_iterative",
        "tabulate_pairs",
        "tabulate_compared",
        "tabulate_narrow",
    }
    assert pulled.ran() == made
    shards = pulled.outputs(kept=False) - pulled.outputs()
    assert {path.split("/")[3] for path in shards} == {"sweeps", "experiments"}
    for path in shards:
        assert (pulled.folder / path).read_bytes() == (origin.folder / path).read_bytes()
    # They are as old as their index: nothing is to be measured, or made of them again.
    assert not pulled.planned() & {"clean_pass", "gather_sweep", *made}
    pulled.change_config(statistics={"resamples": 1000})
    pulled.dvc("repro")
    assert pulled.clean()
    assert pulled.planned() == set()


def test_other_drawn_tokens_need_no_clean_pass(pulled):
    config = yaml.safe_load((pulled.folder / "config/config.yaml").read_text())
    config["ablations"]["mean"]["tokens_per_head"] = 1
    pulled.change_config(ablations=config["ablations"])
    planned = pulled.planned()
    assert {"draw_tokens_mean", "ablate_mean", "gather_sweep", "decompose"} <= planned
    assert not planned & {"clean_pass", "rank_tokens", "ablate_resample", "measure_neurons"}
    pulled.dvc("repro")
    ran = pulled.ran()
    assert "draw_tokens_mean" in ran
    assert not ran & {"rank_tokens", "draw_tokens_resample"}
    assert not (pulled.folder / "results/tiny/gpt2/clean/shard-0of2.safetensors").exists()
    assert pulled.clean()
    assert pulled.planned() == set()


def test_another_ranking_needs_the_clean_pass(pulled):
    pulled.change_config(clean={"prompts_per_shard": 16, "candidate_share": 0.3})
    assert {"clean_pass", "rank_tokens", "ablate_mean"} <= pulled.planned()
    script = pulled.folder / "workflow/scripts/rank_tokens.py"
    pulled.change_config(clean={"prompts_per_shard": 16, "candidate_share": 0.2})
    assert pulled.planned() == set()
    script.write_text(script.read_text() + "\n# A change.\n")
    assert {"clean_pass", "rank_tokens", "ablate_mean"} <= pulled.planned()


def test_editing_the_figures_re_runs_no_sweep_in_either_tool(pulled):
    module = pulled.folder / "workflow/selfrepair/figures/rows.py"
    module.write_text(module.read_text() + "\n# A change.\n")
    assert {rule.split("_")[0] for rule in pulled.planned()} == {"draw"}
    assert set(json.loads(pulled.dvc("status", "--json").stdout)) == {"figures"}
    planned = pulled.planned()
    pulled.dvc("repro")
    assert pulled.ran() == planned
    assert pulled.clean()


def test_editing_a_measurement_re_runs_it_and_what_follows(pulled):
    script = pulled.folder / "workflow/scripts/measure_neurons.py"
    script.write_text(script.read_text() + "\n# A change.\n")
    planned = pulled.planned()
    assert {"measure_neurons", "gather_experiment", "tabulate_neurons"} <= planned
    assert not planned & {"clean_pass", "ablate_resample", "decompose", "measure_iterative"}
    assert set(json.loads(pulled.dvc("status", "--json").stdout)) == {"experiments@gpt2"}


def test_deleting_a_figure_makes_only_that_figure(pulled):
    (pulled.folder / "figures/tiny/E1-self-repair-by-depth.svg").unlink()
    assert pulled.planned() == {"draw_E1"}


def test_the_whole_study_is_reproduced_stage_by_stage(clone, origin):
    clone.dvc("repro")
    assert clone.outputs() == origin.outputs()
    assert clone.planned() == set()
    claims = "results/tiny/claims.json"
    before, after = (json.loads((r.folder / claims).read_text()) for r in (origin, clone))
    assert before == after


def test_one_stage_alone(pulled):
    pulled.dvc("repro", "--single-item", "--force", "ablate@gpt2")
    assert pulled.jobs() == {}  # current, so Snakemake does nothing
    force = {"SNAKEMAKE_ARGS": "--forcerun decompose"}
    pulled.dvc("repro", "--single-item", "--force", "tables@gpt2", **force)
    assert pulled.ran() == {"decompose", "tabulate_narrow"}  # which reads the table of heads


def test_a_single_stage_without_its_inputs_says_what_is_missing(clone):
    done = clone.dvc("repro", "--single-item", "tables@gpt2", ok=False)
    assert done.returncode != 0
    # DVC names the first file that is not there.
    assert "results/tiny/gpt2/agreement.json" in done.stdout + done.stderr


def test_an_older_revision_is_clean_in_both_tools(origin, tmp_path):
    shutil.copytree(origin.folder, tmp_path / "repo", symlinks=True)
    repository = Repository(tmp_path / "repo")
    first = repository.git("rev-parse", "HEAD")
    old = repository.outputs()
    repository.change_config(statistics={"resamples": 1200})
    script = repository.folder / "workflow/scripts/gather.py"  # its outputs stay what they are
    script.write_text(script.read_text() + "\n# A change.\n")
    repository.snakemake("--cores", "2")
    repository.record()
    assert repository.clean()
    second = repository.git("rev-parse", "HEAD")
    for revision in (first, second):
        repository.git("checkout", "-q", revision)
        repository.make("pull")
        assert repository.clean(), revision
        assert repository.planned() == set(), revision
        assert repository.outputs() == old


def test_old_versions_do_not_pile_up_in_the_store(origin, tmp_path):
    shutil.copytree(origin.folder, tmp_path / "repo", symlinks=True)
    repository = Repository(tmp_path / "repo")

    def stored() -> int:
        return sum(path.is_file() for path in (repository.folder / "artifacts").rglob("*"))

    before = stored()
    script = repository.folder / "workflow/scripts/judge_claims.py"
    script.write_text(script.read_text() + "\n# A change.\n")
    repository.record()
    assert stored() == before


def test_two_studies_side_by_side_do_not_disturb_each_other(pulled):
    other = yaml.safe_load((pulled.folder / "config/config.yaml").read_text())
    other |= {"study": "tiny-two", "seed": 1}
    (pulled.folder / "config/two.yaml").write_text(yaml.safe_dump(other))
    target = "results/tiny-two/gpt2/clean.safetensors"
    pulled.snakemake("--cores", "2", "--configfile", "config/two.yaml", "--", target)
    assert (pulled.folder / target).exists()
    assert pulled.clean()
    assert pulled.planned() == set()
    pulled.dvc("checkout", "--force")
    assert (pulled.folder / target).exists()
    done = pulled.snakemake("-n", "--configfile", "config/two.yaml", "--", target)
    assert "Nothing to be done" in done.stdout + done.stderr


@pytest.fixture(scope="module")
def one_model_of_two(origin: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A second study beside the first, one of its two models measured and recorded; do not change it."""
    folder = tmp_path_factory.mktemp("two") / "repo"
    shutil.copytree(origin.folder, folder, symlinks=True)
    repository = Repository(folder)
    second = yaml.safe_load((folder / "config/config.yaml").read_text())
    sizes = {"prompts": 20, "ablations": {"resample": {"prompts": 12, "tokens_per_head": 3}}}
    small = second["models"]["gpt2"] | {"title": "Small", "sizes": sizes}
    second |= {"study": "tiny-two", "seed": 1, "dtype": "float32"}
    second["figures"] = {"formats": ["html", "png"]}
    second["models"] = second["models"] | {"small": small}
    (folder / SECOND).write_text(yaml.safe_dump(second))
    repository.snakemake(
        "--cores", "2", "--configfile", SECOND, "--", "clean@small", "tables@small"
    )
    before = repository.jobs()
    repository.list_second(["small"])
    repository.record(f"CONFIG={SECOND}", "MODEL=small")
    assert repository.jobs() == before, "recording recomputed something"
    return repository


def test_a_model_is_recorded_before_its_study_is_finished(one_model_of_two, tmp_path):
    assert one_model_of_two.clean()
    clone = one_model_of_two.cloned(tmp_path / "clone")
    clone.make("pull")
    assert clone.clean()
    assert clone.outputs() == one_model_of_two.outputs()
    assert clone.nothing_to_do()
    assert clone.nothing_to_do("--configfile", SECOND, "--", "tables@small")
    planned = planned_rules(
        clone.snakemake(
            "--dry-run", "--quiet", "rules", "--configfile", SECOND, "--", "tables@gpt2"
        )
    )
    assert {"cut_prompts", "ablate_resample"} <= planned
    assert "sample_documents" not in planned


def test_sizes_of_a_model_hold_for_it_alone(one_model_of_two):
    results = one_model_of_two.folder / "results/tiny-two/small"
    clean = json.loads((results / "clean.json").read_text())
    assert clean["prompts"] == [0, 20]
    sweep = json.loads((results / "sweeps/resample/shard-0of1.json").read_text())
    assert sweep["prompts"] == [0, 12]


def test_two_studies_are_recorded_and_pulled_together_or_alone(one_model_of_two, tmp_path):
    shutil.copytree(one_model_of_two.folder, tmp_path / "repo", symlinks=True)
    repository = Repository(tmp_path / "repo")
    repository.snakemake("--cores", "2", "--configfile", SECOND)
    before = repository.jobs()
    repository.list_second(None)
    repository.record(f"CONFIG={SECOND}")
    assert repository.jobs() == before, "recording recomputed something"
    assert repository.clean()

    both = repository.cloned(tmp_path / "both")
    both.make("pull")
    assert both.outputs() == repository.outputs()
    endings = {path.partition(".")[2] for path in both.outputs() if "figures/tiny-two" in path}
    assert endings == {"html", "png", "js"}
    assert both.clean()
    assert both.nothing_to_do()
    assert both.nothing_to_do("--configfile", SECOND)

    # Top tokens are not kept of this study: nothing wants them until a sweep has to run.
    assert not (both.folder / "results/tiny-two/small/clean.safetensors").exists()
    assert both.nothing_to_do("--configfile", SECOND, "--", "clean@small")

    second = repository.cloned(tmp_path / "second")
    second.make("pull", f"CONFIG={SECOND}")
    assert {path.split("/")[1] for path in second.outputs()} == {"tiny-two"}
    assert second.nothing_to_do("--configfile", SECOND)

    model = repository.cloned(tmp_path / "model")
    model.make("pull", f"CONFIG={SECOND}", "MODEL=gpt2")
    assert {path.split("/")[2] for path in model.outputs()} == {"documents.parquet", "gpt2"}
    assert model.nothing_to_do("--configfile", SECOND, "--", "tables@gpt2")
    # What is not here cannot be recorded: it would forget how the rest was made.
    done = model.make("record", f"CONFIG={SECOND}", "MODEL=gpt2", ok=False)
    assert done.returncode != 0
    assert "figures/tiny" in done.stdout + done.stderr

    # A changed size re-runs what depends on it, of its model alone.
    config = yaml.safe_load((both.folder / SECOND).read_text())
    config["models"]["small"]["sizes"]["ablations"]["resample"]["tokens_per_head"] = 2
    (both.folder / SECOND).write_text(yaml.safe_dump(config))
    quiet = ("--dry-run", "--quiet", "rules", "--configfile", SECOND, "--")
    assert planned_rules(both.snakemake(*quiet, "tables@gpt2")) == set()
    assert "draw_tokens_resample" in planned_rules(both.snakemake(*quiet, "tables@small"))
    assert both.nothing_to_do()
    assert "tiny-two-ablate@small" in json.loads(both.dvc("status", "--json").stdout)
    both.dvc("repro", "tiny-two-ablate@small")
    assert {"rank_tokens", "draw_tokens_resample"} <= both.ran()
    assert not {name for name in both.jobs() if "gpt2" in name}
    made_again, before = (
        (each.folder / "results/tiny-two/small/clean.safetensors").read_bytes()
        for each in (both, repository)
    )
    assert made_again == before


def test_what_is_not_recorded_is_said_in_one_line(clone):
    for asked, line in [
        (["CONFIG=config/paper.yaml"], "error: config/paper.yaml: is not recorded; recorded are"),
        (["MODEL=llama"], "error: config/config.yaml: llama is not recorded of it"),
    ]:
        done = clone.make("pull", *asked, ok=False)
        assert done.returncode != 0
        assert line in done.stderr


def test_an_unreachable_remote_fails_fast_in_one_line(clone):
    clone.dvc("remote", "add", "--local", "gone", "https://localhost:9/nothing")
    start = time.monotonic()
    done = clone.dvc("pull", "--remote", "gone", ok=False)
    assert done.returncode != 0
    assert time.monotonic() - start < 60
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("ERROR")]


def test_a_damaged_file_of_the_store_is_found_by_its_hash(clone):
    store = clone.folder / "artifacts/files/md5"
    largest = max((p for p in store.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.chmod(0o644)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 255
    largest.write_bytes(content)
    done = clone.dvc("pull", ok=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    files = [path for path in clone.folder.glob("results/**/*") if path.is_file()]
    assert not [path for path in files if path.read_bytes() == bytes(content)]


def test_a_damaged_file_of_the_cache_is_fetched_again(pulled):
    cache = pulled.folder / ".dvc/cache/files/md5"
    largest = max((p for p in cache.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    good = largest.read_bytes()
    largest.chmod(0o644)
    largest.write_bytes(good[:-4] + b"\0\0\0\1")
    shutil.rmtree(pulled.folder / "results")
    pulled.dvc("pull")
    assert pulled.clean()
    assert largest.read_bytes() == good


def test_a_half_finished_pull_is_finished_by_the_next(clone):
    clone.dvc("pull", "documents", "clean@gpt2")
    assert (clone.folder / "results/tiny/gpt2/clean.safetensors").exists()
    assert not (clone.folder / "results/tiny/gpt2/heads.parquet").exists()
    clone.make("pull")
    assert clone.clean()
    assert clone.planned() == set()


def test_a_read_only_checkout_of_the_artifacts_can_be_pulled_from(clone):
    for path in [*(clone.folder / "artifacts").rglob("*"), clone.folder / "artifacts"]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    clone.make("pull")
    assert clone.clean()
    for path in [clone.folder / "artifacts", *(clone.folder / "artifacts").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_adding_a_model_adds_its_stages(clone):
    config = yaml.safe_load((clone.folder / "config/config.yaml").read_text())
    second = config["models"]["gpt2"] | {"title": "Second"}
    clone.change_config(models=config["models"] | {"second": second})
    clone.run(sys.executable, "workflow/scripts/update_dvc.py")
    listed = clone.dvc("stage", "list", "--name-only").stdout.split()
    assert {"clean@second", "ablate@second", "experiments@second", "tables@second"} <= set(listed)
    assert "results/tiny/second/heads.parquet" in clone.dvc("dag", "--md", "--outs").stdout


def test_the_checkouts_of_these_tests_have_all_parts():
    assert all((ROOT / part).exists() for part in (*PARTS, *TRACKED))
