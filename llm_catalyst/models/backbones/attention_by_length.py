"""BigBird's attention: of all tokens for short sequences, and in sparse blocks for long ones (Zaheer et al. 2020).

Its own forward pass replaces the sparse attention by the full one at the first short sequence, for good, so that
whatever follows would depend on the order of the batches.
"""

from functools import partial
from typing import Any

import torch


def choose_attention_by_length(base: Any) -> None:
    """Let a BigBird take the attention of its config.json in each pass whose sequences are long enough for it.

    A model without two kinds of attention stays as it is.
    """
    if getattr(base, "attention_type", None) != "block_sparse" or not hasattr(base, "set_attention_type"):
        return
    layers = [layer.attention for layer in base.encoder.layer]
    parts = {"block_sparse": [layer.self for layer in layers]}
    with torch.random.fork_rng(devices=[]):  # it draws weights, and then takes those of the other
        base.set_attention_type("original_full")
    parts["original_full"] = [layer.self for layer in layers]
    switch = partial(switch_attention, base, parts)
    switch("block_sparse")
    base.set_attention_type = switch  # its forward pass calls it for a short sequence
    base.register_forward_pre_hook(lambda *_: switch("block_sparse"))


def switch_attention(base: Any, parts: dict[str, list[Any]], kind: str) -> None:
    """Let every layer of a BigBird compute that kind of attention, with the same weights."""
    for layer, part in zip(base.encoder.layer, parts[kind], strict=True):
        layer.attention.self = part.train(base.training)
        layer.attention_type = layer.attention.attention_type = kind
    base.attention_type = base.encoder.attention_type = kind


def find_longest_full(base: Any) -> int | None:
    """The tokens up to which a BigBird's attention is the full one; None where its attention is always the same."""
    if getattr(base.config, "attention_type", None) != "block_sparse":
        return None
    return (5 + 2 * base.config.num_random_blocks) * base.config.block_size
