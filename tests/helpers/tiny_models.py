"""Tiny random models of every family, their tokenizers, a learnable task, and a model that is only its prompt."""

import json
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from helpers.recorded import CONFIG, manifest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import AutoModel
from transformers.models.auto.tokenization_auto import AutoTokenizer
from transformers.models.bert import BertConfig, BertForMaskedLM, BertTokenizer
from transformers.models.deberta_v2 import DebertaV2Config, DebertaV2ForMaskedLM, DebertaV2Tokenizer
from transformers.models.gpt2 import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer
from transformers.models.llama import LlamaConfig, LlamaForCausalLM, LlamaTokenizer
from transformers.models.opt import OPTConfig, OPTForCausalLM
from transformers.models.qwen3 import Qwen3Config, Qwen3ForCausalLM
from transformers.models.roberta import RobertaConfig, RobertaForMaskedLM, RobertaTokenizer
from transformers.utils import logging

from llm_catalyst.callbacks.base import RunCallback
from llm_catalyst.config.settings import Evaluations, Interval, PoolSettings, RestartSettings, Settings, StageLengths
from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.text import FrozenText, load_text_backbone
from llm_catalyst.models.base import Parameters, example_losses
from llm_catalyst.models.heads.text import Classifier
from llm_catalyst.models.prompt_settings import PromptSettings
from llm_catalyst.runs.records import Outcome
from llm_catalyst.runs.writer import RunDirectory
from llm_catalyst.tasks.base import Example, TaskData
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.tasks.text_task import TextTask
from llm_catalyst.training.loop import Experiment, run_experiment
from llm_catalyst.training.problem import Problem, assemble_problem
from llm_catalyst.utils.memory import PassLimits
from llm_catalyst.utils.signals import SignalHandler

torch.set_num_threads(1)
logging.set_verbosity_error()
logging.disable_progress_bar()

CPU = torch.device("cpu")
FOLDER = tempfile.TemporaryDirectory(prefix="tiny-models-")
WORDS = (  # noqa: SIM905 - easier to read and to add to
    "the a film movie story was is it and so very not actor voice light plot scene long slow music"
).split()
LABELS = ("bad", "good")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def sentences(n: int, seed: int = 0) -> list[str]:
    """Random sentences of 2 to 9 words, each with the word that is its label somewhere in it."""
    rng = random.Random(seed)
    texts = []
    for i in range(n):
        words = rng.choices(WORDS, k=rng.randint(1, 8))
        words.insert(rng.randint(0, len(words)), LABELS[i % 2])
        texts.append(" ".join(words))
    return texts


# Tokenizers: one of each family of vocabularies.


@cache
def word_piece() -> Any:
    """BERT's kind: '##' marks what continues a word; with a reserved slot. (Its trainer's result varies: not used.)"""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]"]
    continued = [f"##{piece}" for piece in (*LETTERS, "ing", "less")]
    pieces = [*special, *LETTERS, *".,?", *continued, *(w for w in (*WORDS, *LABELS) if len(w) > 1)]
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)})


def byte_pairs(special: Sequence[str]) -> dict[str, Any]:
    """Vocabulary and merges of a byte-level BPE tokenizer ('Ġ' marks a word's beginning)."""
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    pieces.train_from_iterator([f" {text}" for text in sentences(200)], trainer)
    model = json.loads(pieces.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


@cache
def byte_level() -> Any:
    """RoBERTa's kind."""
    return RobertaTokenizer(**byte_pairs(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]))


@cache
def gpt2_tokenizer() -> Any:
    """GPT-2's: byte-level, no padding token, nothing around a text."""
    return GPT2Tokenizer(**byte_pairs(["<|endoftext|>"]))


@cache
def sentence_piece() -> Any:
    """DeBERTa's kind: a Unigram vocabulary in which '▁' marks a word's beginning."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    whole = [f"▁{word}" for word in (*WORDS, *LABELS, "yes", "no")]
    scored = [*((word, -3.0) for word in whole), *((piece, -9.0) for piece in ("▁", *LETTERS, ".", "ing"))]
    return DebertaV2Tokenizer(vocab=[*((name, 0.0) for name in special), *scored], unk_id=3)


@cache
def llama_tokenizer() -> Any:
    """Llama 3's way: a special token before a text, and one before a second segment, too."""
    from tokenizers.processors import TemplateProcessing

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer, pieces.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    pieces.train_from_iterator(sentences(200) + ["It was ."] * 50, trainer)
    model = json.loads(pieces.to_str())["model"]
    tokenizer = LlamaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return tokenizer


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "WordPiece": word_piece,
    "byte-level BPE": byte_level,
    "SentencePiece": sentence_piece,
}

