"""Released tables are downloaded once, checked, and refused with the remedy."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import faulty_server
from faulty_server import Faults, Files, serve
from selfrepair.errors import InputError
from selfrepair.files import patience
from selfrepair.published import fetch as module
from selfrepair.published.fetch import fetch_table, table_file
from servers import needs

CONTENT_SHA256 = hashlib.sha256(b"content").hexdigest()


@pytest.fixture(autouse=True)
def no_proxy_and_no_waits(monkeypatch) -> None:
    for name in (
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(patience, "LONGEST_WAIT", 0.01)
    monkeypatch.setattr(module, "SILENCE", 0.2)


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def server(tmp_path: Path, faults: Faults) -> Iterator[tuple[str, Path, list[str]]]:
    """Address, folder and requests of a web server on loopback."""
    folder = tmp_path / "served"
    folder.mkdir()
    with serve(Files, faults, folder=folder):
        yield f"{faults.address}/", folder, faults.asked


def fetch_refusal(location: str | Path, cache: Path, digest: str = "0" * 64) -> str:
    with pytest.raises(InputError) as error:
        fetch_table(location, "t_condensed_x", sha256=digest, cache=cache)
    assert len(str(error.value).splitlines()) == 1
    assert not cache.exists() or not list(cache.iterdir())
    return str(error.value)


def test_a_file_in_a_folder_stays_there(tmp_path):
    (tmp_path / "t_condensed_x").write_bytes(b"1")
    for location in (tmp_path, str(tmp_path)):
        path = fetch_table(location, "t_condensed_x", sha256="0" * 64, cache=tmp_path / "cache")
        assert path == tmp_path / "t_condensed_x"
    assert not (tmp_path / "cache").exists()


def test_a_file_missing_from_a_folder_is_named(tmp_path):
    message = fetch_refusal(tmp_path / "away", tmp_path / "cache")
    assert message.startswith(f"{tmp_path / 'away'}: has no file t_condensed_x")


@pytest.mark.parametrize("file", ["", "..", "a/b", "../x", "a\\b"])
def test_only_names_of_files_are_fetched(tmp_path, file):
    with pytest.raises(InputError, match="is not the name of a file"):
        fetch_table(tmp_path, file, sha256="0" * 64, cache=tmp_path)


def test_a_file_is_downloaded_once(tmp_path, server):
    address, folder, requests = server
    (folder / "t_condensed_x").write_bytes(b"content")
    digest, cache = CONTENT_SHA256, tmp_path / "deep" / "cache"
    for _ in range(2):
        path = fetch_table(address, "t_condensed_x", sha256=digest, cache=cache)
        assert path == cache / "t_condensed_x"
        assert path.read_bytes() == b"content"
    assert requests == ["GET /t_condensed_x"]
    assert [p.name for p in cache.iterdir()] == ["t_condensed_x"]


def test_a_damaged_copy_is_replaced(tmp_path, server):
    address, folder, _ = server
    (folder / "t_condensed_x").write_bytes(b"content")
    (tmp_path / "t_condensed_x").write_bytes(b"damaged")
    path = fetch_table(address, "t_condensed_x", sha256=CONTENT_SHA256, cache=tmp_path)
    assert path.read_bytes() == b"content"


def test_another_checksum_leaves_nothing_in_the_cache(tmp_path, server):
    address, folder, _ = server
    (folder / "t_condensed_x").write_bytes(b"content")
    message = fetch_refusal(address, tmp_path / "cache")
    assert message.startswith(f"{address}t_condensed_x: SHA-256 is {CONTENT_SHA256}")
    assert "0" * 64 in message


def test_a_file_that_the_server_does_not_have(tmp_path, server):
    message = fetch_refusal(server[0], tmp_path / "cache")
    assert message.startswith(f"{server[0]}t_condensed_x: cannot be downloaded (HTTP Error 404")


def test_a_server_that_does_not_answer(tmp_path, server):
    # Bound to nothing: the discard port of loopback.
    message = fetch_refusal("http://127.0.0.1:9", tmp_path / "cache")
    assert message.startswith("http://127.0.0.1:9/t_condensed_x: cannot be downloaded")
    assert "refused" in message


def test_a_long_answer_is_cut_off(tmp_path, server):
    address, folder, _ = server
    (folder / "t_condensed_x").write_bytes(bytes(module.MOST_BYTES + 1))
    assert "more than 1,048,576 bytes" in fetch_refusal(address, tmp_path / "cache")


@pytest.mark.parametrize(
    "fault",
    [
        *(faulty_server.HANG, faulty_server.HANG_LATER, faulty_server.CUT, faulty_server.RESET),
        *(faulty_server.BUSY, faulty_server.UNAVAILABLE),
    ],
)
@pytest.mark.parametrize("always", [False, True])
def test_what_networks_and_servers_do(tmp_path, server, faults, fault, always):
    """Twice, and the third answer is right; or always: then it is refused in one line after four tries."""
    address, folder, requests = server
    (folder / "t_condensed_x").write_bytes(b"content")
    faults.of, faults.always = {"x$": [fault, fault]}, always
    if always:
        message = fetch_refusal(address, tmp_path / "cache", CONTENT_SHA256)
        assert message.startswith(f"{address}t_condensed_x: cannot be downloaded (")
        assert message.endswith("or put the files into a folder and give that")
    else:
        path = fetch_table(address, "t_condensed_x", sha256=CONTENT_SHA256, cache=tmp_path / "c")
        assert path.read_bytes() == b"content"
    assert len(requests) == (4 if always else 3)


@pytest.mark.parametrize("fault", [faulty_server.WRONG, faulty_server.MORE])
def test_what_is_more_or_other_than_pinned_is_never_kept(tmp_path, server, faults, fault):
    address, folder, _ = server
    (folder / "t_condensed_x").write_bytes(b"content")
    faults.of = {"x$": [fault]}
    if fault == faulty_server.WRONG:
        message = fetch_refusal(address, tmp_path / "cache", CONTENT_SHA256)
        assert message.startswith(f"{address}t_condensed_x: SHA-256 is ")
    path = fetch_table(address, "t_condensed_x", sha256=CONTENT_SHA256, cache=tmp_path / "cache")
    assert path.read_bytes() == b"content"  # what is said to be the length, and no more


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(tmp_path, faults):
    needs("openssl")
    with serve(Files, faults, certificate=tmp_path, folder=tmp_path):
        message = fetch_refusal(faults.address, tmp_path / "cache")
    assert "CERTIFICATE_VERIFY_FAILED" in message
    assert faults.asked == []


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/x", "file:///tmp", "http://[bad/x"])
def test_other_addresses_are_refused(tmp_path, location):
    assert fetch_refusal(location, tmp_path / "cache").startswith(f"{location}/t_condensed_x: ")


def test_file_names():
    assert table_file("gpt2-small", "logit_diff") == "gpt2-small_condensed_logit_diff"
    with pytest.raises(InputError, match="'self_repair' is no released quantity; take one of"):
        table_file("gpt2-small", "self_repair")


def test_fetching_loads_no_torch():
    code = "import sys, selfrepair.published.fetch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
