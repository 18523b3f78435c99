"""The peer of train.py: prompt tuning by Hugging Face's PEFT and Trainer, on the same model, texts, start and head."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import datasets
import torch
import transformers
from peft import PromptTuningConfig, get_peft_model
from torch import Tensor
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.text import DTYPES
from llm_catalyst.tasks.batching import Encoded
from llm_catalyst.training.problem import Problem

M, BATCH, LEARNING_RATE, LENGTH = 8, 32, 1e-2, 128
GROUPED = "(c) by length"


@dataclass(frozen=True)
class Peer:
    """Settings of Hugging Face's Trainer: padding, the order of texts, precision, and BERT's dropout."""

    pad: bool = False
    order: str = "random"
    dtype: str = "float32"
    attention: str = "sdpa"
    autocast: bool = False
    dropout: float = 0.0


PEERS = {
    "(a) padded to 128, dropout": Peer(pad=True, dropout=0.1),
    "(b) dynamic, dropout": Peer(dropout=0.1),
    "(c) by length, dropout": Peer(order="group_by_length", dropout=0.1),
    "(a) padded to 128": Peer(pad=True),
    "(b) dynamic": Peer(),
    GROUPED: Peer(order="group_by_length"),
    "(c) bf16=True (autocast)": Peer(order="group_by_length", autocast=True),
    "(c) bf16 weights, sdpa": Peer(order="group_by_length", dtype="bfloat16"),
    "(c) bf16 weights, eager": Peer(order="group_by_length", dtype="bfloat16", attention="eager"),
}


class FirstText(torch.nn.Module):
    """The state of the first text token behind the prompt, in the place of BERT's pooler (it would read the prompt)."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden[:, M]


class Clock(TrainerCallback):
    """Seconds from the start of the first step to the end of the last, and each step's loss where they are logged."""

    def __init__(self) -> None:
        self.begin, self.end, self.losses = 0.0, 0.0, list[float]()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.begin = self.begin or perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.end = perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
            self.end = perf_counter()

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        self.losses += [logs["loss"]] if "loss" in logs else []


def peer(backbone: TextBackbone, labels: int, how: Peer) -> Any:
    """The model under PEFT's prompt tuning, with the head that ours has."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        backbone.location(),
        num_labels=labels,
        dtype=DTYPES[how.dtype],
        attn_implementation=how.attention,
        hidden_dropout_prob=how.dropout,
        attention_probs_dropout_prob=how.dropout,
    )
    model.bert.pooler = FirstText()
    return get_peft_model(model, PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=M))


def begin_anew(model: Any, start: dict[str, Tensor]) -> None:
    """Give the peer the prompt and the classifier that ours starts from."""
    classifier = model.base_model.classifier.modules_to_save["default"]
    places = {
        "prompt": model.prompt_encoder["default"].embedding.weight,
        "head.weight": classifier.weight,
        "head.bias": classifier.bias,
    }
    for name, place in places.items():
        place.data.copy_(start[name])


def peer_run(model: Any, how: Peer, ours: Problem, rows: Sequence[int], log: bool = False) -> Clock:
    """One epoch of Trainer over these of our texts, from our start."""
    begin_anew(model, ours.start())
    train: Any = ours.splits["train"]
    with tempfile.TemporaryDirectory(prefix="bench-train-") as folder:
        settings = TrainingArguments(
            output_dir=folder,
            use_cpu=ours.device.type == "cpu",
            bf16=how.autocast,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            train_sampling_strategy=how.order,
            logging_strategy="steps" if log else "no",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        padding = {"padding": "max_length", "max_length": LENGTH} if how.pad else {"padding": True}
        collator: Any = DataCollatorWithPadding(ours.model.backbone.tokenizer, **padding)
        trainer = Trainer(model, settings, collator, table(train, rows))
        clock = Clock()
        trainer.add_callback(clock)
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        trainer.train()
    return clock


def table(train: Encoded, rows: Sequence[int]) -> datasets.Dataset:
    """Our encoded texts as Trainer wants them."""
    columns: dict[str, Any] = {
        "input_ids": [list(train.tokens[i]) for i in rows],
        "attention_mask": [[1] * len(train.tokens[i]) for i in rows],
        "labels": [train.labels[i] for i in rows],
        "length": [len(train.tokens[i]) for i in rows],
    }
    if train.types is not None:
        columns["token_type_ids"] = [list(train.types[i]) for i in rows]
    return datasets.Dataset.from_dict(columns)


def peer_rate(model: Any, how: Peer, ours: Problem, rows: Sequence[int]) -> float:
    clock = peer_run(model, how, ours, rows)
    return len(rows) / (clock.end - clock.begin)