# Models: hidden width 32, two layers, weights large enough to tell right from wrong.

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
LLAMA = SMALL | {"num_key_value_heads": 2}
GPT2: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}
OPT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 48,
    "max_position_embeddings": 64,
    "word_embed_proj_dim": 32,
    "init_std": 0.3,
}
DEBERTA: dict[str, Any] = {
    "type_vocab_size": 0,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "position_biased_input": False,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
}
ZOO: dict[str, tuple[str, Callable[[], Any], Any, Any, dict[str, Any]]] = {
    "bert": ("masked_lm", word_piece, BertConfig, BertForMaskedLM, SMALL),
    "roberta": ("masked_lm", byte_level, RobertaConfig, RobertaForMaskedLM, SMALL | {"type_vocab_size": 1}),
    "deberta": ("masked_lm", sentence_piece, DebertaV2Config, DebertaV2ForMaskedLM, SMALL | DEBERTA),
    "gpt2": ("causal_lm", gpt2_tokenizer, GPT2Config, GPT2LMHeadModel, GPT2),
    "opt": ("causal_lm", gpt2_tokenizer, OPTConfig, OPTForCausalLM, OPT),
    "opt_narrow": ("causal_lm", gpt2_tokenizer, OPTConfig, OPTForCausalLM, OPT | {"word_embed_proj_dim": 16}),
    "llama": ("causal_lm", llama_tokenizer, LlamaConfig, LlamaForCausalLM, LLAMA),
    "qwen": ("causal_lm", gpt2_tokenizer, Qwen3Config, Qwen3ForCausalLM, LLAMA | {"head_dim": 8}),
}
MASKED, CAUSAL = ("bert", "roberta", "deberta"), ("gpt2", "opt", "llama", "qwen")
FAMILIES = (*MASKED, *CAUSAL)


@cache
def folder(name: str) -> str:
    """A folder with a tiny random model and its tokenizer, as a hub repository would hold them."""
    _, tokenizer, config, model, sizes = ZOO[name]
    path = Path(FOLDER.name) / name
    pad = tokenizer().pad_token_id
    ids = {"bos_token_id": tokenizer().bos_token_id, "eos_token_id": tokenizer().eos_token_id, "pad_token_id": pad}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model(config(vocab_size=len(tokenizer()) + 3, **ids, **sizes)).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return str(path)


@cache
def pooled_folder(name: str) -> str:
    """The same model without its language-model head, and with a pooler."""
    path = Path(FOLDER.name) / f"{name}_pooled"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        AutoModel.from_pretrained(folder(name)).save_pretrained(path)
    ZOO[name][1]().save_pretrained(path)
    return str(path)


@cache
def backbone(
    name: str, words: bool = False, twice: bool = False, official_states: bool = False, **settings: Any
) -> FrozenText:
    """The tiny model of a family, loaded as a run loads it; with `words` its language-model head, too.

    With pooling=pooler its folder holds one, unless `twice` has it drawn.
    """
    defaults = {"kind": ZOO[name][0], "attention": "eager" if name == "deberta" else "sdpa"}
    torch.manual_seed(1)
    path = pooled_folder(name) if settings.get("pooling") == "pooler" and not twice else folder(name)
    return load_text_backbone(TextBackbone(path, **{**defaults, **settings}), words, CPU, twice, official_states)


def reloaded_tokenizer(name: str) -> Any:
    """The tokenizer as transformers reads it back from the folder."""
    return AutoTokenizer.from_pretrained(folder(name))


# Tasks: a label that is a word of the text.


def toy_task(**fields: Any) -> TextTask:
    values: dict[str, Any] = {"text": "{text}", "labels": list(LABELS), "description": "Say how the film was."}
    return TextTask(**{"name": "toy", **values, **fields})


def examples(n: int, seed: int) -> tuple[Example, ...]:
    return tuple(Example(((text, None),), i % 2) for i, text in enumerate(sentences(n, seed)))


def toy_data(train: int = 24, dev: int = 12, test: int = 14, **fields: Any) -> TaskData:
    """A task that a soft prompt and a head can learn."""
    return TaskData(toy_task(**fields), LABELS, examples(train, 1), examples(dev, 2), examples(test, 3), "memory")


