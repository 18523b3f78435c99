"""`protocol=official` against the authors' computation, written anew from the rules in shared/method.md.

Nothing of the package computes what is expected here: a model of transformers, torch's own functions, and plain Python.
From a run come only its random draws, which no two programs share: the start, the order of the rows, the pooler.
Dropout is off, as its draws would not be the same either.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_models import (
    CPU,
    backbone,
    byte_level,
    choice_data,
    folder,
    run_in,
    toy_data,
    toy_problem,
    word_piece,
)
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor
from transformers.models.auto.modeling_auto import AutoModel

from llm_catalyst.config.build import RunComponents, build_components
from llm_catalyst.config.settings import Settings, StageLengths
from llm_catalyst.mentors.clients.base import Client, ClientResponse
from llm_catalyst.mentors.llm import LanguageModel
from llm_catalyst.models.prompted import PromptedText
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.optimizers.schedule import Schedule, StepRange
from llm_catalyst.runs.reader import FILES, read_lines
from llm_catalyst.runs.records import Evaluation, Message, Prompt, Restart, ScoredPrompt, Snapshot
from llm_catalyst.tasks.base import Example, TaskData
from llm_catalyst.tasks.batching import epoch_rows
from llm_catalyst.training.loop import Experiment
from llm_catalyst.training.problem import Problem, assemble_problem
from llm_catalyst.utils.paths import conf_directory

M, WIDTH, BATCH, RATE = 8, 30, 8, 2e-2  # tokens of a prompt and of a text, rows of a batch, learning rate
REPLIES = (  # of the mentor after epochs 0, 1 and 2
    '1. "bad film"\n- Say whether the film was good\n* the voice of the actor was slow',
    "The movie was\n-a light story of the long plot and a slow scene with music",
    '"bad"\n\n2. "is it good"\n* is it very, very bad music?',
)
FIRST = (  # what is used of each
    "Say whether the film was good",
    "The movie was",
    "is it very, very bad music?",
)


@cache
def official() -> RunComponents:
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config: Any = OmegaConf.to_container(
            compose("config", overrides=["protocol=official", "mentor=rehearsal", f"optimizer.lr={RATE}"]), resolve=True
        )
    return build_components(config)


def settings() -> Settings:
    """The preset's, but for sizes: five epochs, restarts after the first three."""
    stage = StageLengths(epochs=[1, 1, 1, 2])
    return replace(official().settings, batch_size=BATCH, stage=stage, device="cpu", view="none")


