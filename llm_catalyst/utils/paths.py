"""Where the packaged files lie."""

from pathlib import Path


def conf_directory() -> Path:
    """The folder of configuration files: inside the package once installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "conf"
    return shipped if shipped.is_dir() else package.parent / "conf"
