"""Run a script in a fork of the run's server (`fork_server`): `fork_client.py NAME python script.py`.

What stands after the name is run as it is where there is no server, or it answers nothing: the only difference is
time. Started without `site` and with few imports, as it starts once for every job.
"""

import os
import signal
import socket
import sys

# Seconds; the server imports its libraries before it answers anyone.
PATIENCE = 120


def status_of(name: str, script: str) -> int | None:
    """The exit status of a script that the server has run; None: it has not run it."""
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(PATIENCE)
        try:
            server.connect(f"\0{name}")
            if peer(server) != os.getuid() or server.recv(6) != b"ready\n":
                return None
        except OSError:
            return None
        server.settimeout(None)
        # From here on it is the job that a terminal's Ctrl-C ends.
        interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)
        import json

        environment = {text(name): text(value) for name, value in os.environb.items() if name}
        folder, path = text(os.getcwdb()), text(os.fsencode(script))
        asked = {"script": path, "folder": folder, "environment": environment}
        message = json.dumps(asked).encode() + b"\n"
        sent = socket.send_fds(server, [message], [0, 1, 2])
        server.sendall(message[sent:])
        told = server.makefile().readline().strip()
    if told == "none":
        signal.signal(signal.SIGINT, interrupted)
        return None
    # Nothing: the keeper was killed, and its job with it.
    return int(told) if told else 1


def has_its_files() -> bool:
    """Whether standard input, output and error are there to be handed on."""
    try:
        return all(os.fstat(number) for number in (0, 1, 2))
    except OSError:
        return False


def text(value: bytes) -> str:
    """Bytes as JSON can carry them, whatever their encoding."""
    return value.decode("latin-1")


def peer(connection: socket.socket) -> int:
    """The user at the other end."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder)


def main(name: str, *command: str) -> None:
    """End as the command does, which is Python and a script, or any other."""
    is_script = len(command) == 2 and command[0] == sys.executable
    status = status_of(name, command[1]) if is_script and has_its_files() else None
    if status is None:
        os.execvp(command[0], command)
    if status < 0:  # a signal: ends as its process did
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