def pair_data() -> TaskData:
    """A task of pairs of texts."""

    def pairs(rows: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(Example(((e.sequences[0][0], "a slow film" if i % 3 else "the plot"),), e.label) for i, e in rows)

    data = toy_data(train=27)
    return replace(data, **{n: pairs(list(enumerate(getattr(data, n)))) for n in ("train", "dev", "test")})


def choices() -> TaskData:
    """A task of two choices each, with more than one batch."""
    data = choice_data()
    return replace(data, train=tuple(replace(row, label=i % 2) for i, row in enumerate(4 * data.train)))


DATA = {"single": lambda: toy_data(train=125, dev=13), "pair": pair_data, "choice": choices}


def problem_of(name: str, kind: str) -> Problem:
    frozen = backbone(name, False, True, True, kind="encoder", max_length=WIDTH, pooling="pooler")
    return assemble_problem(DATA[kind](), frozen, official().head, settings())


# The rules


@dataclass(frozen=True)
class Rules:
    """The frozen model and its tokenizer, and the rows of a task."""

    model: Any
    tokenizer: Any
    data: TaskData

    @classmethod
    def of(cls, name: str, problem: Problem) -> "Rules":
        model: Any = AutoModel.from_pretrained(folder(name), attn_implementation="eager").eval()
        model.pooler.load_state_dict(problem.model.backbone.base.pooler.state_dict())  # drawn
        return cls(model, {"roberta": byte_level, "bert": word_piece}[name](), problem.data)

    @property
    def embeddings(self) -> Tensor:
        return self.model.embeddings.word_embeddings.weight.detach()

    def logits(self, parameters: Mapping[str, Tensor], rows: Sequence[Example]) -> Tensor:
        """[P; the embedding layer's output] goes in as embeddings, so that positions and LayerNorm come twice.

        Token types enter the embedding layer, and the model is given none. The pooler reads the text's first token, or
        where choices are scored the prompt's first row.
        """
        texts, pairs = zip(*(sequence for row in rows for sequence in row.sequences), strict=True)
        both = [list(texts)] if pairs[0] is None else [list(texts), list(pairs)]
        padded = self.tokenizer(
            *both, padding="max_length", max_length=WIDTH, truncation=True, return_token_type_ids=True
        )
        ids, mask, types = (torch.tensor(padded[n]) for n in ("input_ids", "attention_mask", "token_type_ids"))
        text = self.model.embeddings(input_ids=ids, token_type_ids=types)
        prompt = parameters["prompt"].expand(len(ids), -1, -1)
        whole = torch.cat([torch.ones(len(ids), M, dtype=torch.long), mask], 1)
        states = self.model(inputs_embeds=torch.cat([prompt, text], 1), attention_mask=whole).last_hidden_state
        choices = len(rows[0].sequences)
        read = states[:, 0 if choices > 1 else M]
        pooled = torch.tanh(
            torch.nn.functional.linear(read, self.model.pooler.dense.weight, self.model.pooler.dense.bias)
        )
        scores = pooled @ parameters["head.weight"].T + parameters["head.bias"]
        return scores.view(-1, choices) if choices > 1 else scores

    def loss(self, parameters: Mapping[str, Tensor], rows: Sequence[Example]) -> Tensor:
        labels = torch.tensor([row.label for row in rows])
        return torch.nn.functional.cross_entropy(self.logits(parameters, rows), labels)

    @torch.no_grad()
    def evaluate(self, parameters: Mapping[str, Tensor]) -> tuple[float, float]:
        """Mean loss and accuracy on the validation rows."""
        logits, labels = self.logits(parameters, self.data.dev), torch.tensor([row.label for row in self.data.dev])
        loss = torch.nn.functional.cross_entropy(logits, labels).item()
        return loss, (logits.argmax(1) == labels).double().mean().item()

    def gradients(self, parameters: Mapping[str, Tensor], rows: Sequence[Example]) -> tuple[Tensor, dict[str, Tensor]]:
        leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in parameters.items()}
        loss = self.loss(leaves, rows)
        found = torch.autograd.grad(loss, list(leaves.values()))
        return loss.detach(), dict(zip(leaves, found, strict=True))

    def write(self, prompt: Tensor) -> str:
        """The text of the projection: for each row the least similar of the rows 4 to 14999, joined by blanks."""
        table = self.embeddings[4 : min(15000, len(self.tokenizer))]
        cosine = torch.nn.functional.normalize(prompt, dim=1) @ torch.nn.functional.normalize(table, dim=1).T
        return " ".join(self.spell(i + 4) for i in cosine.argmin(1).tolist())

    def spell(self, token: int) -> str:
        """One token's text as transformers 4.11.3 decodes it: without the blank before punctuation and its like."""
        text = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return re.sub(r"^ (?=[.?!,]|n't|'m|'s|'ve|'re)", "", text)

    def read(self, text: str) -> list[int]:
        """The tokens of a text as a prompt: special ones among them; a short one is filled before it is tokenized."""
        ids = self.tokenizer(text).input_ids
        return (ids if len(ids) >= M else self.tokenizer(text + " a" * 10).input_ids)[:M]


