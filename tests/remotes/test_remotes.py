"""Stores of other people: pushed to and pulled from real servers on loopback.

`make test-remotes` runs these; `make test` only the read-only HTTP store, which needs nothing more.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from checkouts import ROOT
from servers import free_port, needs, program, server

CONTENT = {"table.parquet": b"numbers " * 1000, "figures/e1.svg": b"<svg/>"}


class Project:
    """A small DVC project with the configuration of this repository and some tracked results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / ".dvc").mkdir(parents=True)
        shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
        self.run("git", "init", "-q")

    def run(self, *command: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=120
        )
        assert not ok or done.returncode == 0, done.stdout + done.stderr
        return done

    def dvc(self, *arguments: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "dvc", *arguments, ok=ok)

    def fill(self) -> None:
        for name, content in CONTENT.items():
            path = self.folder / "results" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.dvc("add", "results")

    def remote(self, address: str, **options: str) -> None:
        """As docs/artifacts.md says."""
        self.dvc("remote", "add", "--local", "--force", "lab", address)
        for key, value in options.items():
            self.dvc("remote", "modify", "--local", "lab", key, value)

    def content(self) -> dict[str, bytes]:
        results = self.folder / "results"
        files = [path for path in results.rglob("*") if path.is_file()]
        return {str(path.relative_to(results)): path.read_bytes() for path in files}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    filled = Project(tmp_path / "here")
    filled.fill()
    return filled


def elsewhere(project: Project, tmp_path: Path) -> Project:
    """Another checkout of the same project, nothing pulled."""
    other = Project(tmp_path / "there")
    shutil.copy(project.folder / "results.dvc", other.folder)
    return other


def push_and_pull(project: Project, tmp_path: Path, address: str, **options: str) -> None:
    project.remote(address, **options)
    project.dvc("push", "--remote", "lab")
    other = elsewhere(project, tmp_path)
    other.remote(address, **options)
    other.dvc("pull", "--remote", "lab")
    assert other.content() == CONTENT
    assert "up to date" in other.dvc("status").stdout


def test_a_read_only_http_store(project: Project, tmp_path: Path) -> None:
    store, port = tmp_path / "store", free_port()
    project.remote(str(store))
    project.dvc("push", "--remote", "lab")
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    with server(command, port, cwd=store):
        other = elsewhere(project, tmp_path)
        other.remote(f"http://127.0.0.1:{port}")
        other.dvc("pull", "--remote", "lab")
        assert other.content() == CONTENT
    shutil.rmtree(other.folder / "results")
    shutil.rmtree(other.folder / ".dvc/cache")
    done = other.dvc("pull", "--remote", "lab", ok=False)  # the server is gone
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


@pytest.mark.remotes
def test_an_s3_compatible_store(project: Project, tmp_path: Path) -> None:
    needs(modules=("moto", "flask", "dvc_s3"))
    import boto3

    port = free_port()
    address = f"http://127.0.0.1:{port}"
    keys = {"access_key_id": "key", "secret_access_key": "secret", "region": "us-east-1"}
    with server([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port):
        boto3.client(
            "s3",
            endpoint_url=address,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        ).create_bucket(Bucket="lab")
        push_and_pull(project, tmp_path, "s3://lab/selfrepair", endpointurl=address, **keys)


NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr;
{user}load_module modules/ngx_http_dav_ext_module.so;
events {{ worker_connections 64; }}
http {{
  access_log off; client_max_body_size 0; client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
  scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port}; root {folder}/data;
    auth_basic lab; auth_basic_user_file {folder}/users;
    dav_methods PUT DELETE MKCOL COPY MOVE; dav_ext_methods PROPFIND OPTIONS;
    create_full_put_path on; dav_access user:rw;
  }}
}}
"""


@pytest.mark.remotes
def test_a_webdav_store_on_nginx(project: Project, tmp_path: Path) -> None:
    needs("nginx", modules=("dvc_webdav",))
    module = Path("/usr/lib/nginx/modules/ngx_http_dav_ext_module.so")
    if not module.exists():
        pytest.skip("not installed: libnginx-mod-http-dav-ext")
    folder, port = tmp_path / "nginx", free_port()
    (folder / "data").mkdir(parents=True)
    (folder / "users").write_text("me:{PLAIN}secret\n")
    user = f"user {getpass.getuser()}; " if os.getuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(
        NGINX.format(folder=folder, port=port, user=user).replace(
            "modules/", "/usr/lib/nginx/modules/"
        )
    )
    with server(
        [str(program("nginx")), "-p", str(folder), "-c", str(config), "-e", "stderr"], port
    ):
        address = f"webdav://127.0.0.1:{port}"
        push_and_pull(project, tmp_path, address, user="me", password="secret")


@pytest.mark.remotes
def test_an_ssh_store(project: Project, tmp_path: Path, ssh_key: Callable[[str], Path]) -> None:
    needs("sshd", "ssh-keygen", modules=("dvc_ssh",))
    folder, port = tmp_path / "ssh", free_port()
    folder.mkdir()
    host, own = ssh_key("host"), ssh_key("own")
    keys = folder / "authorized_keys"
    keys.write_text(own.with_suffix(".pub").read_text())
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nAuthorizedKeysFile {keys}\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        f"Subsystem sftp internal-sftp\nPidFile {folder}/pid\n"
    )
    if os.getuid() == 0:  # where root's sshd separates its privileges
        Path("/run/sshd").mkdir(exist_ok=True)
    with server([str(program("sshd")), "-D", "-e", "-f", str(config)], port):
        address = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{folder}/store"
        push_and_pull(project, tmp_path, address, keyfile=str(own))


@pytest.fixture
def ssh_key(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        path = tmp_path / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
        return path

    return make
