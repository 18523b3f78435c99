"""Each fault of the published code (shared/method.md): mended under `heldout`, followed under `official`.

The row "no vision code at all" is not a choice of a protocol and has no test here.
"""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.dialogues import first_request
from helpers.tiny import consultation
from helpers.tiny_models import (
    CPU,
    LABELS,
    backbone,
    folder,
    plenty,
    run_in,
    sentences,
    toy_data,
    toy_problem,
    toy_settings,
    toy_task,
    word_piece,
)
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor, nn

from llm_catalyst.config.build import RunComponents, build_components
from llm_catalyst.config.settings import Evaluations, Interval, Settings, StageLengths
from llm_catalyst.mentors.base import Mentor, MentorContext
from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.text import load_text_backbone
from llm_catalyst.models.heads.text import Classifier
from llm_catalyst.models.prompted import PromptedText
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.base import Member, PromptOptimizer
from llm_catalyst.optimizers.schedule import StepRange
from llm_catalyst.runs.reader import read_lines
from llm_catalyst.runs.records import Advice, Proposal, Rejected, Restart, Snapshot
from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.batching import Batch
from llm_catalyst.tasks.tokenization import encode_examples
from llm_catalyst.training.loop import Experiment
from llm_catalyst.training.problem import Problem, assemble_problem
from llm_catalyst.training.run import load_problem
from llm_catalyst.utils.paths import conf_directory
from llm_catalyst.utils.validation import ConfigurationError

PROTOCOLS = ("heldout", "official")
EPSILON = 1e-12  # of the tiny RoBERTa's LayerNorms, the default of its configuration
SCRIPTS = {  # the published run scripts: batch, learning rate, epochs
    "boolq": (32, 7e-3, 100),
    "copa": (16, 9e-3, 120),
    "rte": (32, 5e-3, 100),
    "wic": (32, 1e-2, 50),
    "wsc": (16, 1e-2, 12),
}


@cache
def composed(*words: str) -> dict[str, Any]:
    """What `catalyst run <words>` composes, as plain values."""
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("config", overrides=list(words)), resolve=True)
    return config


@cache
def parts(*words: str) -> RunComponents:
    return build_components(composed(*words))


def settings_of(protocol: str) -> Settings:
    return parts(f"protocol={protocol}").settings


def tiny(protocol: str, **changes: Any) -> Problem:
    """The toy task on a tiny RoBERTa under a preset: its settings, but for sizes and lengths."""
    chosen = parts(f"protocol={protocol}")
    settings = replace(
        chosen.settings,
        batch_size=8,
        stage=StageLengths(steps=3, early_share=None),
        stages=2,
        record=Interval(steps=1),
        evaluate=Evaluations(steps=3),
        device="cpu",
        view="none",
        **changes,
    )
    data = toy_data()
    if settings.protocol.report_on == "dev":
        data = replace(data, dev=data.test)
    model = backbone(
        "roberta",
        chosen.head.words,
        settings.protocol.embed_twice,
        settings.protocol.official_states,
        kind="encoder",
        max_length=30,
        pooling=chosen.backbone.pooling,
    )
    return assemble_problem(data, model, chosen.head, settings)


# The presets, key by key.


