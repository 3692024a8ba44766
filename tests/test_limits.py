"""No test has a limit of its own: a machine may be slow."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
LIMIT = re.compile(r"(?:timeout|deadline|wait|join)\w*(?::\s*\w+\s*)?\s*(?:=|\()\s*\d", re.IGNORECASE)


def test_all_limits_are_the_one_against_hanging():
    found = [
        f"{file.relative_to(TESTS)}: {line.strip()}"
        for file in sorted(TESTS.rglob("*.py"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if LIMIT.search(line) and file.name not in ("test_limits.py", "limits.py")
    ]
    assert found == []
