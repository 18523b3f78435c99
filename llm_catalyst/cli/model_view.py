"""A task's texts as the tokens of a backbone, for `catalyst data`; no weights are read, and nothing is fetched."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_catalyst.config.build import build_node
from llm_catalyst.tasks.base import Example, TaskData
from llm_catalyst.utils.paths import expand_path


@dataclass(frozen=True)
class ModelView:
    """The texts of a task as a backbone reads them.

    Args:
        name: of the backbone.
        tokenizer: its tokenizer.
        prompt_length: virtual tokens in front of each text.
        limit: tokens of a sequence at most, as in a run, unless the model turns out to have fewer positions.
        cloze: the cloze that holds the label word; None where the head has none.
        lengths: the tokens of each row's longest sequence, by split, uncut.
        warnings: about tokens that the backbone does not know, or does not read as text.
    """

    name: str
    tokenizer: Any
    prompt_length: int
    limit: int
    cloze: str | None
    lengths: Mapping[str, list[int]]
    warnings: Sequence[str]

    def count_cut(self, split: str) -> float:
        """The share of a split's rows that lose text."""
        return sum(length > self.limit for length in self.lengths[split]) / len(self.lengths[split])

    def show(self, example: Example) -> list[str]:
        """Each sequence of an example with its special tokens, cut, behind the place of the prompt."""
        from llm_catalyst.tasks.tokenization import tokenize_sequences

        rows, _ = tokenize_sequences(self.tokenizer, example.sequences, self.limit, self.cloze)
        return [f"[{self.prompt_length} prompt tokens] {self.tokenizer.decode(row)}" for row in rows]


def load_model_view(config: Mapping[str, Any], data: TaskData) -> ModelView | None:
    """The task under the tokenizer of `backbone`; None where that is neither in a folder nor in the hub's cache."""
    backbone = build_node(config["backbone"], "backbone")
    if not is_here(backbone.location(), backbone.revision):
        return None
    import transformers

    from llm_catalyst.models.backbones.config import explained_load_errors
    from llm_catalyst.models.backbones.model_config import infer_kind, read_model_config
    from llm_catalyst.tasks.token_warnings import warn_tokens
    from llm_catalyst.tasks.tokenization import encode_around, fill_cloze, list_sequences, tokenize_sequences
    from llm_catalyst.tasks.truncation import NO_LIMIT
    from llm_catalyst.training.problem import LONGEST_TEXT

    where, m = backbone.location(), config["prompt"]["length"]
    with explained_load_errors(backbone.name):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            where, revision=backbone.revision or "main", trust_remote_code=False, local_files_only=True
        )
    causal = infer_kind(read_model_config(where, backbone.revision)) == "causal_lm"
    words = build_node(config["head"], "head").words
    cloze = fill_cloze(data.task.cloze, None if causal else tokenizer.mask_token) if words else None
    asked = data.task.max_length or config["protocol"]["max_length"]
    given = [limit for limit in (asked, backbone.max_length) if limit]
    positions = measure_positions(backbone.name, where, backbone.revision, tokenizer.model_max_length)
    fitting = [n - m for n in (tokenizer.model_max_length, positions) if n is not None]
    limit = min(*(given or [LONGEST_TEXT]), *fitting)
    lengths, encoded = {}, {}
    for name in ("train", "dev", "test"):
        rows = getattr(data, name)
        tokens, _ = tokenize_sequences(tokenizer, list_sequences(rows), NO_LIMIT, cloze)
        encoded[name], choices = tokens, len(rows[0].sequences)
        lengths[name] = [max(map(len, tokens[i : i + choices])) for i in range(0, len(tokens), choices)]
    pair = cloze is None and data.train[0].sequences[0][1] is not None
    warnings = warn_tokens(tokenizer, backbone.name, encoded, encode_around(tokenizer, pair, cloze))
    return ModelView(backbone.name, tokenizer, m, limit, cloze, lengths, warnings)


def measure_positions(name: str, where: str, revision: str | None, told: int) -> int | None:
    """The tokens that a sequence may have, from the model as config.json describes it, without weights.

    That is what the tokenizer has `told` where config.json has as many positions.

    Raises:
        ConfigurationError: the model is of a family that is not served.
    """
    import transformers

    from llm_catalyst.models.backbones.compatibility import find_positions, refuse_family

    config = transformers.AutoConfig.from_pretrained(
        where, revision=revision or "main", trust_remote_code=False, local_files_only=True
    )
    refuse_family(name, config)
    if told <= (getattr(config, "max_position_embeddings", None) or 0):
        return told  # the model's classes, which take seconds to import, would say no less
    import torch

    with torch.device("meta"):
        return find_positions(transformers.AutoModel.from_config(config))


def is_here(where: str, revision: str | None) -> bool:
    """Whether a tokenizer can be read without the network."""
    if os.path.isdir(expand_path(where)):
        return True
    from huggingface_hub import try_to_load_from_cache

    files = ("tokenizer.json", "tokenizer_config.json")
    return any(isinstance(try_to_load_from_cache(where, file, revision=revision), str) for file in files)
