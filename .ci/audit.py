"""Looks up every pinned dependency in a vulnerability database, by pip-audit: `python .ci/audit.py [REQUIREMENTS]`.

Exit code 1 where a dependency has a known vulnerability. Where the database does not answer, as behind a registry of
one's own, this says that nothing was audited and does not fail: silence must not look like a clean bill, nor break CI.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
_PATIENCE_S = 300


def main(arguments: list[str]) -> int:
    """Audit one file of pins."""
    requirements = Path(arguments[0]) if arguments else CONSTRAINTS
    report, reason = ask(requirements)
    if report is None:
        print(f"audit: skipped, nothing was audited: {reason}")
        return 0
    text, code = judge(report)
    print(text)
    return code


def ask(requirements: Path) -> tuple[dict[str, Any] | None, str]:
    """pip-audit's report; or None, and why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--no-deps", "--disable-pip"]
        command += ["--format", "json", "--output", str(output), "--progress-spinner", "off", "--timeout", "15"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
        except subprocess.TimeoutExpired:
            return None, f"no answer within {_PATIENCE_S} s"
        if not output.exists():
            lines = answer.stderr.strip().splitlines()
            return None, lines[-1][:200] if lines else f"pip-audit ended with {answer.returncode}"
        return json.loads(output.read_bytes()), ""


def judge(report: dict[str, Any]) -> tuple[str, int]:
    """What a report says, and the exit code. A dependency that was not found was not audited."""
    dependencies = report["dependencies"]
    skipped = [each for each in dependencies if "skip_reason" in each]
    audited = len(dependencies) - len(skipped)
    found = [
        f"{each['name']} {each['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'none yet'}"
        for each in dependencies
        for flaw in each.get("vulns", ())
    ]
    if not audited:
        return "audit: skipped, nothing was audited: the vulnerability database knows none of the dependencies", 0
    rest = f", {len(skipped)} not audited ({', '.join(each['name'] for each in skipped[:5])})" if skipped else ""
    if found:
        return "\n".join([*found, f"audit: {len(found)} known vulnerabilities in {audited} dependencies{rest}"]), 1
    return f"audit: no known vulnerability in {audited} dependencies{rest}", 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
