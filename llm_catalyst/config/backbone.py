"""A model that `backbone.name` names in the place of the choice's own: what of the choice still holds for it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_catalyst.config.choices import read_choice, read_yaml
from llm_catalyst.utils.paths import conf_directory, expand_path
from llm_catalyst.utils.validation import ConfigurationError


@dataclass(frozen=True)
class BackboneChoice:
    """A choice of the group `backbone` and its own node, which is {} where none of the folders has its file."""

    name: str
    node: Mapping[str, Any]

    @property
    def packaged(self) -> bool:
        return (conf_directory() / "backbone" / f"{self.name}.yaml").is_file()

    def differs(self, node: Mapping[str, Any], key: str) -> bool:
        """Whether a run's node has another value than the choice."""
        return bool(self.node) and node.get(key) != self.node.get(key)


def find_backbone_choice(name: str, folders: Sequence[Path]) -> BackboneChoice:
    """The choice of that name; the first of the folders that has it is used, as Hydra does."""
    files = {path.stem: path for folder in reversed(folders) for path in (folder / "backbone").glob("*.yaml")}
    return BackboneChoice(name, read_choice(name, files, read_yaml) if name in files else {})


def name_backbone(choice: BackboneChoice, node: Mapping[str, Any]) -> str:
    """The name under which a run's backbone is recorded: the choice's, or that of the model that takes its place.

    That is the last part of its hub name or, with its family before it, of its folder. The hub is not asked.
    """
    if not choice.differs(node, "name"):
        return choice.name
    path = expand_path(str(node["name"])).absolute()
    if not path.is_dir():
        return path.name
    from llm_catalyst.models.backbones.model_config import name_model

    with suppress(ConfigurationError):  # which the run is refused for, too
        return name_model(path.name, read_config_of({**node, "package": None}))
    return path.name


def settle_backbone(choice: BackboneChoice, node: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The `backbone` node with the kind that the model's config.json says, and no package of another model's weights.

    Args:
        choice: the choice that the node was composed from.
        node: the composed node; an image backbone's is returned as it is.
        overrides: those of the command.

    Raises:
        ConfigurationError: `backbone.kind` is given and contradicts config.json, or that cannot be read.
    """
    another = choice.differs(node, "name")
    as_packaged = choice.packaged and not another and not choice.differs(node, "kind") and node.get("kind") is not None
    if "kind" not in node or as_packaged:
        return dict(node)
    from llm_catalyst.models.backbones.model_config import infer_kind, refuse_contradiction

    settled = drop_package(choice, node)
    config = read_config_of(settled)
    given = any(word.lstrip("+").startswith("backbone.kind=") for word in overrides)
    if node["kind"] is None or (another and not given):
        return {**settled, "kind": infer_kind(config)}
    refuse_contradiction(node["kind"], node["name"], config)
    return settled


def drop_package(choice: BackboneChoice, node: Mapping[str, Any]) -> dict[str, Any]:
    """The node without the choice's package where that carries the weights of another model than the node names."""
    if "package" in node and choice.differs(node, "name") and not choice.differs(node, "package"):
        return {**node, "package": None}
    return dict(node)


def read_config_of(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The content of the config.json of a node's model."""
    from llm_catalyst.models.backbones.config import package_folder
    from llm_catalyst.models.backbones.model_config import read_model_config

    name = str(node["name"])
    where = str(expand_path(name)) if name.startswith("~") else name
    return read_model_config(package_folder(node.get("package")) or where, node.get("revision"))
