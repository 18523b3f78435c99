"""Writes the git revision of the checkout into the wheel, for the manifests of the runs of the installed program."""

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class RevisionHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add llm_catalyst/revision.json to a wheel that is built from a checkout."""
        root = Path(self.root)
        if version == "editable" or not (root / ".git").exists():
            return
        spec = importlib.util.spec_from_file_location("revision", root / "llm_catalyst" / "utils" / "revision.py")
        assert spec is not None
        assert spec.loader is not None
        revision = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(revision)
        self.folder = tempfile.TemporaryDirectory()
        file = Path(self.folder.name) / revision.FILE
        file.write_text(json.dumps(revision.git_revision(root)))
        build_data["force_include"][str(file)] = f"llm_catalyst/{revision.FILE}"
