"""What a checkpoint's config.json says of the model: its family, its kind, a name for its runs. No weights are read."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_catalyst.models.backbones.config import Kind, explained_load_errors
from llm_catalyst.models.backbones.hub_cache import cache_without_hub, require_hub
from llm_catalyst.models.backbones.local_files import refuse_place
from llm_catalyst.utils.validation import ConfigurationError


def read_model_config(where: str, revision: str | None = None) -> Mapping[str, Any]:
    """The content of config.json in a local folder, in the hub's cache, or else on the hub.

    Raises:
        ConfigurationError: there is none, or it is no JSON object.
    """
    file = find_config(where, revision)
    try:
        found = json.loads(file.read_bytes())
    except ValueError as error:
        problem = f"backbone.name={where}: {file} is no JSON ({error})"
        raise ConfigurationError(f"{problem}; put the model's own config.json there") from None
    if not isinstance(found, dict):
        raise ConfigurationError(f"backbone.name={where}: {file} holds no JSON object, but {str(found)[:40]!r}")
    return found


def find_config(where: str, revision: str | None) -> Path:
    """The path of config.json in a local folder, or in the hub's cache, into which it is loaded if it is not there."""
    refuse_place("backbone.name", where)
    if not where.strip():
        raise ConfigurationError("backbone.name is empty; name a folder, or a model of the hub")
    if Path(where).is_dir():
        if (file := Path(where) / "config.json").is_file():
            return file
        there = ", ".join(sorted(path.name for path in Path(where).iterdir())[:5]) or "nothing"
        problem = f"backbone.name={where} holds no config.json (there: {there})"
        raise ConfigurationError(f"{problem}; it must be the folder that save_pretrained wrote")
    require_hub(where, revision, ["config.json"])
    with explained_load_errors(where), cache_without_hub(where):
        from transformers.utils.hub import cached_file

        return Path(str(cached_file(where, "config.json", revision=revision)))


def infer_kind(config: Mapping[str, Any]) -> Kind:
    """The kind of the checkpoint, from the class that it was saved from or, if that has no head, from its family."""
    from transformers.models.auto import modeling_auto

    masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    family = config.get("model_type")
    for name in config.get("architectures") or []:
        if name in masked.values() or name.endswith("ForMaskedLM"):
            return "masked_lm"
        if name in causal.values() or name.endswith(("ForCausalLM", "LMHeadModel")):
            return "causal_lm"
        if name.endswith("ForPreTraining") and family in masked:
            return "masked_lm"
    return "causal_lm" if config.get("is_decoder") or (family in causal and family not in masked) else "encoder"


def refuse_contradiction(kind: Kind, name: str, config: Mapping[str, Any]) -> None:
    """Raise ConfigurationError where a causal model is to be read as another kind, or another one as causal."""
    if (kind == "causal_lm") == ((found := infer_kind(config)) == "causal_lm"):
        return
    saved = ", ".join(config.get("architectures") or [str(config.get("model_type"))])
    fix = "; for the mean of its states add backbone.pooling=mean" if found == "causal_lm" else ""
    raise ConfigurationError(
        f"backbone.kind={kind} contradicts config.json of {name}, which is a {found} ({saved}); "
        f"leave backbone.kind out{fix}"
    )


def name_model(folder: str, config: Mapping[str, Any]) -> str:
    """A name for a model in a folder of that name: with its family before it, unless that is part of it."""
    family = str(config.get("model_type", ""))
    plain_folder, plain_family = (re.sub(r"[\W_]", "", text.lower()) for text in (folder, family))
    return folder if plain_family in plain_folder else f"{family}_{folder}"
