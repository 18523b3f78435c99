"""CLIP's two towers, the same whichever library made them; texts go in as embeddings, and may share their beginning.

Shapes: n texts of s tokens, d width of the text tower, b images of h x w pixels, e width that both towers are projected
to, m vectors, k members, c classes, p tokens of a common beginning, t of each text's own end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

TOKENS = 8192  # that go forward together where no gradient is wanted
GROUP = 32  # texts of one row that share their beginning: it costs little then, and the row is not yet long


@dataclass(frozen=True)
class Towers:
    """The parts of a CLIP that are used.

    `layers` are the text tower's. `run` takes a layer, states (n, s, d) and what is added to their attention (s, s),
    None for causal attention, and returns states. `project` takes a state into the common space, `image` pixels
    (b, 3, h, w). `vision` holds all weights that `image` uses.
    """

    vocabulary: Tensor
    positions: Tensor
    layers: Sequence[nn.Module]
    run: Callable[[nn.Module, Tensor, Tensor | None], Tensor]
    norm: nn.Module
    project: Callable[[Tensor], Tensor]
    image: Callable[[Tensor], Tensor]
    vision: Sequence[nn.Module]

    def text_features(self, rows: Tensor, ends: Tensor, deep: tuple[int, Tensor] | None = None) -> Tensor:
        """Unit-length features (n, e), float32, of texts whose embeddings are `rows` (n, s, d).

        Position embeddings, the causal layers, the final norm, and the state at the end of text (`ends`, (n,)),
        projected. The place is where we put that token, so that it does not matter whether a checkpoint finds it as the
        largest id (the original ones, `eos_token_id` 2) or as the first of its id. `deep` is the number of a layer
        (from 0) and the vectors (n, m, d) that take the places 1 to m in front of it.
        """
        positions = self.positions[: rows.shape[1]]

        def states(piece: slice) -> Tensor:
            changed = deep and (deep[0], deep[1][piece])
            return self._through(rows[piece] + positions, None, changed)[torch.arange(len(ends[piece])), ends[piece]]

        return self._finished(in_pieces(states, len(rows), rows.shape[1]))

    def shared_features(self, beginnings: Tensor, own: Tensor, ends: Tensor) -> Tensor:
        """Unit-length features (k, c, e) of c texts behind each of k common beginnings (k, p, d).

        `own` (c, t, d) is what each text has behind it, `ends` (c,) the place of the end of text in that. No token sees
        one behind it, so that the beginning's states are the same in all texts: they are computed once for GROUP texts,
        which stand in one row, each seeing the beginning and itself. The result is that of `text_features`.
        """
        k, p, d = beginnings.shape
        c, t = own.shape[:2]
        group = min(GROUP, c)
        rows = -(-c // group)
        filled = torch.cat([own, own.new_zeros(rows * group - c, t, d)]).reshape(rows, group * t, d)
        place = torch.cat([torch.arange(p), torch.arange(p, p + t).repeat(group)]).to(own.device)
        text = torch.cat([torch.full((p,), -1), torch.arange(group).repeat_interleave(t)]).to(own.device)
        seen = (place <= place[:, None]) & ((text == text[:, None]) | (text < 0))
        mask = torch.zeros_like(seen, dtype=self.positions.dtype).masked_fill(~seen, -torch.inf)
        begun = beginnings[:, None].expand(k, rows, p, d)
        whole = torch.cat([begun, filled.expand(k, -1, -1, -1)], dim=2).flatten(0, 1)

        def states(piece: slice) -> Tensor:
            return self._through(whole[piece] + self.positions[place], mask)[:, p:]

        behind = in_pieces(states, len(whole), len(place)).reshape(k, rows * group, t, d)
        return self._finished(behind[:, torch.arange(c, device=own.device), ends])

    def _through(self, states: Tensor, mask: Tensor | None, deep: tuple[int, Tensor] | None = None) -> Tensor:
        """The states (n, s, d) behind the last layer."""
        states = states.to(self.positions.dtype)
        for number, layer in enumerate(self.layers):
            if deep and deep[0] == number:
                m = deep[1].shape[1]
                states = torch.cat([states[:, :1], deep[1].to(states.dtype), states[:, 1 + m :]], dim=1)
            states = self.run(layer, states, mask)
        return states

    def _finished(self, states: Tensor) -> Tensor:
        """States (..., d) at the end of texts as unit-length features (..., e), float32."""
        return nn.functional.normalize(self.project(self.norm(states)).float(), dim=-1)


def in_pieces(work: Callable[[slice], Tensor], rows: int, width: int) -> Tensor:
    """`work` on all rows of `width` tokens; on some at a time where no gradient has to be kept for them."""
    size = rows if torch.is_grad_enabled() else max(1, TOKENS // width)
    return torch.cat([work(slice(i, i + size)) for i in range(0, rows, size)])
