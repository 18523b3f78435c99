"""The choices of conf/mentor that `mentor.fallbacks` names, as nodes of the configuration."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from llm_catalyst.config.build import convert_value
from llm_catalyst.utils.validation import ConfigurationError, check_choice, flatten_leaves

REFUSED = ("replay", "diffusion")  # a whole run's, and one whose keys follow from the run around it


def resolve_fallbacks(config: Mapping[str, Any], folders: Sequence[Path]) -> dict[str, Any]:
    """The configuration with each name in mentor.fallbacks replaced by the node of that choice.

    A name is that of a file in the folder `mentor` of one of `folders`; the first folder that has it is used.
    Raises ConfigurationError where a name is not known, or where its file leaves a value open (???).
    """
    mentor = config["mentor"]
    if not isinstance(mentor, Mapping) or not mentor.get("fallbacks"):
        return dict(config)
    files = {path.stem: path for folder in reversed(folders) for path in (folder / "mentor").glob("*.yaml")}
    names = convert_value(list[Any], mentor["fallbacks"], "mentor.fallbacks")
    fallbacks = [read_fallback(name, files) if isinstance(name, str) else name for name in names]
    return {**config, "mentor": {**mentor, "fallbacks": fallbacks}}


def read_fallback(name: str, files: Mapping[str, Path]) -> dict[str, Any]:
    """The node of one choice, with its interpolations resolved."""
    choices = sorted(file for file in files if not file.startswith("_") and file not in REFUSED)
    check_choice("mentor.fallbacks", name, choices)
    node: Any = OmegaConf.to_container(read_choice(name, files), resolve=True)
    if missing := ", ".join(path for path, value in flatten_leaves(node) if value == "???"):
        raise ConfigurationError(
            f"mentor.fallbacks={name} leaves {missing} open; "
            "write a choice of your own that gives it, DIR/mentor/NAME.yaml, and add --config-dir DIR"
        )
    return dict(node)


def read_choice(name: str, files: Mapping[str, Path]) -> Any:
    """The keys of a choice, merged over those of the choices that its `defaults` name, as Hydra merges them."""
    own: Any = OmegaConf.load(files[name])
    bases = [str(base) for base in own.pop("defaults", [])]
    others = {file: path for file, path in files.items() if file != name}
    for base in bases:
        check_choice(f"defaults of {files[name]}", base, ["_self_", *sorted(others)])
    if "_self_" not in bases:
        bases.append("_self_")
    return OmegaConf.merge(*(own if base == "_self_" else read_choice(base, others) for base in bases))
