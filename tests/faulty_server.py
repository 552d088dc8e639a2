"""A web server on this machine that does to its answers what networks and servers do."""

import re
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What `Faults.of` may name.
HANG = "hangs before the headers"
HANG_LATER = "hangs in the middle of the content"
CUT = "closes in the middle of the content"
MORE = "sends more than it has said"
WRONG = "sends other content of the same length"
BUSY = "429 with Retry-After"
UNAVAILABLE = "503"
RESET = "closes without an answer"


@dataclass
class Faults:
    """What happens to answers.

    of: pattern of addresses, and the faults of the first answers to them, one each; the last one for ever if
    `always`. asked: method and path of every request.
    """

    of: dict[str, list[str]] = field(default_factory=dict)
    always: bool = False
    asked: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def next(self, command: str, path: str) -> str | None:
        """The fault of this answer; of GET alone, as most clients ask for the headers first."""
        self.asked.append(f"{command} {path}")
        for pattern, left in self.of.items():
            if command == "GET" and left and re.search(pattern, path):
                return left[0] if self.always else left.pop(0)
        return None


class Faulty(BaseHTTPRequestHandler):
    """Handlers that answer through `reply`."""

    protocol_version = "HTTP/1.1"
    faults = Faults()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def reply(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        fault = self.faults.next(self.command, self.path)
        if fault in (HANG, RESET):
            self.close_connection = True
            if fault == HANG:
                self.faults.over.wait()
            return
        sent, length = content, len(content)
        if fault in (BUSY, UNAVAILABLE):
            status, sent, length = (429 if fault == BUSY else 503), b"", 0
            headers = {"Retry-After": "1"} if fault == BUSY else {}
        elif fault == WRONG:
            sent = bytes(255 - byte for byte in content)
        elif fault in (CUT, HANG_LATER):
            sent = content[: len(content) // 2]
        elif fault == MORE:
            sent = content + b"and more"
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)
        if fault == HANG_LATER:
            self.wfile.flush()
            self.faults.over.wait()
        if sent is not content:
            self.close_connection = True


class Files(Faulty):
    """Files of a folder; of a folder in it the page that an index of packages has."""

    folder: Path

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.folder / unquote(urlsplit(self.path).path).strip("/")
        if path.is_dir():
            links = "".join(f'<a href="{each.name}">{each.name}</a>' for each in path.iterdir())
            page = f"<!DOCTYPE html><html><body>{links}</body></html>"
            return self.reply(200, page.encode(), {"Content-Type": "text/html"})
        if not path.is_file():
            return self.reply(404, b"")
        return self.reply(200, path.read_bytes(), {"Content-Type": "application/octet-stream"})


@contextmanager
def serve(
    handler: type[Faulty], faults: Faults, *, certificate: Path | None = None, **bound: object
) -> Iterator[Faults]:
    """Serve at faults.address until the block ends.

    certificate: a folder for one that this server has signed itself; then over TLS.
    """
    own = type("Bound", (handler,), {"faults": faults, **bound})
    server = ThreadingHTTPServer(("127.0.0.1", 0), own)
    server.daemon_threads = True
    server.block_on_close = False
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self_signed(certificate))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    scheme = "https" if certificate else "http"
    faults.address = f"{scheme}://127.0.0.1:{server.server_port}"
    try:
        yield faults
    finally:
        faults.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that no authority vouches for, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
