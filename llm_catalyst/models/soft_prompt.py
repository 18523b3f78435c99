"""The soft prompt: where it starts, text -> prompt, and prompt -> tokens (projection).

Shapes: m virtual tokens, d embedding width, v vocabulary size, k members of a population.
"""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from llm_catalyst.models.prompt_settings import PromptSettings
from llm_catalyst.runs.records import Prompt
from llm_catalyst.tasks.base import CLASS
from llm_catalyst.utils.validation import ConfigurationError

# Vocabulary entries that hold no readable text: reserved slots of BERT, T5, Llama and
# RoBERTa's vocabularies, and SentencePiece's single bytes.
UNUSED = re.compile(r"^([\[<]unused_?\d+[\]>]|<extra_id_\d+>|<\|?reserved.*\|?>|madeupword\d+|<0x[0-9A-F]{2}>)$")

CLASS_NAME = re.compile(r"\[class\]|\{(?:class)?\}", re.IGNORECASE)


@dataclass(frozen=True)
class PromptSpace:
    """The discrete prompts of m tokens that a backbone can read, and the way between them and soft ones.

    `vocabulary` (v, d) are the backbone's input embeddings. `class_at` is for prompts into which the name of a class is
    put, behind that number of the m tokens: they are shown, and read, as "a photo of a [CLASS]". `given` are the texts
    of prompt.start=task or file. With prompt.fill=none a prompt has n <= m tokens, and n rows.
    """

    tokenizer: Any
    vocabulary: Tensor
    settings: PromptSettings = field(default_factory=PromptSettings)
    class_at: int | None = None
    given: tuple[str, ...] = ()

    @property
    def length(self) -> int:
        return self.settings.length

    @property
    def start_texts(self) -> tuple[str, ...]:
        """The texts from which a run may start: none where `prompt.start` names vocabulary rows or noise."""
        return (self.settings.text or "",) if self.settings.start == "text" else self.given

    @cached_property
    def named(self) -> Tensor:
        """Mask (v,) of the vocabulary's rows that have a token: many models have more rows than their tokenizer ids."""
        ids = [i for i in self.tokenizer.get_vocab().values() if i < len(self.vocabulary)]
        mask = torch.zeros(len(self.vocabulary), dtype=torch.bool)
        mask[ids] = True
        return mask.to(self.vocabulary.device)

    @cached_property
    def allowed(self) -> Tensor:
        """Mask (v,) of the tokens that a projection or a random prompt may use."""
        mask = self.named
        if not self.settings.special_tokens:
            mask = allowed_tokens(self.tokenizer, len(self.vocabulary), self.settings.word_start).to(mask.device)
        if self.settings.projection_rows is not None:
            first, end = self.settings.projection_rows
            rows = torch.arange(len(mask), device=mask.device)
            mask = mask & (rows >= first) & (rows < end)
        if not mask.any():
            problem = "no token of this tokenizer may stand in a prompt"
            fixes = "prompt.word_start=false, prompt.special_tokens=true or prompt.projection_rows=null"
            raise ConfigurationError(f"{problem}; try {fixes}")
        return mask

    @cached_property
    def allowed_ids(self) -> tuple[int, ...]:
        return tuple(self.allowed.nonzero().flatten().tolist())

    @cached_property
    def special(self) -> Tensor:
        """Vocabulary ids of the special tokens."""
        return torch.tensor(sorted(special_ids(self.tokenizer)), device=self.vocabulary.device)

    @cached_property
    def norms(self) -> Tensor:
        """Euclidean norms (v,) of the vocabulary's rows, in float32."""
        return torch.linalg.vector_norm(self.vocabulary, dim=-1, dtype=torch.float32).clamp_min(1e-12)

    @cached_property
    def vocabulary_scale(self) -> float:
        """The root mean square of the entries of the vocabulary's rows that have a token."""
        rows = self.norms[self.named].double()
        return (rows.square().mean() / self.vocabulary.shape[1]).sqrt().item()

    def prompt(self, tokens: Sequence[int]) -> Prompt:
        """The discrete prompt of these vocabulary ids; with `prompt.as_text` written one by one, joined by blanks."""
        if self.class_at is None:
            return Prompt(tuple(tokens), self.join(tokens) if self.settings.as_text else self.decode(tokens))
        parts = self.decode(tokens[: self.class_at]), CLASS, self.decode(tokens[self.class_at :])
        return Prompt(tuple(tokens), " ".join(filter(None, parts)))

    def decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False).strip()

    def join(self, tokens: Sequence[int]) -> str:
        """Each token by itself as text, joined by blanks: of tokens that begin words, two blanks stand between two.

        As the transformers of the published code wrote them, without the blank before a full stop and its like.
        """
        texts = [self.tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in tokens]
        return " ".join(map(self.tokenizer.clean_up_tokenization, texts))

    def distinct(self, prompts: Iterable[Prompt]) -> list[Prompt]:
        """The prompts without repetitions: of tokens, or with `prompt.as_text` of texts."""
        return list({prompt.text if self.settings.as_text else prompt.tokens: prompt for prompt in prompts}.values())

    def reread(self, prompt: Prompt) -> Prompt:
        """The projection as it is scored: itself, or with `prompt.as_text` what its text is tokenized to."""
        return self.fit(prompt.text)[0] if self.settings.as_text else prompt

    def check(self) -> None:
        """Raise ConfigurationError where no token may stand in a prompt, or a text to start or fill from has none."""
        self.sample(torch.Generator())
        given: list[tuple[str, str]] = [(self.settings.start, text) for text in self.start_texts]
        if self.settings.fill not in ("repeat", "none", None):
            given.append(("fill", str(self.settings.fill)))
        for key, text in given:
            try:
                self.fit(text)
            except ValueError as error:
                fix = (
                    ""
                    if self.settings.special_tokens
                    else "; prompt.special_tokens=true lets special tokens stand in it"
                )
                name = "prompt.start=task" if key == "task" else f"prompt.{key}"
                raise ConfigurationError(f"{name}: {error}{fix}") from None

    def tokenize(self, text: str) -> list[int]:
        """The vocabulary ids of a text in a prompt: special tokens among them only if they may stand in one."""
        return self.tokenizer(text).input_ids if self.settings.special_tokens else plain_ids(self.tokenizer, [text])[0]

    def fit(self, text: str) -> tuple[Prompt, str]:
        """`text` as a prompt of m tokens, and the end of it that did not fit ('' where all did).

        A shorter text is repeated up to m tokens (as PEFT does), or filled up with `prompt.fill`; with prompt.fill=none
        it stays as it is. With `prompt.as_text` text and filling are tokenized as one. Raises ValueError where the text
        holds no token at all, or one that the model has no embedding of.
        """
        if self.class_at is not None:
            text = CLASS_NAME.sub(" ", text).strip().rstrip(".")  # its place is given; a template's full stop, too
        ids = self.tokenize(text)
        if not ids:
            raise ValueError(f"{text!r} holds no token of this tokenizer")
        kept, lost = self._fill(text, ids)[: self.length], ids[self.length :]
        if (beyond := max(kept)) >= len(self.vocabulary):
            piece = self.tokenizer.convert_ids_to_tokens(beyond)
            raise ValueError(f"{piece!r} in {text!r} has the id {beyond}, and the model embeds {len(self.vocabulary)}")
        if self.settings.as_text and self.class_at is None:  # a special token at the end is no part of the text
            lost = [token for token in lost if token not in special_ids(self.tokenizer)]
            return Prompt(tuple(kept), text), self.decode(lost) if lost else ""
        return self.prompt(kept), self.decode(lost) if lost else ""

    def _fill(self, text: str, ids: list[int]) -> list[int]:
        """The ids of a text; of one that is too short those of the filled text, of m tokens or more."""
        fill = self.settings.fill
        if len(ids) >= self.length or fill is None or self.settings.as_written:
            return ids
        if self.settings.as_text:
            ids = self.tokenize(text + (f" {text}" if fill == "repeat" else fill) * self.length)
        filling = ids if fill == "repeat" else self.tokenizer(fill, add_special_tokens=False).input_ids
        if not filling:
            raise ConfigurationError(f"prompt.fill={fill!r} holds no token; try 'repeat' or ' a'")
        return ids + filling * self.length

    def embed(self, prompts: Sequence[Prompt]) -> Tensor:
        """Rows (k, m, d) of discrete prompts of m tokens each, in float32."""
        ids = torch.tensor([prompt.tokens for prompt in prompts], device=self.vocabulary.device)
        return self.vocabulary[ids].float()

    def embed_each(self, prompts: Sequence[Prompt]) -> list[Tensor]:
        """The rows (n, d) of each discrete prompt, of as many tokens n as it has, in float32."""
        return [self.embed([prompt])[0] for prompt in prompts]

    def directions(self, prompts: Sequence[Prompt]) -> Tensor:
        """Unit vectors (k, d) along the mean of each prompt's token embeddings, float64, on the CPU."""
        means = [rows.cpu().double().mean(0) for rows in self.embed_each(prompts)]
        return torch.nn.functional.normalize(torch.stack(means), dim=-1)

    def spread(self, prompts: Sequence[Prompt]) -> float | None:
        """Mean cosine distance over all pairs of prompts, each the mean of its token embeddings, to six decimals.

        0: all are the same; None for fewer than two.
        """
        if len(prompts) < 2:
            return None
        # Between unit vectors, half the squared distance is 1 - cosine.
        return round(torch.pdist(self.directions(prompts)).square().mean().item() / 2, 6)

    def start(self, generator: torch.Generator) -> Tensor:
        """A new soft prompt (m, d), float32: `prompt.start` says from text, vocabulary rows or N(0, std).

        Of several texts it is the first. Without `prompt.std` the standard deviation is the root mean square of the
        vocabulary's entries.
        """
        if self.start_texts:
            return self.embed([self.fit(self.start_texts[0])[0]])[0]
        if self.settings.start == "vocabulary":
            return self.embed([self.sample(generator)])[0]
        noise = torch.randn(self.length, self.vocabulary.shape[1], generator=generator)
        std = self.vocabulary_scale if self.settings.std is None else self.settings.std
        return (noise * std).to(self.vocabulary.device)

    def sample(self, generator: torch.Generator) -> Prompt:
        """m distinct tokens drawn evenly from the allowed part of the vocabulary (repeats where it is small)."""
        drawn = torch.randperm(len(self.allowed_ids), generator=generator)[: self.length].tolist()
        drawn = (drawn * self.length)[: self.length]
        return self.prompt([self.allowed_ids[i] for i in drawn])

    @torch.no_grad()
    def nearness(self, rows: Tensor) -> Tensor:
        """The nearness (..., v) of each token of the vocabulary to each row (..., d), in float32; more is nearer.

        Nearness is `prompt.projection`: cosine, l2, dot, or `official`, which takes the *least* similar
        token by cosine, as the method's published code does (shared fault, kept for reproduction only).
        """
        scores = (rows.to(self.vocabulary.dtype) @ self.vocabulary.T).float()
        match self.settings.projection:
            case "cosine":
                scores = scores / self.norms
            case "official":
                scores = -scores / self.norms
            case "l2":
                scores = 2 * scores - self.norms**2
        return scores

    def nearest(self, rows: Tensor, n: int = 1) -> Tensor:
        """Vocabulary ids (..., n) of the n nearest allowed tokens to each row (..., d), nearest first."""
        return self._best_allowed(self.nearness(rows), n)

    def nearest_directions(self, moves: Tensor, n: int) -> Tensor:
        """Vocabulary ids (..., n) of the n allowed tokens whose rows point most along each move (..., d), by cosine."""
        scores = (moves.to(self.vocabulary.dtype) @ self.vocabulary.T).float()
        return self._best_allowed(scores / self.norms, n)

    def _best_allowed(self, nearness: Tensor, n: int) -> Tensor:
        masked = nearness.masked_fill(~self.allowed, float("-inf"))
        return masked.topk(min(n, len(self.allowed_ids)), dim=-1).indices

    def neighbour(self, token: int, n: int, rng: random.Random) -> int:
        """One of the n allowed tokens nearest to another one, drawn by `rng`; itself where there is no other."""
        near = self.nearest(self.vocabulary[token], n + 1).tolist()
        return rng.choice([other for other in near if other != token] or [token])

    def steepest(self, gradient: Tensor, n: int) -> Tensor:
        """Vocabulary ids (..., n) of the n allowed tokens e with the least e·g for each gradient row g (..., d)."""
        return self._best_allowed(-(gradient.to(self.vocabulary.dtype) @ self.vocabulary.T).float(), n)

    def project(self, soft: Tensor) -> tuple[list[Prompt], list[float]]:
        """Discrete prompts nearest to soft prompts (k, m, d), and the mean cosine to their tokens, per member."""
        ids = self.nearest_tokens(soft)
        cosine = torch.cosine_similarity(soft.float(), self.vocabulary[ids].float(), dim=-1)
        return [self.prompt(row) for row in ids.tolist()], cosine.mean(-1).tolist()

    @torch.no_grad()
    def nearest_tokens(self, soft: Tensor) -> Tensor:
        """Vocabulary ids (..., m) of the tokens nearest to the rows of soft prompts (..., m, d).

        A row that is a token's embedding is that token, though no other row could come to it (half a character, a piece
        that begins no word), unless it is a special one: so a text that a mentor wrote stays what it is.
        """
        nearness = self.nearness(soft)
        closest = nearness.masked_fill(~self.named, float("-inf")).topk(1, dim=-1).indices[..., 0]
        ids = self._best_allowed(nearness, 1)[..., 0]
        same = (self.vocabulary[closest] == soft.to(self.vocabulary.dtype)).all(-1)
        return torch.where(same & ~torch.isin(closest, self.special), closest, ids)

    def snap(self, soft: Tensor) -> Tensor:
        """The embeddings (..., m, d), float32, of the tokens nearest to the rows of soft prompts (..., m, d)."""
        return self.vocabulary[self.nearest_tokens(soft)].float()


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of the special tokens, those without a role (such as Llama 3's turn marks) among them."""
    return {*tokenizer.all_special_ids, *(i for i, t in tokenizer.added_tokens_decoder.items() if t.special)}


def plain_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts, without any special token: one that stands in a text is left out of it."""
    special = special_ids(tokenizer)
    found = tokenizer(list(texts), add_special_tokens=False).input_ids
    return [[i for i in ids if i not in special] for ids in found]


def allowed_tokens(tokenizer: Any, size: int, word_start: bool) -> Tensor:
    """Mask (size,) of the tokens that a person could read in a prompt.

    Left out are special, added and reserved tokens, rows of the embedding beyond the tokenizer's last
    token, and pieces that decode to nothing or to half a character; with `word_start`, also pieces that
    cannot begin a word.
    """
    known = min(size, len(tokenizer))
    pieces: list[str] = tokenizer.convert_ids_to_tokens(list(range(known)))
    texts: list[str] = tokenizer.batch_decode([[i] for i in range(known)], clean_up_tokenization_spaces=False)
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    starts = word_start_test(pieces) if word_start else lambda piece: True
    mask = torch.zeros(size, dtype=torch.bool)
    for i, (piece, text) in enumerate(zip(pieces, texts, strict=True)):
        readable = bool(text.strip()) and text.replace(" ", "").isprintable() and "\ufffd" not in text
        mask[i] = i not in special and readable and not UNUSED.match(piece) and starts(piece)
    return mask


def word_start_test(pieces: Sequence[str]) -> Any:
    """A test whether a vocabulary piece begins a word, by the mark that this vocabulary uses.

    WordPiece marks continuations with '##'; byte-level BPE marks beginnings with 'Ġ', SentencePiece with '▁'.
    CLIP marks only the end of a word, with '</w>': there the pieces that end one are taken, most of them whole words.
    """
    if sum(piece.endswith("</w>") for piece in pieces) > 1:
        return lambda piece: piece.endswith("</w>") and len(piece) > len("</w>")
    for mark in ("Ġ", "▁"):
        if sum(piece.startswith(mark) for piece in pieces) > 1:
            return lambda piece: piece.startswith(mark) and len(piece) > 1
    return lambda piece: not piece.startswith("##")
