"""What docs/safety.md says is tested there is."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_its_tests_exist() -> None:
    page = (TESTS.parent / "docs" / "safety.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) > 25
    for row in rows:
        named = re.findall(r"`([\w/]+(?:\.py|/))`", row.rsplit("|", 2)[1])
        assert named, row
        assert all((TESTS / name).exists() for name in named), row
