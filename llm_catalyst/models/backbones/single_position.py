"""The last layer of a model like BERT at one position of each sequence, where nothing else of it is read.

Shapes: n sequences of s rows, h hidden width, a attention heads of width h / a.
"""

import re
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# Those of transformers' modules whose layers have the parts of BERT's, and in its order.
LIKE_BERT = re.compile(
    r"transformers\.models\.(bert|camembert|data2vec|electra|ernie|roberta|roc_bert|xlm_roberta)\.modeling_\1(_text)?"
)


def at_positions(hidden: Tensor, positions: Tensor) -> Tensor:
    """hidden (…, s, h) at positions (…) -> (…, h)."""
    index = positions[..., None, None].expand(*positions.shape, 1, hidden.shape[-1])
    return hidden.gather(-2, index).squeeze(-2)


def restrict_last_layer(base: nn.Module) -> bool:
    """Let the base model take `places` (n,) and `real` (n, s), and then give those states alone (n, 1, h).

    They reach the last layer through the keyword arguments that transformers hands on from layer to layer. Without them
    nothing changes. False where the last layer is not like that of BERT: then the model stays as it is.
    """
    layers = getattr(getattr(base, "encoder", None), "layer", None)
    if not layers or not LIKE_BERT.fullmatch(type(layers[-1]).__module__) or layers[-1].is_decoder:
        return False
    layers[-1].forward = partial(forward_layer, layers[-1], layers[-1].forward)
    return True


def forward_layer(
    layer: Any, whole: Any, hidden: Tensor, *rest: Any, places: Tensor | None = None, real: Any = None, **named: Any
) -> Tensor:
    """The layer's states at `places`, or without them what its own forward pass gives."""
    if places is None:
        return whole(hidden, *rest, **named)
    return state_at(layer, hidden, places, real)[:, None]


def state_at(layer: Any, hidden: Tensor, places: Tensor, real: Tensor) -> Tensor:
    """The layer's output (n, h) at `places` (n,), for its input (n, s, h) whose rows are `real` (n, s) or padding.

    One query of each sequence needs neither keys nor values of all rows: with a row's key k = K x + c and value
    v = V x + b, q·k = (K^T q)·x + q·c, whose second term is the same for all rows and so leaves the softmax as it is,
    and sum_i p_i v_i = V (sum_i p_i x_i) + b sum_i p_i. So two products with K and V for each sequence take the place
    of two for each row. The same up to rounding.
    """
    attention = layer.attention.self
    here = at_positions(hidden, places)
    split = (attention.num_attention_heads, attention.attention_head_size)
    key, value = (projection.weight.unflatten(0, split) for projection in (attention.key, attention.value))
    query = attention.query(here).unflatten(-1, split) * split[1] ** -0.5
    fits = torch.einsum("nad,adh->nah", query, key) @ hidden.mT
    shares = attention.dropout(fits.masked_fill(~real[:, None], -torch.inf).softmax(-1))
    read = torch.einsum("nah,adh->nad", shares @ hidden, value)
    read = read + shares.sum(-1, keepdim=True) * attention.value.bias.unflatten(0, split)
    return layer.feed_forward_chunk(layer.attention.output(read.flatten(1), here))
