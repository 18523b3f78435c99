"""Read the tokenizer and the model of a checkpoint, and refuse one whose parts are not all there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_catalyst.models.backbones.compatibility import refuse_family
from llm_catalyst.models.backbones.config import DTYPES, TextBackbone, explained_load_errors
from llm_catalyst.utils.validation import ConfigurationError

TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges*", "*.model", "*.tiktoken")
SAVE_TOKENIZER = "put them there: transformers.AutoTokenizer.from_pretrained(ITS_MODEL).save_pretrained(FOLDER)"


def read_checkpoint(settings: TextBackbone, words: bool, arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    """Tokenizer and model; `words` with the language-model head, `arguments` for transformers.

    Raises:
        ConfigurationError: something of the checkpoint cannot be read, is not there, or is not supported.
    """
    import transformers

    classes = {"masked_lm": transformers.AutoModelForMaskedLM, "causal_lm": transformers.AutoModelForCausalLM}
    loader: Any = classes[str(settings.kind)] if words else transformers.AutoModel
    where = settings.location()
    common: Any = {"trust_remote_code": settings.trust_remote_code, "revision": settings.revision or "main"}
    with explained_load_errors(settings.name):
        config = transformers.AutoConfig.from_pretrained(where, **common)
        refuse_family(settings.name, config, settings.kind if words else None)
        tokenizer = read_tokenizer(settings.name, where, common)
        if words and settings.kind == "masked_lm" and tokenizer.mask_token is None:
            problem = f"backbone.name={settings.name}: its tokenizer has no mask token, at which label words are read"
            raise ConfigurationError(f"{problem}; use head=classifier")
        dtype = DTYPES[settings.dtype]
        options = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
        model, found = loader.from_pretrained(where, **options, **arguments, **common)
    refuse_lacking_weights(settings.name, model, found["missing_keys"], words)
    return tokenizer, model


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


def refuse_lacking_weights(name: str, model: Any, missing: set[str], words: bool) -> None:
    """Raise ConfigurationError where weights were drawn at random that the checkpoint should hold.

    A pooler may be drawn: the published code reads RoBERTa's, which no checkpoint has.
    """
    lacking = sorted(key for key in missing if "pooler" not in key.split("."))
    if not lacking:
        return
    shown = ", ".join(lacking[:3]) + (" …" if len(lacking) > 3 else "")
    fix = "head=classifier needs no language-model head" if words else "name the checkpoint that holds them"
    raise ConfigurationError(
        f"backbone.name={name} lacks {len(lacking)} of the weights of {type(model).__name__} ({shown}), and drawn at "
        f"random they would mean nothing; {fix}"
    )