def thin(texts: Sequence[str]) -> list[str]:
    """Every n-th of the distinct ones, n a fifth of their number, but 1 or 2; the first five of these."""
    distinct = [text for i, text in enumerate(texts) if text not in texts[:i]]
    return distinct[:: min(max(len(distinct) // 5, 1), 2)][:5]


@dataclass
class Trace:
    """What a run brought. Lists are of epochs; `pools` are (text, loss, accuracy), worst first."""

    texts: list[str] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    scores: list[tuple[float, float]] = field(default_factory=list)
    distinct: list[int] = field(default_factory=list)
    pools: list[list[tuple[str, float, float]]] = field(default_factory=list)
    restarts: list[list[int]] = field(default_factory=list)
    parameters: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best(self) -> float:
        return max(accuracy for _, accuracy in self.scores)


def follow(
    rules: Rules,
    start: Mapping[str, Tensor],
    rows: Sequence[Sequence[Sequence[int]]],
    lr: float = RATE,
    their_eps: bool = False,
) -> Trace:
    """The run from `start` over these rows of each epoch's batches; `their_eps` adds AdamW's eps before correction."""
    now = {name: tensor.detach().clone() for name, tensor in start.items()}
    first, second = ({name: torch.zeros_like(t) for name, t in now.items()} for _ in range(2))
    total, taken, trace = sum(map(len, rows)), 0, Trace()
    for epoch, batches in enumerate(rows):
        rate, texts = lr * (1 - epoch / total), list[str]()
        for batch in batches:
            taken += 1
            _, gradients = rules.gradients(now, [rules.data.train[i] for i in batch])
            norm = torch.stack([g.norm() for g in gradients.values()]).norm()
            for name, gradient in gradients.items():
                gradient = gradient * min(1.0, 1.0 / (norm.item() + 1e-6))
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient**2
                correction = (1 - 0.999**taken) ** 0.5
                root = second[name].sqrt() + 1e-8 * (1 if their_eps else correction)
                now[name] = now[name] - rate * correction / (1 - 0.9**taken) * first[name] / root
            texts.append(rules.write(now["prompt"]))
            trace.rates.append(rate)
        trace.texts += texts
        trace.distinct.append(len({*texts}))
        trace.scores.append(rules.evaluate(now))
        if epoch < 3:
            scored = [
                (text, *rules.evaluate({**now, "prompt": rules.embeddings[rules.read(text)]})) for text in thin(texts)
            ]
            trace.pools.append(sorted(scored, key=lambda entry: -entry[1]))
            trace.restarts.append(rules.read(FIRST[epoch]))
            now["prompt"] = rules.embeddings[trace.restarts[-1]].clone()
    trace.parameters = now
    return trace


# One pass


@pytest.mark.parametrize(
    ("name", "kind"),
    [("roberta", "single"), ("roberta", "pair"), ("roberta", "choice"), ("bert", "pair"), ("bert", "choice")],
)
def test_logits_loss_and_gradients_are_those_of_the_rules(name: str, kind: str) -> None:
    problem = problem_of(name, kind)
    rules, rows = Rules.of(name, problem), [*range(5)]
    start = {n: torch.randn_like(t) for n, t in problem.start().items()}
    batch = problem.splits["train"].batch([rows], CPU, problem.padding)
    assert batch.width == WIDTH
    members = {n: t[None].clone().requires_grad_() for n, t in start.items()}
    assert isinstance(problem.model, PromptedText)
    logits, losses = problem.model.logits(members, batch)[0], problem.model.losses(members, batch)
    examples = [problem.data.train[i] for i in rows]
    loss, gradients = rules.gradients(start, examples)
    torch.testing.assert_close(logits, rules.logits(start, examples), atol=5e-5, rtol=1e-5)
    torch.testing.assert_close(losses.mean(), loss, atol=1e-5, rtol=1e-5)
    found = torch.autograd.grad(losses.mean(), list(members.values()))
    for (n, expected), gradient in zip(gradients.items(), found, strict=True):
        torch.testing.assert_close(gradient[0], expected, atol=2e-5, rtol=1e-4, msg=n)


@pytest.mark.parametrize(("name", "kind"), [("roberta", "choice"), ("bert", "pair")])
def test_without_the_official_states_the_logits_are_others(name: str, kind: str) -> None:
    problem = problem_of(name, kind)
    plain = backbone(name, False, True, kind="encoder", max_length=WIDTH, pooling="pooler")
    member = {n: torch.randn_like(t)[None] for n, t in problem.start().items()}
    batch = problem.splits["train"].batch([range(5)], CPU, problem.padding)
    with torch.no_grad():
        one, other = (
            PromptedText(frozen, official().head, {}, problem.model.limits).logits(member, batch)
            for frozen in (problem.model.backbone, plain)
        )
    assert (one - other).abs().max() > 1e-2


# Rates


@pytest.mark.parametrize(("epochs", "per_epoch", "share"), [(100, 295, 0.997), (120, 25, 0.96), (12, 35, 0.974)])
def test_the_rate_goes_down_by_one_step_of_the_schedule_an_epoch(epochs: int, per_epoch: int, share: float) -> None:
    total = epochs * per_epoch
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    optimizer.param_groups[0]["initial_lr"] = 1e-2
    schedule = official().settings.schedule
    scheduler = schedule.attach(optimizer, StepRange(0, total, total, 0, epoch=per_epoch))
    rates = []
    for _ in range(total):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([1e-2 * (1 - step // per_epoch / total) for step in range(total)], rel=1e-12)
    assert rates[-1] / 1e-2 == pytest.approx(share, abs=6e-4)


def test_a_resumed_or_later_stage_goes_on_at_the_rate_of_its_epoch() -> None:
    for done in (0, 9, 10, 25):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        optimizer.param_groups[0]["initial_lr"] = 1.0
        Schedule("linear", step="epoch").attach(optimizer, StepRange(0, 50, 50, done, epoch=10))
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1 - done // 10 / 50)


# Prompts


def space() -> PromptSpace:
    rows = torch.randn(len(byte_level()), 16, generator=torch.Generator().manual_seed(0))
    return PromptSpace(byte_level(), rows, official().settings.prompt)


def test_a_restart_is_the_text_and_its_filling_tokenized_as_one() -> None:
    tokenizer = byte_level()
    for text in (*FIRST, "bad", " slow film", "a", "the film was a very slow story and so very long"):
        ids = tokenizer(text).input_ids
        expected = ids if len(ids) >= M else tokenizer(text + " a" * 10).input_ids
        prompt, _ = space().fit(text)
        assert prompt == Prompt(tuple(expected[:M]), text)
    pieces = tokenizer.convert_ids_to_tokens(list(space().fit(" slow film")[0].tokens))
    assert pieces[:3] == ["<s>", "Ġslow", "Ġfilm"]
    assert pieces[3:] == ["Ġa"] * 5  # no special token within
    full = tokenizer(" the film was a slow film").input_ids
    assert len(full) == M
    assert tokenizer.convert_ids_to_tokens(list(space().fit(" the film was a slow film")[0].tokens))[-1] == "</s>"


def test_what_a_restart_has_no_room_for_is_told_without_special_tokens() -> None:
    assert space().fit("bad")[1] == ""
    assert space().fit(" the film was a very slow film music")[1] == "music"


def test_projections_are_distinct_by_text_and_thinned_and_tokenized_again() -> None:
    problem = problem_of("roberta", "single")
    tokenizer = byte_level()
    for n in (1, 4, 5, 9, 10, 14, 30):
        prompts = [problem.space.prompt([*range(20 + i, 28 + i)]) for i in range(n)]
        snapshots = [
            Snapshot(0, i, 0, 0.5, prompt, 0.5) for i, prompt in enumerate(p for p in prompts for _ in range(2))
        ]
        chosen = problem.candidates(snapshots)
        assert [prompt.text for prompt in chosen] == thin([prompt.text for prompt in prompts])
        for prompt in chosen:
            assert list(prompt.tokens) == (tokenizer(prompt.text).input_ids)[:M]
    good = tokenizer(" good film", add_special_tokens=False).input_ids
    assert problem.space.prompt(good).text == " ".join(tokenizer.decode([token]) for token in good)
    assert "  film" in problem.space.prompt(good).text  # two blanks


def test_a_blank_before_punctuation_is_left_out_as_their_transformers_did() -> None:
    class Spelling:
        """Stands for RoBERTa's tokenizer, which has such tokens."""

        clean_up_tokenization = staticmethod(word_piece().clean_up_tokenization)

        def decode(self, ids: Sequence[int], **_: Any) -> str:
            return [" film", " .", "n't", " 's", " ,", "the"][ids[0]]

    rows = torch.zeros(6, 4)
    assert replace(space(), tokenizer=Spelling(), vocabulary=rows).join([*range(6)]) == " film . n't 's , the"


def test_the_projection_is_the_least_similar_of_the_rows_4_to_14999() -> None:
    table = torch.zeros(15003, 4)
    table[:, 1] = torch.linspace(0.5, 1, 15003)
    table[:, 0] = 1.0
    for row in (3, 15000):  # the least similar of all
        table[row] = torch.tensor([-1.0, 0, 0, 0])
    table[14999] = torch.tensor([-0.5, 1.0, 0, 0])
    names = {f"t{i}": i for i in range(15003)}

    class Numbers:
        """Stands for a tokenizer of as many tokens."""

        all_special_ids = (0, 1, 2)
        added_tokens_decoder: Mapping[int, Any] = {}
        clean_up_tokenization = staticmethod(str)

        def get_vocab(self) -> Mapping[str, int]:
            return names

        def decode(self, ids: Sequence[int], **_: Any) -> str:
            return f"t{ids[0]}"

    found = PromptSpace(Numbers(), table, official().settings.prompt)
    (prompt,), _ = found.project(torch.tensor([[[1.0, 0, 0, 0]] * M]))
    assert prompt == Prompt((14999,) * M, " ".join(["t14999"] * M))


# Batches


def test_batches_are_a_plain_shuffle_whose_smaller_one_comes_last() -> None:
    data = problem_of("roberta", "single").splits["train"]
    for epoch in range(3):
        batches = epoch_rows(data, BATCH, 1, epoch, official().settings.bucket_batches)
        assert [len(batch) for batch in batches] == [8] * 15 + [5]
        assert sorted(i for batch in batches for i in batch) == [*range(125)]
    plain = epoch_rows(data, BATCH, 1, 0, 0)
    assert any(batch != sorted(batch, key=data.length) for batch in plain)


# A whole run


@dataclass
class Scripted(Client):
    """A client that gives REPLIES one by one, and keeps what it is sent."""

    model: str = "scripted"
    sent: list[str] = field(default_factory=list)

    def respond(self, messages: Sequence[Message], seed: int) -> ClientResponse:
        (message,) = messages
        assert message.role == "user"
        self.sent.append(message.content)
        return ClientResponse(REPLIES[len(self.sent) - 1], self.model, stop_reason="stop")


def shown(request: str) -> list[tuple[str, str, str]]:
    """The templates of a request, each with its loss and its accuracy as they are written."""
    return re.findall(r"^Template: (.*)\nLoss: (\d\.\d{3})\nAccuracy: (\d\.\d{3})$", request, re.MULTILINE)


@pytest.mark.parametrize("kind", ["single", "choice"])
def test_a_run_of_five_epochs_with_three_restarts_follows_the_rules(kind: str, tmp_path: Path) -> None:
    problem, client = problem_of("roberta", kind), Scripted()
    optimizer = replace(official().optimizer, dropout=False)
    examples = len(problem.data.train)
    plan = problem.settings.plan(examples)
    mentor = LanguageModel(client, official().mentor.strategy)
    outcome = run_in(tmp_path, Experiment(problem, optimizer, mentor, plan))

    rules = Rules.of("roberta", problem)
    rows = [epoch_rows(problem.splits["train"], BATCH, problem.settings.seed, epoch, 0) for epoch in range(5)]
    expected = follow(rules, problem.start(), rows)
    snapshots, evaluations = all_of(tmp_path, Snapshot), all_of(tmp_path, Evaluation)
    assert [s.prompt.text for s in snapshots] == expected.texts  # after every step
    assert evaluations[0].step == 0
    found = [(e.score.loss, e.score.metric) for e in evaluations[1:]]
    assert len(found) == 5
    for (loss, accuracy), (wanted, right) in zip(found, expected.scores, strict=True):
        assert loss == pytest.approx(wanted, abs=2e-5)
        assert accuracy == pytest.approx(right)
    assert outcome.best is not None
    assert outcome.best.step > 0
    assert outcome.best.score.metric == pytest.approx(expected.best)
    assert kind == "choice" or max(expected.distinct) > 9  # so that every second one is taken
    restarts = all_of(tmp_path, Restart)
    assert [list(r.prompt.tokens) for r in restarts] == expected.restarts
    assert [r.prompt.text for r in restarts] == list(FIRST)
    scored = all_of(tmp_path, ScoredPrompt)
    for stage, (pool, request) in enumerate(zip(expected.pools, client.sent, strict=True)):
        entries = sorted((s for s in scored if s.stage == stage), key=lambda s: -s.score.loss)
        assert [s.prompt.text for s in entries] == [text for text, _, _ in pool]
        assert [s.score.loss for s in entries] == pytest.approx([loss for _, loss, _ in pool], abs=2e-5)
        assert [list(s.prompt.tokens) for s in entries] == [rules.read(text) for text, _, _ in pool]
        assert shown(request) == [(text, f"{loss:.3f}", f"{accuracy:.3f}") for text, loss, accuracy in pool]
    last = load_file(sorted((tmp_path / "stages").iterdir())[-1] / "state.safetensors")
    for name, tensor in expected.parameters.items():
        if (kind, name) != ("choice", "head.bias"):  # of which no logit of a choice depends: its gradient is rounding
            torch.testing.assert_close(last[f"member0/{name}"], tensor, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["single", "choice"])
def test_what_remains_adamws_eps_moves_the_loss_by_less_than_a_ten_thousandth(kind: str) -> None:
    """docs/protocols.md names the difference. At the largest rate of the published scripts."""
    problem = problem_of("roberta", kind)
    rules = Rules.of("roberta", problem)
    rows = [epoch_rows(problem.splits["train"], BATCH, problem.settings.seed, epoch, 0) for epoch in range(5)]
    ours, theirs = (follow(rules, problem.start(), rows, 1e-2, their_eps) for their_eps in (False, True))
    assert [loss for loss, _ in ours.scores] == pytest.approx([loss for loss, _ in theirs.scores], abs=1e-4)


def all_of(path: Path, kind: type[Any]) -> tuple[Any, ...]:
    """The records of a kind in a run directory."""
    found: tuple[Any, ...] = read_lines(path / FILES[kind], kind)
    return found


def test_the_untrained_start_is_scored_and_cannot_be_the_best(tmp_path: Path) -> None:
    """At a rate that ruins everything, the start is the best state of all."""
    bests = {}
    for count in (True, False):
        problem = toy_problem("roberta")
        protocol = replace(problem.settings.protocol, count_start=count)
        problem = replace(problem, settings=replace(problem.settings, protocol=protocol, criterion="loss"))
        optimizer = replace(official().optimizer, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e3))
        found = run_in(tmp_path / str(count), Experiment(problem, optimizer, LanguageModel(Scripted(), None), (3,)))
        assert found.start_dev is not None
        bests[count] = found.best.step if found.best else None
    assert bests[True] == 0
    assert bests[False] == 3


# What is asked


@pytest.mark.parametrize("preset", ["gpt4_1106", "gpt35_1106"])
def test_the_presets_send_model_and_messages_only(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-key-but-not-empty")
    made = {}
    for words in (
        (),
        ("mentor.client.temperature=0.8", "mentor.client.presence_penalty=1", "mentor.client.max_tokens=1200"),
    ):
        with initialize_config_dir(str(conf_directory()), version_base="1.3"):
            config: Any = OmegaConf.to_container(
                compose("config", overrides=["protocol=official", f"mentor={preset}", *words]), resolve=True
            )
        made[bool(words)] = build_components(config).mentor.client
    assert made[False].model == {"gpt4_1106": "gpt-4-1106-preview", "gpt35_1106": "gpt-3.5-turbo-1106"}[preset]
    assert made[False].parameters(7) == {}
    assert made[True].parameters(7) == {"max_completion_tokens": 1200, "temperature": 0.8, "presence_penalty": 1}


def test_the_request_names_neither_the_task_nor_its_labels(tmp_path: Path) -> None:
    problem, client = problem_of("roberta", "single"), Scripted()
    plan = problem.settings.plan(len(problem.data.train))
    run_in(tmp_path, Experiment(problem, official().optimizer, LanguageModel(client, official().mentor.strategy), plan))
    assert len(client.sent) == 3
    for request in client.sent:
        rest = re.sub(r"^Template: .*$", "", request, flags=re.MULTILINE)
        for word in ("film", "good", "bad", "toy", "token"):
            assert word not in rest, word
        for words in ("text classification", "image classification", "fewer than 9 words", "3 templates"):
            assert words in rest, words
        losses = [float(loss) for _, loss, _ in shown(request)]
        assert losses == sorted(losses, reverse=True)
        assert 1 <= len(losses) <= 5