def choice_data() -> TaskData:
    """A task of two choices each, like COPA; the longer choice is not always the right one."""
    texts = sentences(12, 4)
    rows = tuple(
        Example(((text, "good story"), (text, "a very bad and long film")), i % 2) for i, text in enumerate(texts)
    )
    task = toy_task(labels=["choice1", "choice2"], choices=["{a}", "{b}"], words=["no", "yes"])
    return TaskData(task, ("choice1", "choice2"), rows[:6], rows[6:9], rows[9:], "memory")


def toy_settings(**changes: Any) -> Settings:
    """Settings of a short run on one CPU thread: equal stages, restarts from the best proposal as it is.

    `restart` may be the name of a choice alone.
    """
    plain = {"choose": "best", "carry": 0.0, "moments": "reset", "warm_up": 0}
    given = changes.pop("restart", {})
    restart = RestartSettings(**{**plain, **(given if isinstance(given, dict) else {"choose": given})})
    values: dict[str, Any] = {
        "batch_size": 8,
        "restart": restart,
        "criterion": None,
        "stage": StageLengths(steps=3, early_share=None),
        "stages": 3,
        "record": Interval(steps=1),
        "evaluate": Evaluations(steps=3),
        "prompt": PromptSettings(length=4, start="vocabulary"),
        "pool": PoolSettings(candidates=3, size=4),
        "device": "cpu",
        "view": "none",
    }
    return Settings(**{**values, **changes})


def toy_problem(
    name: str = "bert", head: Any = None, data: TaskData | None = None, twice: bool = False, **changes: Any
) -> Problem:
    """The toy task for a tiny model under a head (a classifier by default)."""
    head = head or Classifier()
    return assemble_problem(data or toy_data(), backbone(name, head.words, twice), head, toy_settings(**changes))


def plenty() -> PassLimits:
    """Room for everything in one pass."""
    return PassLimits(10**6, 10**6)


class Stops(Exception):  # noqa: N818 - not an error
    """Stands for whatever ends a process."""


@dataclass
class StoppingView(RunCallback):
    """Raises after so many optimizer steps."""

    at: int

    def on_step(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
        if step == self.at:
            raise Stops


def run_in(path: Path, experiment: Experiment, view: Any = None, interruption: SignalHandler | None = None) -> Outcome:
    """Carry out a run in a directory, or go on with the one that is there; its lock is free again in any case."""
    with closing(RunDirectory(path)) as directory:
        directory.write_config(CONFIG, manifest())
        return run_experiment(experiment, directory, view or RunCallback(), interruption)


# A model that is nothing but its prompt: what an optimizer does to it can be worked out by hand.


class Bare(nn.Module):
    """Stands for a backbone that does nothing."""

    device = CPU


class CrossEntropy:
    """The loss of whatever class logits a model gives; nothing is prepared."""

    def prepare(self, parameters: Parameters) -> Parameters:
        return parameters

    def losses(self, parameters: Parameters, batch: Any) -> Tensor:
        logits: Tensor = self.logits(parameters, batch)  # type: ignore[attr-defined]
        return example_losses(logits, batch.labels)


class PromptIsLogits(CrossEntropy):
    """Class logits that are the prompt's first row, sent through `shape`; a token of 99 makes them NaN."""

    def __init__(self, shape: Callable[[Tensor], Tensor] = lambda rows: rows) -> None:
        self.backbone = Bare()
        self.limits = plenty()
        self.shape = shape

    def logits(self, parameters: Parameters, batch: TextBatch) -> Tensor:
        k, b = batch.labels.shape
        rows = self.shape(parameters["prompt"])[:, :1].expand(k, b, -1)
        return torch.where(batch.tokens == 99, torch.nan, rows)


def labels_only(labels: Sequence[Sequence[int]], nan: Sequence[int] = ()) -> TextBatch:
    """A batch for `PromptIsLogits` of each member's labels; the members in `nan` get a loss of NaN."""
    table = torch.tensor(labels)
    tokens = torch.zeros(*table.shape, 1, dtype=torch.long)
    tokens[list(nan)] = 99
    return TextBatch(tokens, torch.ones_like(tokens), None, table, 1)


adamw = partial(torch.optim.AdamW, lr=0.01, weight_decay=0.0)
