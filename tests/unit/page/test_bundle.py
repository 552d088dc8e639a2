"""The committed bundle is that of the committed sources."""

import base64
import hashlib
import re
import shutil
import subprocess

import pytest

from page_study import BUNDLE, ROOT

PAGE = ROOT / "workflow/page"


def sources_hash() -> str:
    """As `bundle.mjs` computes it."""
    names = [f"src/{path.name}" for path in sorted((PAGE / "src").iterdir())]
    digest = hashlib.sha256()
    for name in [*names, "bundle.mjs", "package-lock.json"]:
        digest.update(f"{name}\n{(PAGE / name).read_text(encoding='utf-8')}\n".encode())
    return digest.hexdigest()


def test_the_bundle_was_made_from_these_sources():
    found = re.search(r"built from sources (\w+)", BUNDLE.read_text(encoding="utf-8"))
    assert found
    assert found[1] == sources_hash(), "workflow/page has changed: run make page-bundle"


def test_only_the_bundle_s_own_script_may_run():
    text = BUNDLE.read_text(encoding="utf-8")
    script = text.split("<script>")[-1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}' 'unsafe-eval'" in text
    assert "default-src 'none'" in text


def test_the_lock_file_names_no_registry():
    assert '"resolved"' not in (PAGE / "package-lock.json").read_text()


def test_bundling_again_gives_the_same_file(tmp_path):
    if not shutil.which("node"):
        pytest.skip("needs node")
    if not (PAGE / "node_modules/esbuild").is_dir():
        pytest.skip("needs workflow/page/node_modules: make page-bundle")
    before = BUNDLE.read_bytes()
    folder = tmp_path / "page"
    shutil.copytree(PAGE, folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (folder / "dist").mkdir()
    (folder / "node_modules").symlink_to(PAGE / "node_modules")
    subprocess.run(["node", "bundle.mjs"], cwd=folder, check=True)
    assert (folder / "dist/page.html").read_bytes() == before