@pytest.mark.parametrize(
    ("key", "heldout", "official"),
    [
        ("protocol.name", "heldout", "official"),
        ("protocol.report_on", "test", "dev"),
        ("protocol.embed_twice", False, True),
        ("protocol.dropout", False, True),
        ("protocol.pad_to_max_length", False, True),
        ("protocol.first_candidates", False, True),
        ("protocol.candidate_gap", 1, 2),
        ("protocol.count_start", True, False),
        ("protocol.official_states", False, True),
        ("prompt.projection", "cosine", "official"),
        ("prompt.projection_rows", None, (4, 15000)),
        ("prompt.special_tokens", False, True),
        ("prompt.as_text", False, True),
        ("prompt.start", "normal", "normal"),
        ("prompt.std", None, 0.02),
        ("prompt.fill", "repeat", " a"),
        ("prompt.length", 8, 8),
        ("criterion", "loss", None),
        ("restart.choose", "if_better", "first"),
        ("restart.carry", 1.0, 0.0),
        ("restart.moments", "prompt", "keep"),
        ("restart.warm_up", 10, 0),
        ("schedule.name", "constant", "linear"),
        ("schedule.over", "run", "run"),
        ("schedule.step", "step", "epoch"),
        ("bucket_batches", None, 0),
        ("record.steps", 5, 1),
        ("schedule.warm_up", 0.0, 0.0),
        ("clip_norm", 1.0, 1.0),
        ("pool.keep", True, False),
        ("pool.candidates", 8, 5),
        ("pool.size", 10, 5),
        ("evaluate.epochs", None, 1),
    ],
)
def test_each_key_of_the_two_presets_is_as_documented(key: str, heldout: Any, official: Any) -> None:
    for protocol, expected in (("heldout", heldout), ("official", official)):
        value: Any = settings_of(protocol)
        for name in key.split("."):
            value = getattr(value, name)
        assert value == expected, protocol


def test_the_presets_set_the_optimizer_and_the_head_too() -> None:
    heldout, official = parts("protocol=heldout"), parts("protocol=official")
    assert (heldout.optimizer.dropout, official.optimizer.dropout) == (False, True)
    assert (heldout.optimizer.schedule.name, official.optimizer.schedule.name) == ("constant", "linear")
    assert (heldout.backbone.pooling, official.backbone.pooling) == (None, "pooler")
    limits = [each.settings.protocol.max_length for each in (heldout, official)]
    assert (limits, heldout.task.max_length, official.task.max_length) == ([None, 128], None, None)
    for chosen in (heldout, official):
        optimizer = chosen.optimizer.optimizer([nn.Parameter(torch.zeros(1))])
        assert isinstance(optimizer, torch.optim.AdamW)
        assert optimizer.param_groups[0]["weight_decay"] == 0
        assert chosen.optimizer.clip_norm == 1.0
        assert chosen.head.dropout == 0.1


def test_the_default_is_the_held_out_protocol() -> None:
    assert composed() == composed("protocol=heldout")
    assert composed() != composed("protocol=official")


