"""The git revision of this program: of the checkout that it runs from, or that its package was built from."""

import json
import re
import subprocess
from contextlib import suppress
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
FILE = "revision.json"  # in an installed package; hatch_build.py writes it


def read_revision() -> dict[str, str | bool]:
    """`revision` and whether the tree was changed (`dirty`); empty where neither a checkout nor the package says so."""
    if (PACKAGE.parent / ".git").exists():
        return git_revision(PACKAGE.parent)
    with suppress(OSError, ValueError):
        return dict(json.loads((PACKAGE / FILE).read_bytes()))
    return {}


def git_revision(folder: Path) -> dict[str, str | bool]:
    """The revision of the checkout in `folder`, and whether it was changed; empty where git does not say."""
    command = ["git", "-C", str(folder), "status", "--porcelain=v2", "--branch"]
    try:
        status = subprocess.run(command, capture_output=True, text=True, timeout=5).stdout
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return {}
    revision = re.search(r"^# branch\.oid (\w+)$", status, re.MULTILINE)
    changed = re.search(r"^[^#]", status, re.MULTILINE)
    return {"revision": revision[1], "dirty": changed is not None} if revision else {}
