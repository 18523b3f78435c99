"""The pooling that a sentence encoder's own files say: those of the package sentence-transformers.

modules.json              the modules of the encoder, in their order: a transformer, a pooling, perhaps others
1_Pooling/config.json     `pooling_mode`, or before version 5.4 a `pooling_mode_…` of each kind that is true or false
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from llm_catalyst.models.backbones.config import Pooling, TextBackbone
from llm_catalyst.models.backbones.hub_cache import fetch_optional
from llm_catalyst.utils.terminal import list_names

MODES: dict[str, Pooling] = {"mean": "mean", "cls": "first", "lasttoken": "last"}
OLD = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
WITHOUT_EFFECT = ("Transformer", "Pooling", "Normalize", "Dropout")


def read_pooling(settings: TextBackbone) -> tuple[Pooling | None, tuple[str, ...]]:
    """The pooling of a sentence encoder, and warnings of what of its files has no part here.

    None where `backbone.pooling` is set, the model is no sentence encoder, or its pooling is not known here.
    """
    modules = read_json(settings, "modules.json")
    if settings.pooling or not isinstance(modules, list):
        return None, ()
    parts = [part for part in modules if isinstance(part, Mapping)]
    kinds = {str(part.get("type")).rpartition(".")[2]: str(part.get("path")) for part in parts}
    notes = [
        f"{settings.name} is a sentence encoder with a module {kind}, which has no part in its states here"
        for kind in kinds
        if kind not in WITHOUT_EFFECT
    ]
    content = read_json(settings, f"{kinds['Pooling']}/config.json") if "Pooling" in kinds else None
    modes = list_modes(content)
    pooling = MODES.get(modes[0]) if len(modes) == 1 else None
    if pooling == "first" and settings.kind == "causal_lm":
        pooling = None  # a causal model's first token has seen no text
    if modes and pooling is None:
        default = "last for head=classifier" if settings.kind == "causal_lm" else "first for head=classifier"
        fix = f"used are {default}, and the mean for head=similarity; backbone.pooling chooses another"
        notes.append(
            f"{settings.name} is a sentence encoder with the pooling {list_names(modes)}, not known here; {fix}"
        )
    return pooling, tuple(notes)


def list_modes(content: Any) -> list[str]:
    """The kinds of pooling whose states are joined, from the content of a pooling's config.json."""
    if not isinstance(content, Mapping):
        return []
    mode = content.get("pooling_mode") or [mode for key, mode in OLD.items() if content.get(key)]
    return [mode] if isinstance(mode, str) else [str(each) for each in mode]


def read_json(settings: TextBackbone, name: str) -> Any:
    """The content of a model's file in JSON; None where there is none that can be read."""
    where = settings.location()
    file = Path(where) / name if Path(where).is_dir() else fetch_optional(where, name, settings.revision)
    with suppress(OSError, ValueError):
        return json.loads(file.read_bytes()) if file else None
    return None
