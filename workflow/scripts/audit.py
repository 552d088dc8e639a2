"""Ask which pinned packages have known vulnerabilities: `audit.py constraints.txt`.

pip-audit is taken from the package index into a folder of its own and asks PyPI's database, then OSV. Neither is
part of the package index, so behind a mirror of it there may be none to ask: then a line says so.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "2.10.1"
# Seconds that asking one database may take.
PATIENCE = 120


def main(pins):
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(
            [sys.executable, "-m", "venv", folder], capture_output=True, text=True, check=False
        )
        python = str(Path(folder, "bin/python"))
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if made.returncode == 0:
            made = subprocess.run(
                [*install, f"pip-audit=={VERSION}"], capture_output=True, text=True, check=False
            )
        if made.returncode:
            return not_audited(f"pip-audit {VERSION} cannot be installed ({reason(made.stderr)})")
        failed = ""
        for service in ("pypi", "osv"):
            done = audit(python, pins, service)
            failed = "no answer in time" if done is None else reason(done.stderr)
            # A mirror may answer that it knows none of them, of which pip-audit makes "none found".
            asked = answers(done.stdout) if done else []
            known = [each for each in asked if "skip_reason" not in each]
            if known:
                return tell(known, len(asked))
            failed = "it knows none of the packages" if asked else failed
        return not_audited(f"no database of vulnerabilities can be reached ({failed})")


def audit(python, pins, service):
    """pip-audit on the pins as they are, without resolving them; None if it takes too long."""
    command = [python, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    command += ["--format", "json"]
    command += ["--vulnerability-service", service, "--timeout", "10", "--requirement", pins]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return None


def answers(output):
    """What pip-audit found of each package; nothing if it ended before."""
    try:
        return json.loads(output)["dependencies"]
    except (ValueError, KeyError):
        return []


def tell(known, total):
    """Print each vulnerability; the exit status."""
    found = [(each, vuln) for each in known for vuln in each["vulns"]]
    for each, vuln in found:
        fixed = ", ".join(vuln["fix_versions"]) or "no version yet"
        print(f"{each['name']} {each['version']}: {vuln['id']}, fixed in {fixed}")
    print(
        f"{len(found)} known vulnerabilities in {len(known)} of {total} pinned packages that were looked up"
    )
    return 1 if found else 0


def reason(errors):
    return (errors.strip().splitlines() or ["no output"])[-1].strip()[:200]


def not_audited(why):
    print(f"not audited: {why}; run it where the internet can be reached", file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
