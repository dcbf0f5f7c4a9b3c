"""Look up known vulnerabilities of requirements.txt, in one line: python .ci/audit.py.

pip-audit itself calls it a success when it could look nothing up (a mirror that does not answer for vulnerabilities);
this says how many requirements were looked up. Only a vulnerability that was found makes it fail, never a network.
"""

import json
import subprocess
import sys
from importlib.util import find_spec

COMMAND = "-m pip_audit --requirement requirements.txt --no-deps --disable-pip --progress-spinner off --format json"


def main() -> None:
    """Print what was found; exit with 1 if a requirement has a known vulnerability."""
    if find_spec("pip_audit") is None:
        print("pip-audit: not installed, nothing was looked up")
        return
    try:
        ended = subprocess.run(
            [sys.executable, *COMMAND.split()], capture_output=True, text=True, timeout=120, check=False
        )
        rows = json.loads(ended.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        print("pip-audit: no answer from the network, nothing was looked up")
        return
    rows = [row for row in rows if not row["name"].startswith("-e")]
    known = [row for row in rows if "skip_reason" not in row]
    found = [f"{row['name']} {row['version']}: {one['id']}" for row in known for one in row["vulns"]]
    said = "no vulnerability known" if known else "the network answers for none"
    print(f"pip-audit: {len(known)} of {len(rows)} requirements looked up; {'; '.join(found) or said}")
    if found:
        sys.exit(1)


if __name__ == "__main__":
    main()
