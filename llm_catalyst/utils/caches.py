"""Where things are kept for later runs: answers, pictures, image features, token ids, the tiny CLIP."""

import os
import tempfile
from pathlib import Path

from llm_catalyst.utils.validation import ConfigurationError


def cache_directory(name: str) -> Path:
    """The folder `name` below $CATALYST_CACHE, or else below ~/.cache/llm-catalyst."""
    root = os.environ.get("CATALYST_CACHE") or "~/.cache/llm-catalyst"
    return Path(root).expanduser().absolute() / name


def writable_cache(name: str, what: str) -> Path:
    """The same, made where it is not there. Raises ConfigurationError, which begins with `what`, where it cannot be."""
    folder = cache_directory(name)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"{what} in {folder}, which cannot be written ({error.strerror}); set CATALYST_CACHE to a folder of yours"
        ) from None
    return folder
