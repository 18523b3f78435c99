"""The packaged files of configuration."""

from pathlib import Path


def conf_directory() -> Path:
    """The folder of configuration files: inside the package once installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "conf"
    return shipped if shipped.is_dir() else package.parent / "conf"


def list_choices(group: Path) -> list[Path]:
    """The YAML files in a group's folder that can be chosen, sorted by name.

    A file whose name begins with an underscore is none: it holds what the others inherit.
    """
    return [path for path in sorted(group.glob("*.yaml")) if not path.name.startswith("_")]
