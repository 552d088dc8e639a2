"""dvc.yaml and .dvcignore agree with the code and the config; a study's records are told apart."""

import base64
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "workflow/scripts"))

from update_dvc import STAGES, base64_pattern, ignored, updated  # noqa: E402

TEXT = (ROOT / "dvc.yaml").read_text()


def test_what_is_written_is_current():
    done = subprocess.run(
        [sys.executable, str(ROOT / "workflow/scripts/update_dvc.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert updated(TEXT, ["smollm2"]) == TEXT


def test_every_model_of_the_config_is_among_the_dependencies_of_the_figures():
    text = updated(TEXT, ["smollm2", "another"])
    figures = text[text.index("  figures:") :]
    assert "- results/${study}/another/heads.parquet" in figures
    assert figures.count("/another/") == figures.count("/smollm2/") > 10
    assert updated(text, ["smollm2"]) == TEXT


def test_a_module_that_is_no_longer_listed_is_noticed():
    line = "        - workflow/selfrepair/replay.py\n"
    assert TEXT.count(line) == 3  # clean, ablate, experiments
    assert updated(TEXT.replace(line, ""), ["smollm2"]) == TEXT


def test_every_stage_is_written():
    stages = re.findall(r"^  ([a-z]+):$", TEXT.split("stages:")[1].split("plots:")[0], re.M)
    assert stages == list(STAGES)


@pytest.mark.parametrize("prefix", ["results/default/", "results/ab/", "figures/x/", "figures/12/"])
def test_a_pattern_matches_exactly_the_paths_with_its_prefix(prefix):
    pattern = re.compile(base64_pattern(prefix))
    draw = random.Random(0)
    for _ in range(300):
        tail = "".join(draw.choice("abcXYZ/._-0189") for _ in range(draw.randint(1, 20)))
        inside, outside = prefix + tail, prefix[:-1] + draw.choice("ab-_2.") + "/" + tail
        assert pattern.match(base64.urlsafe_b64encode(inside.encode()).decode())
        assert not pattern.match(base64.urlsafe_b64encode(outside.encode()).decode())


def test_ignored_names_the_study():
    assert base64_pattern("results/mine/") in ignored("mine")
