"""Read the tokenizer and the model of a checkpoint, and refuse one whose parts are not all there."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_catalyst.models.backbones.compatibility import find_base, refuse_family
from llm_catalyst.models.backbones.config import DTYPES, TextBackbone, explained_load_errors
from llm_catalyst.models.backbones.hub_cache import cache_without_hub, require_hub
from llm_catalyst.models.backbones.loading import CAST, Shapes, weight_shapes
from llm_catalyst.models.backbones.local_files import INDEX, TOKENIZER_FILES, WEIGHTS, refuse_files
from llm_catalyst.utils.terminal import list_names
from llm_catalyst.utils.validation import ConfigurationError

SAVE_TOKENIZER = "put them there: transformers.AutoTokenizer.from_pretrained(ITS_MODEL).save_pretrained(FOLDER)"


# Constants that earlier versions of transformers saved beside the weights, and computes anew.
CONSTANT = re.compile(r"(^|\.)(position_ids|inv_freq|masked_bias|version|embed_positions\.weights)$")
SHOWN = 3  # names of weights in a message


@dataclass(frozen=True)
class Checkpoint:
    """What was read of a checkpoint; `drawn` names the weights that it lacks, drawn at random."""

    tokenizer: Any
    model: Any
    drawn: Collection[str]


def read_checkpoint(settings: TextBackbone, words: bool, arguments: Mapping[str, Any]) -> Checkpoint:
    """Tokenizer and model; `words` with the language-model head, `arguments` for transformers.

    Raises:
        ConfigurationError: something of the checkpoint cannot be read, is not there, or is not supported.
    """
    import transformers

    classes = {"masked_lm": transformers.AutoModelForMaskedLM, "causal_lm": transformers.AutoModelForCausalLM}
    loader: Any = classes[str(settings.kind)] if words else transformers.AutoModel
    where = settings.location()
    common: Any = {"trust_remote_code": settings.trust_remote_code, "revision": settings.revision or "main"}
    require_hub(where, settings.revision, [WEIGHTS, INDEX])
    with explained_load_errors(settings.name), cache_without_hub(where):
        config = transformers.AutoConfig.from_pretrained(where, **common)
        refuse_family(settings.name, config, settings.kind if words else None)
        refuse_files("backbone.name", where)
        tokenizer = read_tokenizer(settings.name, where, common)
        if words and settings.kind == "masked_lm" and tokenizer.mask_token is None:
            problem = f"backbone.name={settings.name}: its tokenizer has no mask token, at which label words are read"
            raise ConfigurationError(f"{problem}; use head=classifier")
        dtype = DTYPES[settings.dtype]
        options = {"dtype": dtype, "use_safetensors": True, "ignore_mismatched_sizes": True}  # refused below, by name
        model, found = loader.from_pretrained(where, output_loading_info=True, **options, **arguments, **common)
    refuse_other_weights(settings, model, found)
    return Checkpoint(tokenizer, model, found["missing_keys"])


def read_tokenizer(name: str, where: str, common: Mapping[str, Any]) -> Any:
    """The tokenizer of a folder or hub name; from missing files transformers may make one without a vocabulary."""
    from transformers import AutoTokenizer

    folder = Path(where)
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if there and not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):
        raise ConfigurationError(
            f"backbone.name={name} holds no tokenizer: neither tokenizer.json nor vocab.txt, vocab.json or a *.model "
            f"(there: {', '.join(there[:6])}); {SAVE_TOKENIZER}"
        )
    tokenizer = AutoTokenizer.from_pretrained(where, **common)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        files = ", ".join(sorted(set(tokenizer.vocab_files_names.values())))
        raise ConfigurationError(
            f"backbone.name={name}: its tokenizer, a {type(tokenizer).__name__}, has no vocabulary, which stands in "
            f"{files}; {SAVE_TOKENIZER}"
        )
    return tokenizer


def refuse_other_weights(settings: Any, model: Any, found: Mapping[str, Any]) -> None:
    """Raise ConfigurationError where a checkpoint holds other weights than its model has.

    `found` is what transformers tells of loading it: the keys that are missing, unexpected, or of other sizes.
    """
    refuse_other_sizes(settings.name, found["mismatched_keys"])
    refuse_lacking_weights(settings.name, model, found["missing_keys"])
    refuse_unused_weights(settings, model, found["unexpected_keys"])


def refuse_other_sizes(name: str, mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]]) -> None:
    """Raise ConfigurationError where weights have other sizes than config.json gives them: (name, sizes, given)."""
    if found := sorted(mismatched):
        shown = [f"{key} is {tuple(sizes)}, and by config.json {tuple(given)}" for key, sizes, given in found[:SHOWN]]
        more = " …" if len(found) > SHOWN else ""
        raise ConfigurationError(
            f"backbone.name={name} holds {len(found)} weights of other sizes than config.json says "
            f"({'; '.join(shown)}{more}); put the model's own config.json there"
        )


def refuse_lacking_weights(name: str, model: Any, missing: Iterable[str]) -> None:
    """Raise ConfigurationError where weights were drawn at random that the checkpoint should hold.

    A pooler may be drawn: most runs do not read it, and `refuse_drawn_pooler` is for those that do.
    """
    lacking = sorted(key for key in missing if not is_pooler(key))
    if not lacking:
        return
    base = {id(weight) for weight in find_base(model).parameters()}
    inside = [key for key, weight in model.named_parameters() if key in lacking and id(weight) in base]
    if find_base(model) is model or inside:
        fix = f"name the checkpoint that holds them, or put its own config.json there{name_layers(model)}"
    else:
        fix = "head=classifier needs no language-model head"
    raise ConfigurationError(
        f"backbone.name={name} lacks {len(lacking)} of the weights of {type(model).__name__} ({show_keys(lacking)}), "
        f"and drawn at random they would mean nothing; {fix}"
    )


def refuse_unused_weights(settings: Any, model: Any, unexpected: Iterable[str]) -> None:
    """Raise ConfigurationError where the checkpoint holds weights of the base model that the model has no place for.

    Heads of other tasks, a pooler and constants that transformers computes itself may stay unread.
    """
    base = find_base(model)
    parts = {key.partition(".")[0] for key in base.state_dict()}
    plain = {key: key.removeprefix(f"{model.base_model_prefix}.") for key in unexpected}
    inside = [key for key, short in plain.items() if short.partition(".")[0] in parts and not is_pooler(short)]
    shapes = weight_shapes(settings.location(), settings.revision) if inside else {}
    if unused := sorted(key for key in inside if not is_constant(key, shapes)):
        raise ConfigurationError(
            f"backbone.name={settings.name} holds {len(unused)} weights of its {type(base).__name__} for which "
            f"config.json has no place ({show_keys(unused)}), so that another model than the saved one would be used; "
            f"put the model's own config.json there{name_layers(model)}"
        )


def refuse_drawn_pooler(settings: TextBackbone, drawn: Iterable[str], official: bool) -> tuple[str, ...]:
    """A warning where the pooler that `backbone.pooling` reads was drawn at random, as the published code does.

    Raises ConfigurationError without `protocol=official`.
    """
    keys = sorted(filter(is_pooler, drawn))
    if settings.pooling != "pooler" or not keys:
        return ()
    problem = f"backbone.pooling=pooler: {settings.name} holds no pooler ({show_keys(keys)})"
    if not official:
        raise ConfigurationError(
            f"{problem}, and drawn at random it would mean nothing; use backbone.pooling=first or mean"
        )
    return (f"{problem}, and so it is drawn at random, as by the method's published code",)


def is_pooler(key: str) -> bool:
    """Whether a weight of that name belongs to a pooler."""
    return "pooler" in key.split(".")


def is_constant(key: str, shapes: Shapes) -> bool:
    """Whether a tensor of that name is no weight: a number or mask that transformers computes itself."""
    kind, sizes = shapes.get(key, (CAST[0], ()))
    mask = key.endswith((".attn.bias", ".attention.bias")) and list(sizes[:2]) == [1, 1]
    return bool(CONSTANT.search(key)) or kind not in CAST or mask


def name_layers(model: Any) -> str:
    """The number of layers that config.json gives, in brackets; '' where it has none."""
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    return "" if layers is None else f" (it says num_hidden_layers={layers})"


def show_keys(keys: Collection[str]) -> str:
    """The first names of weights."""
    return list_names(list(keys)[:SHOWN]) + (" …" if len(keys) > SHOWN else "")
