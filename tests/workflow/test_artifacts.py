"""Recorded results: pull them, trust them, and let Snakemake and DVC agree about what is current."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from checkouts import PARTS, ROOT, new_checkout, planned_rules, run_in

TRACKED = ("dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore")
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

    def outputs(self) -> set[str]:
        """Every result and figure."""
        files = [p for top in ("results", "figures") for p in (self.folder / top).rglob("*")]
        return {str(path.relative_to(self.folder)) for path in files if path.is_file()}

    def jobs(self) -> dict[str, int]:
        """When each job last ran: its log is written anew. (DVC itself rewrites what it tracks.)"""
        logs = (self.folder / "logs").rglob("*.log")
        return {str(path.relative_to(self.folder)): path.stat().st_mtime_ns for path in logs}

    def ran(self) -> set[str]:
        """Names of the logs of the jobs that ran here."""
        return {Path(name).stem for name in self.jobs()}

    def record(self) -> None:
        """What `make record` does."""
        self.run(sys.executable, "workflow/scripts/update_dvc.py")
        self.dvc("repro")
        self.dvc("push")
        self.dvc("gc", "--workspace", "--cloud", "--force")
        self.git("add", "-A")
        self.git("commit", "-qm", "record")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory, tiny_config: dict) -> Repository:
    """The study run with Snakemake, then recorded with DVC; do not change it."""
    folder = new_checkout(tmp_path_factory.mktemp("origin") / "repo")
    for name in TRACKED:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    config = {key: value for key, value in tiny_config.items() if key != "published"}
    # A number format whose error is measured: one job more, and it has its stage too.
    config |= {"seed": 0, "dtype": "bfloat16", "tf32": False}
    resample, zero = config["ablations"]["resample"], config["ablations"]["zero"]
    config["ablations"] = {"resample": resample, "mean": zero}
    config["sweep"] = {"prompts_per_shard": 20, "store": "float16"}
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
    repository = Repository(tmp_path / "clone")
    subprocess.run(["git", "clone", "-q", origin.folder, repository.folder], check=True)
    return repository


@pytest.fixture
def pulled(clone: Repository) -> Repository:
    clone.dvc("pull")
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
    assert pulled.outputs() == origin.outputs()
    assert pulled.clean()
    done = pulled.snakemake("--dry-run")
    assert "Nothing to be done" in done.stdout + done.stderr


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
    assert pulled.ran() == {"decompose"}


def test_a_single_stage_without_its_inputs_says_what_is_missing(clone):
    done = clone.dvc("repro", "--single-item", "tables@gpt2", ok=False)
    assert done.returncode != 0
    # DVC names the first file that is not there.
    assert "results/tiny/gpt2/clean.json" in done.stdout + done.stderr


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
        repository.dvc("pull")
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
    clone.dvc("pull")
    assert clone.clean()
    assert clone.planned() == set()


def test_a_read_only_checkout_of_the_artifacts_can_be_pulled_from(clone):
    for path in [*(clone.folder / "artifacts").rglob("*"), clone.folder / "artifacts"]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    clone.dvc("pull")
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
