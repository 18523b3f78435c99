"""The choices of conf/mentor that `mentor.fallbacks` names, as nodes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llm_catalyst.config.build import convert_value
from llm_catalyst.config.choices import read_choice
from llm_catalyst.utils.validation import ConfigurationError, check_choice, flatten_leaves

NO_FALLBACKS = ("replay", "diffusion")  # mentors of a whole run, and with keys that follow from the run around them


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
    choices = sorted(file for file in files if not file.startswith("_") and file not in NO_FALLBACKS)
    check_choice("mentor.fallbacks", name, choices)
    node: Any = OmegaConf.to_container(read_node(name, files), resolve=True)
    if missing := ", ".join(path for path, value in flatten_leaves(node) if value == "???"):
        raise ConfigurationError(
            f"mentor.fallbacks={name} leaves {missing} open; "
            "write a choice of your own that gives it, DIR/mentor/NAME.yaml, and add --config-dir DIR"
        )
    return dict(node)


def read_node(name: str, files: Mapping[str, Path]) -> DictConfig:
    """The node of one choice, with what it inherits; its interpolations are not resolved."""
    return OmegaConf.create(read_choice(name, files, lambda path: OmegaConf.to_container(OmegaConf.load(path))))