@pytest.mark.parametrize("task", SCRIPTS)
def test_the_published_run_scripts_are_experiments(task: str) -> None:
    batch, rate, epochs = SCRIPTS[task]
    chosen = parts(f"experiment=official/{task}")
    settings, rows = chosen.settings, 100 * batch
    assert chosen.task.name == task
    assert chosen.backbone.name.endswith("roberta-large")
    assert settings.protocol.name == "official"
    assert settings.batch_size == batch
    assert chosen.optimizer.optimizer([nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"] == pytest.approx(rate)
    assert settings.plan(rows) == (100, 100, 100, 100 * (epochs - 3))  # restarts after epochs 0, 1 and 2
    assert settings.every("evaluate", rows) == 100
    restated = replace(settings, **{n: getattr(settings_of("official"), n) for n in ("batch_size", "stage")})
    assert restated == settings_of("official")


# Row: the projection picks the least similar token.


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_row_the_projection_takes_the_least_similar_token_only_under_official(protocol: str) -> None:
    problem = tiny(protocol)
    space = problem.space
    soft = problem.start()["prompt"][None]
    (prompt,), _ = space.project(soft)
    cosine = nn.functional.normalize(soft[0], dim=-1) @ nn.functional.normalize(space.vocabulary, dim=-1).T
    if protocol == "official":
        assert prompt.tokens == tuple((cosine[:, 4 : len(space.tokenizer)].argmin(-1) + 4).tolist())
    else:
        assert prompt.tokens == tuple(cosine.masked_fill(~space.allowed, -2.0).argmax(-1).tolist())


# Row: validation data both choose and report.


@pytest.fixture
def rows_on_disk(tmp_path: Path) -> Path:
    for split, n, seed in (("train", 40, 1), ("validation", 20, 2)):
        lines = [json.dumps({"text": t, "label": LABELS[i % 2]}) for i, t in enumerate(sentences(n, seed))]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_row_the_validation_rows_choose_only_under_official(protocol: str, rows_on_disk: Path) -> None:
    chosen = parts(f"protocol={protocol}")
    settings = replace(chosen.settings, device="cpu")
    problem = load_problem(
        replace(
            chosen,
            settings=settings,
            task=toy_task(path=str(rows_on_disk)),
            backbone=TextBackbone(folder("roberta"), max_length=20),
        )
    )
    data = problem.data
    train, dev, test = ({e.sequences for e in rows} for rows in (data.train, data.dev, data.test))
    assert len(data.test) == 20
    if protocol == "official":
        assert data.dev == data.test
        assert len(data.train) == 40
    else:
        assert not dev & test
        assert not dev & train
        assert len(data.train) + len(data.dev) == 40
    assert problem.model.backbone.twice is (protocol == "official")


# Row: positions and LayerNorm are applied twice. The parity test.


def layer_norm(x: Tensor, layer: Any) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + EPSILON).sqrt() * layer.weight + layer.bias


def linear(x: Tensor, layer: Any) -> Tensor:
    return x @ layer.weight.T + layer.bias


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def attention(x: Tensor, mask: Tensor, layer: Any, heads: int) -> Tensor:
    """Multi-head self-attention over the positions that `mask` (r, s) leaves, with its output layer."""
    r, s, width = x.shape

    def split(y: Tensor) -> Tensor:
        return y.view(r, s, heads, width // heads).transpose(1, 2)

    own = layer.attention.self
    query, key, value = (split(linear(x, projection)) for projection in (own.query, own.key, own.value))
    weights = query @ key.transpose(-1, -2) / (width // heads) ** 0.5
    weights = weights.masked_fill(mask[:, None, None] == 0, float("-inf")).softmax(-1)
    mixed = (weights @ value).transpose(1, 2).reshape(r, s, width)
    output = layer.attention.output
    return layer_norm(linear(mixed, output.dense) + x, output.LayerNorm)


def encoder(x: Tensor, mask: Tensor, model: Any) -> Tensor:
    for layer in model.encoder.layer:
        x = attention(x, mask, layer, model.config.num_attention_heads)
        inner = gelu(linear(x, layer.intermediate.dense))
        x = layer_norm(linear(inner, layer.output.dense) + x, layer.output.LayerNorm)
    return x


def published_logits(model: Any, prompt: Tensor, batch: Batch, weight: Tensor, bias: Tensor, twice: bool) -> Tensor:
    """The published forward pass for one member, on RoBERTa's weights: embeddings, prompt in front, again embeddings.

    Positions: a padding token's is the padding id in the first pass; in the second all count on, the prompt's first.
    """
    layer, pad = model.embeddings, model.config.pad_token_id
    tokens, mask = batch.tokens[0], batch.mask[0]
    rows = layer.word_embeddings.weight[tokens]
    if twice:
        positions = mask.cumsum(-1) * mask + pad
        first = rows + layer.position_embeddings.weight[positions] + layer.token_type_embeddings.weight[0]
        rows = layer_norm(first, layer.LayerNorm)
    m = len(prompt)
    whole = torch.cat([prompt.expand(len(tokens), *prompt.shape), rows], 1)
    positions = torch.arange(pad + 1, pad + 1 + whole.shape[1])
    second = whole + layer.position_embeddings.weight[positions] + layer.token_type_embeddings.weight[0]
    states = encoder(
        layer_norm(second, layer.LayerNorm), torch.cat([torch.ones(len(tokens), m, dtype=torch.long), mask], 1), model
    )
    pooled = torch.tanh(linear(states[:, m], model.pooler.dense))
    return pooled @ weight.T + bias


@pytest.mark.parametrize("twice", [True, False])
@pytest.mark.parametrize("pad_to", [30, None])
def test_row_the_official_forward_pass_equals_the_published_one_written_out(twice: bool, pad_to: int | None) -> None:
    frozen = backbone("roberta", False, twice, kind="encoder", max_length=30, pooling="pooler")
    head, data = Classifier(), toy_data()
    batch = encode_examples(frozen.tokenizer, data.dev, 30).batch([range(6)], CPU, pad_to)
    rng = torch.Generator().manual_seed(3)
    prompt, weight, bias = (torch.randn(shape, generator=rng) for shape in ((8, 32), (2, 32), (2,)))
    parameters = {"prompt": prompt[None], "head.weight": weight[None], "head.bias": bias[None]}
    with torch.no_grad():
        found = PromptedText(frozen, head, {}, plenty()).logits(parameters, batch)[0]
        expected = published_logits(frozen.base, prompt, batch, weight, bias, twice)
        other = published_logits(frozen.base, prompt, batch, weight, bias, not twice)
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=1e-5)  # float32; how far it is off varies by processor
    assert (found - other).abs().max() > 1e-2  # once and twice can be told apart


def test_row_the_whole_preset_gives_the_published_logits() -> None:
    """As above, with everything that `protocol=official` composes: head, start, padding, evaluation mode."""
    problem = tiny("official")
    member = problem.start()
    model = problem.model.backbone.base
    batch = next(problem.batches(1, 0))
    assert batch.tokens.shape[-1] == 30
    with torch.no_grad():
        found = problem.model.logits({n: p[None] for n, p in member.items()}, batch)[0]
        expected = published_logits(model, member["prompt"], batch, member["head.weight"], member["head.bias"], True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_frozen_pooler_depends_on_the_runs_seed(rows_on_disk: Path) -> None:
    def pooler(seed: int) -> Tensor:
        chosen = parts("protocol=official")
        settings = replace(chosen.settings, device="cpu", seed=seed)
        task, model = toy_task(path=str(rows_on_disk)), TextBackbone(folder("roberta"), max_length=20)
        layer = load_problem(replace(chosen, settings=settings, task=task, backbone=model)).model.backbone.base.pooler
        assert not layer.dense.weight.requires_grad
        return layer.dense.weight

    assert torch.equal(pooler(1), pooler(1))
    assert not torch.equal(pooler(1), pooler(2))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_backbones_dropout_is_active_in_training_steps_only_under_official(protocol: str) -> None:
    """The same batches and the same start: without dropout torch's global generator changes nothing."""
    problem = tiny(protocol)
    optimizer = replace(parts(f"protocol={protocol}").optimizer, optimizer=partial(torch.optim.SGD, lr=1e-3))
    losses = []
    for seed in (1, 1, 2):
        batches = [next(problem.batches(1, step)) for step in range(3)]
        torch.manual_seed(seed)
        steps = optimizer.train(problem.model, [Member.of(problem.start())], iter(batches), StepRange(0, 3, 3, 0))
        losses.append([step.losses[0] for step in steps])
    assert losses[0] == losses[1]
    assert (losses[0] == losses[2]) is (protocol == "heldout")
    evaluations = [problem.score([problem.start()]) for _ in range(2)]
    assert evaluations[0] == evaluations[1]


def test_dropout_follows_from_the_runs_seed_and_the_step() -> None:
    problem = tiny("official")
    optimizer = parts("protocol=official").optimizer

    def losses(first: int) -> list[float]:
        torch.manual_seed(torch.seed())
        start = [Member.of(problem.start())]
        step_range = StepRange(first, first + 3, 9, first)
        return [s.losses[0] for s in optimizer.train(problem.model, start, problem.batches(1, first), step_range)]

    assert losses(0) == losses(0)
    seeds = set()
    for seed in (1, 2):
        for first in (0, 3, 6):
            next(toy_problem(seed=seed).batches(1, first))
            seeds.add(torch.initial_seed())
    assert len(seeds) == 6


# Row: special tokens inside the restart prompt.


def test_row_a_restart_holds_special_tokens_only_under_official() -> None:
    special = {*backbone("roberta").tokenizer.all_special_ids}
    official, heldout = tiny("official").space, tiny("heldout").space
    prompt, lost = official.fit(" good film")
    names = official.tokenizer.convert_ids_to_tokens(list(prompt.tokens))
    assert names == ["<s>", "Ġgood", "Ġfilm", *["Ġa"] * 5]
    assert lost == ""
    cut, lost = official.fit(" good film" * 9)
    assert official.tokenizer.convert_ids_to_tokens(cut.tokens[0]) == "<s>"
    assert len(cut.tokens) == 8
    assert lost
    assert not special & {*heldout.fit("good film")[0].tokens}


# Rows: moments at a restart, only the first of three proposals, what enters the pool.


@dataclass
class Scripted(Mentor):
    """A mentor that proposes fixed texts and keeps what it was shown."""

    texts: Sequence[str] = ("slow slow slow", "a very good film", "bad music")
    shown: tuple[MentorContext, ...] = ()

    def propose(self, context: MentorContext) -> Advice:
        self.shown += (context,)
        return Advice(tuple(Proposal(context.space.fit(text)[0]) for text in self.texts))


@dataclass
class Noting(PromptOptimizer):
    """An optimizer that keeps the optimizer state that each stage began with."""

    optimizer: Backprop
    states: tuple[Any, ...] = ()

    def train(self, model: Any, members: Sequence[Member], *rest: Any) -> Any:
        self.states += (copy.deepcopy(members[0].optimizer_state),)  # which training goes on to change
        return self.optimizer.train(model, members, *rest)


def carried_out(protocol: str, path: Path) -> tuple[Scripted, Noting, tuple[Any, ...], Problem]:
    problem, mentor = tiny(protocol), Scripted()
    optimizer = Noting(parts(f"protocol={protocol}").optimizer)
    run_in(path, Experiment(problem, optimizer, mentor, (3, 3)))
    return mentor, optimizer, read_lines(path / "restarts.jsonl", Restart), problem


def test_row_moments_are_kept_across_a_restart_only_under_official(tmp_path: Path) -> None:
    states = {protocol: carried_out(protocol, tmp_path / protocol)[1].states for protocol in PROTOCOLS}
    before, after = states["heldout"]
    assert before is None
    assert list(after["state"]) == [1, 2]  # the head's alone: parameter 0 is the prompt
    assert states["official"][0] is None
    assert states["official"][1]["state"][0]["step"] == 3
    assert states["official"][1]["state"][0]["exp_avg"].abs().max() > 0


def test_row_the_first_proposal_restarts_unscored_under_official_and_the_best_scored_one_otherwise(
    tmp_path: Path,
) -> None:
    mentor, _, (restart,), problem = carried_out("official", tmp_path / "official")
    assert restart.prompt == problem.space.fit(mentor.texts[0])[0]
    assert restart.score is None
    assert [score for _, score in restart.considered] == [None] * 3
    mentor, _, (restart,), problem = carried_out("heldout", tmp_path / "heldout")
    losses = [score.loss for _, score in restart.considered]
    assert len(losses) == 3
    assert losses == sorted(losses)
    assert restart.score.loss == losses[0]
    assert restart.prompt == restart.considered[0][0].prompt


def test_the_first_five_distinct_prompts_are_scored_under_official_and_a_spread_otherwise(tmp_path: Path) -> None:
    space = PromptSpace(word_piece(), torch.randn(120, 4), settings_of("heldout").prompt)
    prompts = [space.prompt([i] * 8) for i in range(20, 40)]
    snapshots = [Snapshot(0, i, 0, 0.5, p, 0.5) for i, p in enumerate(p for p in prompts for _ in range(2))]
    taken = tiny("official").candidates(snapshots)
    assert [p.text for p in taken] == [p.text for p in prompts[:10:2]]  # and tokenized again: test_official_rules.py
    spread = tiny("heldout").candidates(snapshots)
    assert len(spread) == 8
    assert (spread[0], spread[-1]) == (prompts[0], prompts[-1])
    shown = {protocol: carried_out(protocol, tmp_path / protocol)[0].shown[0].pool for protocol in PROTOCOLS}
    for pool in shown.values():
        losses = [entry.score.loss for entry in pool]
        assert losses == sorted(losses, reverse=True)


# Row: the answer is a single list of lines; empty or prose answers crash.


@pytest.fixture
def with_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-key-but-not-empty")


def parser_of(protocol: str) -> Callable[[str], tuple[list[str], list[Rejected]]]:
    """The function that reads a response to the request of mentor=gpt4 under this protocol."""
    strategy = build_components(composed(f"protocol={protocol}", "mentor=gpt4")).mentor.strategy
    return first_request(strategy, consultation()).parse


@pytest.mark.usefixtures("with_key")
def test_row_the_answer_is_read_line_by_line_under_official_and_leniently_otherwise() -> None:
    parse = {protocol: parser_of(protocol) for protocol in PROTOCOLS}
    answer = '1. "A good film, is it?"\n- bad film\n* Say what the film was like'
    assert parse["official"](answer)[0] == ["A good film, is it?", "Say what the film was like"]
    assert "bad film" in parse["heldout"](answer)[0]  # ten characters or fewer are dropped by official only
    as_json = '["Say how the film was", "Judge the story told"]'
    assert parse["heldout"](as_json)[0] == ["Say how the film was", "Judge the story told"]


@pytest.mark.usefixtures("with_key")
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("answer", ["", " \n\n", "- \n", "-\n*\n1."])
def test_row_an_answer_without_a_usable_line_does_not_crash(protocol: str, answer: str) -> None:
    assert parser_of(protocol)(answer)[0] == []


# Row: API key typed into a source file; key-less failure late.


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_row_a_missing_key_stops_a_run_before_anything_is_loaded(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        build_components(composed(f"protocol={protocol}", "mentor=gpt4"))


def test_row_no_configuration_file_has_a_place_for_a_key() -> None:
    files = sorted(conf_directory().rglob("*.yaml"))
    assert len(files) > 40
    for file in files:
        node = yaml.safe_load(file.read_text()) or {}
        client = node.get("client", {}) if isinstance(node.get("client"), dict) else {}
        assert not {"key", "api_key"} & {*node, *client}, file


# Row: everything padded to 128.


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_row_texts_are_padded_to_the_full_length_only_under_official(protocol: str) -> None:
    problem = tiny(protocol, bucket_batches=50)
    widths = [next(problem.batches(1, step)).tokens.shape[-1] for step in range(6)]
    longest = max(map(len, problem.splits["train"].tokens))
    if protocol == "official":
        assert widths == [30] * 6
        assert longest < 30
    else:
        assert max(widths) == longest < 30


def test_the_full_length_is_128_for_a_model_with_room_for_it() -> None:
    chosen = parts("protocol=official")
    model = load_text_backbone(TextBackbone(folder("roberta")), False, CPU, True)
    model.__dict__["positions"] = 512  # as RoBERTa-large has; only the length is asked for
    problem = assemble_problem(toy_data(), model, chosen.head, replace(chosen.settings, device="cpu"))
    assert problem.padding == 128
    heldout = assemble_problem(toy_data(), model, chosen.head, toy_settings())
    assert heldout.padding is None


def test_a_text_longer_than_the_positions_is_cut_under_official_too() -> None:
    problem = toy_problem("roberta", Classifier(), twice=True, protocol=settings_of("official").protocol)
    long = Example(((" ".join(sentences(40)), None),), 0)
    data = replace(problem.data, train=(long, *problem.data.train))
    again = assemble_problem(data, problem.model.backbone, problem.model.head, problem.settings)
    assert again.padding == 64 - 2 - 4
    (found,) = again.score([again.start()], "train")
    assert found is not None
