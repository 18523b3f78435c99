"""The problem that a run optimizes: a soft prompt (and a head) of one frozen backbone on one task.

Its methods return what the training loop needs: a prompt's start, the next batches, projections, scores.
Shapes: k members, m virtual tokens, d embedding width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llm_catalyst.config.settings import Settings
from llm_catalyst.mentors.base import TaskDescription
from llm_catalyst.models.backbones import clip, loading, text
from llm_catalyst.models.backbones.compatibility import refuse_missing_rows
from llm_catalyst.models.base import Parameters, map_alike
from llm_catalyst.models.generator import PromptedGenerator
from llm_catalyst.models.heads.base import TextHead
from llm_catalyst.models.image_features import load_features
from llm_catalyst.models.prompted import PromptedClip, PromptedText
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.runs.records import Prompt, Snapshot, Split
from llm_catalyst.tasks.base import Example, TaskData, Tell, ignore, majority_share, steps_per_epoch
from llm_catalyst.tasks.batching import Batch, Examples, count_padded_tokens, training_rows
from llm_catalyst.tasks.generation_task import measure_constant
from llm_catalyst.tasks.request_batching import EncodedRequests
from llm_catalyst.tasks.request_layout import RequestLayout, encode_requests
from llm_catalyst.tasks.request_lengths import refuse_long_requests, warn_long_answers
from llm_catalyst.tasks.token_warnings import warn_tokens
from llm_catalyst.tasks.tokenization import encode_around, encode_splits, fill_cloze
from llm_catalyst.tasks.truncation import Truncation, measure_truncation
from llm_catalyst.training.generation_scoring import score_generations
from llm_catalyst.training.scoring import Results, classification_metrics, score_members
from llm_catalyst.utils.memory import PassLimits
from llm_catalyst.utils.prompt_file import read_prompts
from llm_catalyst.utils.rng import derive_seed, make_generator
from llm_catalyst.utils.terminal import quote_prompt
from llm_catalyst.utils.validation import ConfigurationError

Splits = dict[Split, Examples]
LONGEST_TEXT = 512  # tokens, where no key gives a limit: 99.7 % of BoolQ's rows are whole, and 56 % with 128


@dataclass(frozen=True)
class Problem:
    """A loaded task, backbone and head, with the run's settings.

    `unseen` is the same with other classes, on which a prompt is reported that was learned on these (base-to-new).
    `compiled_before` are the seconds that this process had spent on compiling models; None: this one is not compiled.
    `warnings` are for the user, before the run. `truncation` are the rows that lost text; None for pictures.
    """

    data: TaskData
    splits: Splits
    model: PromptedText | PromptedClip | PromptedGenerator
    space: PromptSpace
    settings: Settings
    unseen: "Problem | None" = None
    compiled_before: float | None = None
    warnings: tuple[str, ...] = ()
    truncation: Truncation | None = None

    @property
    def device(self) -> torch.device:
        return self.model.backbone.device

    @property
    def description(self) -> TaskDescription:
        task = self.data.task
        return TaskDescription(task.name, task.describe(), self.data.labels, tuple(map(task.show, self.data.train)))

    def label(self, answer: int | str | None) -> str | None:
        """The name of a label id; a generated answer is its own."""
        return self.data.labels[answer] if isinstance(answer, int) else answer

    @property
    def examples(self) -> int:
        """Examples of the training split."""
        return len(self.splits["train"])

    @property
    def majority_on_dev(self) -> float:
        """Accuracy of always answering dev's most frequent label, or answer."""
        if isinstance(self.model, PromptedGenerator):
            return measure_constant(self.model.task, self.data.dev)
        return majority_share(self.data.dev)

    @property
    def majority(self) -> float:
        """Accuracy of always answering the reporting split's most frequent label, or answer."""
        if self.data.task.generates:
            return self.majority_metric
        return majority_share(self.data.test)

    @property
    def majority_metric(self) -> float:
        """The task's metric of always answering the reporting split's most frequent label, or answer."""
        if isinstance(self.model, PromptedGenerator):
            return measure_constant(self.model.task, self.data.test)
        labels = torch.tensor([row.label for row in self.data.test])
        answers = torch.full_like(labels, int(labels.mode().values))
        return classification_metrics(answers, labels)[self.data.task.metric]

    @property
    def padding(self) -> int | None:
        """Tokens that every text is padded to; None pads to the longest of a batch."""
        if not self.settings.protocol.pad_to_max_length or self.truncation is None:
            return None
        given = asked_length(self.data, self.settings) or self.model.backbone.settings.max_length
        return self.truncation.limit if given else min(self.truncation.limit, self.truncation.longest)

    @property
    def compile_seconds(self) -> float | None:
        """Seconds that this process has spent on compiling since this was assembled; None where nothing is compiled."""
        return None if self.compiled_before is None else loading.compile_seconds() - self.compiled_before

    def start(self) -> dict[str, Tensor]:
        """A new member's parameters: the soft prompt where `prompt.start` says, and a new head.

        Of several prompts in a file it is the first one.
        """
        model: Any = self.model
        head = model.head.weights(model.backbone, self.data, make_generator(self.settings.seed, "head"))
        return {"prompt": self.space.start(make_generator(self.settings.seed, "prompt"))} | head

    def batches(self, k: int, first_step: int) -> Iterator[Batch]:
        """Training batches from a step on, the same examples for each of k members."""
        train, settings = self.splits["train"], self.settings
        stream = training_rows(train, settings.batch_size, settings.seed, first_step, settings.bucket_batches)
        for step, rows in enumerate(stream, first_step):
            # Dropout, where a protocol has it, draws from torch's global generator: seeded at each step, it does
            # not depend on the steps before.
            torch.manual_seed(derive_seed(settings.seed, "dropout", step))
            epoch = step // steps_per_epoch(len(train), settings.batch_size)
            yield train.batch([rows], self.device, self.padding, epoch).expand(k)

    def count_tokens(self, data: Examples, rows: Sequence[int]) -> int:
        """Tokens of one pass over these examples, padding and prompts included."""
        return len(rows) * count_padded_tokens(data, rows, self.space.length, self.padding)

    def requests(self, split: Split) -> EncodedRequests:
        """A split of a generation task."""
        data = self.splits[split]
        assert isinstance(data, EncodedRequests)
        return data

    def score(self, members: Sequence[Parameters], split: Split = "dev") -> Results:
        """Each member's loss and metrics on a split."""
        if isinstance(self.model, PromptedGenerator):
            return score_generations(self.model, members, self.requests(split))
        return score_members(self.model, members, self.splits[split], self.data.task.metric, self.padding)

    def score_prompts(self, prompts: Sequence[Prompt], head: Parameters, split: Split = "dev") -> Results:
        """Loss and metrics of discrete prompts, each embedded anew, under one member's head."""
        members = [{**head, "prompt": rows} for rows in self.space.embed_each(prompts)]
        return self.score(members, split) if members else []

    def project(self, members: Sequence[Parameters]) -> tuple[list[Prompt], list[float]]:
        """The discrete prompts nearest to the members' soft ones, and how similar they are."""

        def work(alike: Sequence[Parameters]) -> list[tuple[Prompt, float]]:
            return list(zip(*self.space.project(torch.stack([one["prompt"] for one in alike])), strict=True))

        found = map_alike(members, work)
        return [prompt for prompt, _ in found], [similarity for _, similarity in found]

    def candidates(self, snapshots: Sequence[Snapshot]) -> list[Prompt]:
        """The distinct prompts of a trajectory, at most `pool.candidates`: spread over it, the last always in.

        Under `protocol.first_candidates` (published code) the first ones are taken instead, with gaps of at most
        `protocol.candidate_gap` between them.
        """
        distinct, most = self.space.distinct(snapshot.prompt for snapshot in snapshots), self.settings.pool.candidates
        n, last = min(most, len(distinct)), len(distinct) - 1
        chosen = [distinct[last - round(i * last / max(1, n - 1))] for i in range(n)][::-1]
        if self.settings.protocol.first_candidates:
            gap = min(max(1, len(distinct) // most), self.settings.protocol.candidate_gap)
            chosen = distinct[::gap][:most]
        return [self.space.reread(prompt) for prompt in chosen]


def assemble_problem(
    data: TaskData, backbone: Any, head: Any, settings: Settings, tell: Tell = ignore, unseen: TaskData | None = None
) -> Problem:
    """The problem of training a soft prompt of `backbone` under `head` on `data`.

    `tell` is called with the progress of encoding texts or images; `unseen` are other classes to report on.
    """
    make_model: Any
    truncation, found = None, list[str]()
    if data.task.modality == "image":
        splits, make_model = encode_images(data, backbone, settings, tell), PromptedClip
    elif data.task.generates:
        data, splits, found = encode_generation(data, backbone, settings)
        task: Any = data.task
        make_model = partial(PromptedGenerator, task=task)
    else:
        (splits, truncation, found), make_model = encode_texts(data, backbone, head, settings, tell), PromptedText
    limits = PassLimits(settings.micro_batch or settings.batch_size, settings.token_budget)
    model = make_model(backbone, head, head.constants(backbone, data), limits)
    compiled_before = loading.compile_seconds() if backbone.compiled else None
    class_at = head.class_at(settings.prompt.length)
    texts = list_start_texts(data, settings)
    space = PromptSpace(backbone.tokenizer, backbone.vocabulary, settings.prompt, class_at, texts)
    space.check()
    other = assemble_problem(unseen, backbone, head, settings, tell) if unseen else None
    warnings = (*backbone.warnings, *head.warnings(backbone, data), *found, *warn_cut(space))
    return Problem(data, splits, model, space, settings, other, compiled_before, warnings, truncation)


def list_start_texts(data: TaskData, settings: Settings) -> tuple[str, ...]:
    """The texts of prompt.start=task or file; () for another start."""
    match settings.prompt.start:
        case "task":
            return (data.task.start_text(),)
        case "file":
            return tuple(read_prompts("prompt.file", settings.prompt.file or ""))
    return ()


def warn_cut(space: PromptSpace) -> list[str]:
    """A warning for each text to start from that has more than m tokens."""
    fitted = [(text, *space.fit(text)) for text in space.start_texts]
    return [
        f"prompt.start={space.settings.start}: {quote_prompt(text)} has more than prompt.length={space.length} tokens, "
        f"and is cut to {quote_prompt(prompt.text)}"
        for text, prompt, lost in fitted
        if lost
    ]


def encode_texts(
    data: TaskData, backbone: text.FrozenText, head: TextHead, settings: Settings, tell: Tell
) -> tuple[Splits, Truncation, list[str]]:
    """The splits as token ids, the rows that lost text, and warnings about both."""
    longest = limit_text(asked_length(data, settings), backbone, settings.prompt.length)
    cloze = cloze_for(backbone, data.task.cloze) if head.words else None
    refuse_short_limit(data, backbone, settings, longest, cloze)
    rows = {"train": data.train, "dev": data.dev, "test": data.test}
    encoded = dict(zip(rows, encode_splits(backbone.tokenizer, [*rows.values()], longest, cloze, tell), strict=True))
    if len(backbone.tokenizer) > len(backbone.vocabulary):
        largest = (max(row, default=0) for split in encoded.values() for row in split.tokens)
        refuse_missing_rows(backbone, largest, f"task={data.task.name}: a text")
    splits: Splits = {"train": encoded["train"], "dev": encoded["dev"], "test": encoded["test"]}
    truncation = measure_truncation(backbone.tokenizer, rows, encoded, longest, cloze)
    pair = cloze is None and data.train[0].sequences[0][1] is not None
    fixed = encode_around(backbone.tokenizer, pair, cloze)
    warnings = warn_tokens(backbone.tokenizer, backbone.settings.name, {n: e.tokens for n, e in encoded.items()}, fixed)
    return splits, truncation, [*truncation.describe(backbone.longest_text(settings.prompt.length)), *warnings]


def asked_length(data: TaskData, settings: Settings) -> int | None:
    """The tokens of a text that `task.max_length`, or where it is null `protocol.max_length`, asks for at most."""
    return data.task.max_length or settings.protocol.max_length


def limit_text(asked: int | None, backbone: text.FrozenText, prompt_length: int) -> int:
    """The tokens of a text that are read: `asked` at most, and what fits beside the prompt.

    Where no key gives a limit it is LONGEST_TEXT.
    """
    given = asked or backbone.settings.max_length or LONGEST_TEXT
    return min(given, backbone.longest_text(prompt_length) or given)


def refuse_short_limit(
    data: TaskData, backbone: text.FrozenText, settings: Settings, longest: int, cloze: str | None
) -> None:
    """Raise ConfigurationError where sequences of at most `longest` tokens hold none of the texts."""
    pair = cloze is None and data.train[0].sequences[0][1] is not None
    fixed, needed = len(encode_around(backbone.tokenizer, pair, cloze)), 2 if pair else 1
    if longest >= fixed + needed:
        return
    limits = {
        "task.max_length": data.task.max_length,
        "backbone.max_length": backbone.settings.max_length,
        "protocol.max_length": settings.protocol.max_length,
    }
    key = next((key for key, limit in limits.items() if limit == longest), "")
    where = f"{key}={longest}" if key else f"the {longest} positions beside the prompt"
    taken = "special tokens" if cloze is None else f"task.cloze={cloze!r} and special tokens"
    fix = f"set {key}={fixed + needed} at least" if key else "make prompt.length smaller"
    raise ConfigurationError(f"{where} leaves no token for the text: {taken} take {fixed}; {fix}")


def encode_generation(
    data: TaskData, backbone: text.FrozenText, settings: Settings
) -> tuple[TaskData, Splits, list[str]]:
    """The data whose train has not the rows of the few-shot block, the splits as encoded requests, and warnings."""
    task: Any = data.task
    shots = task.draw_few_shot(data.train, settings.seed)
    data = replace(data, train=tuple(row for row in data.train if row not in shots))
    layout = RequestLayout(task, shots, backbone.chat)
    rows: dict[Split, Sequence[Example]] = {"train": data.train, "dev": data.dev, "test": data.test}
    encoded = {name: encode_requests(layout, backbone.tokenizer, own) for name, own in rows.items()}
    refuse_long_requests(encoded, task, settings.prompt.length, backbone.settings.name, backbone.positions)
    return data, {**encoded}, warn_long_answers(encoded, task)


def encode_images(data: TaskData, backbone: clip.FrozenClip, settings: Settings, tell: Tell) -> Splits:
    """The splits as image features; train in augmented views."""
    train = load_features(backbone, data.train, backbone.settings.views, settings.seed, tell)
    dev, test = (load_features(backbone, examples, tell=tell) for examples in (data.dev, data.test))
    return {"train": train, "dev": dev, "test": test}


def cloze_for(backbone: text.FrozenText, cloze: str) -> str:
    """The cloze with the mask token in it, or its beginning up to there for a causal model."""
    return fill_cloze(cloze, None if backbone.causal else backbone.tokenizer.mask_token)
