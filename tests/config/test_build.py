"""conf/: every choice composes and builds; what is wrong is refused by its key before any work begins."""

import copy
import dataclasses
import functools
import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
import yaml
from helpers.command import REPOSITORY
from hydra import compose, initialize_config_dir

from llm_catalyst.config.build import (
    RunComponents,
    build_components,
    build_dataclass,
    build_node,
    build_optimizer,
    field_names,
    record_checked,
    refuse_secrets,
)
from llm_catalyst.config.settings import Evaluations, Interval, Settings, StageLengths
from llm_catalyst.mentors.llm import LanguageModel
from llm_catalyst.utils.paths import list_choices
from llm_catalyst.utils.validation import ConfigurationError

CONF = REPOSITORY / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
SWEEPS = {
    "hydra/launcher/machine.yaml",
    "hydra/launcher/slurm.yaml",
    "hydra/launcher/together.yaml",
    "hydra/sweeper/grid.yaml",
    "hydra/sweeper/optuna.yaml",
}
NO_CHOICES = {"config.yaml", "models.yaml", "hydra/help/catalyst.yaml", *SWEEPS}
TABLES = [*list_choices(CONF / "table"), *list_choices(CONF / "published")]  # test_table.py
# What other choices inherit from, and what comes with one of them.
BASES = [path for path in FILES if any(part.startswith("_") for part in path.relative_to(CONF).parts)]
CHOICES = [
    path for path in FILES if path.relative_to(CONF).as_posix() not in NO_CHOICES and path not in (*TABLES, *BASES)
]
GROUPS = ("task", "backbone", "head", "optimizer", "mentor", "strategy")

# How many choices each group has, to be changed on purpose, and names that must stay among them.
NUMBERS = {
    "backbone": 16,
    "experiment": 9,
    "head": 7,
    "mentor": 47,
    "optimizer": 13,
    "protocol": 2,
    "strategy": 13,
    "task": 31,
}
PROMISED = {
    "task": "sst2 boolq cb copa rte wic wsc ag_news trec mr subj local caltech101 oxford_pets stanford_cars flowers102 "
    "food101 fgvc_aircraft sun397 dtd eurosat ucf101 imagenet image_folder shapes gsm8k bbh mmlu squad "
    "local_generation",
    "backbone": "roberta_large roberta_base bert_large bert_base deberta minilm gpt2 opt llama qwen custom "
    "clip_vit_b16 clip_vit_b32 clip_vit_l14 clip_rn50 tiny_clip",
    "head": "classifier similarity verbalizer generation coop tcp zero_shot",
    "optimizer": "adamw adam sgd adafactor zo_sgd zo_sign zo_momentum zo_conservative zo_adam forward_gradient none "
    "pez gcg",
    "mentor": "none best random perturb evolution diffusion rehearsal replay human openai_compatible local "
    "llama2_7b gpt4 gpt35 gpt4o claude_haiku claude_sonnet claude_opus openai_small openai openai_large "
    "openai_sampling gemini mistral deepseek qwen groq openrouter grok azure bedrock vertex foundry ollama vllm "
    "llama_cpp",
    "strategy": "paper official paraphrase opro gpo directional leo ape evoprompt_ga evoprompt_de rank gepa capo",
    "protocol": "heldout official",
    "experiment": "quickstart shapes coop tcp official/boolq official/copa official/rte official/wic official/wsc",
}
# What a user must give besides the choice.
GIVEN = {
    "backbone=custom": ["backbone.name=m"],
    "mentor=openai_compatible": ["mentor.client.model=m", "mentor.client.base_url=http://localhost:1/v1"],
    **{
        f"mentor={name}": ["mentor.client.model=m"]
        for name in [
            "local",
            "qwen",
            "groq",
            "openrouter",
            "grok",
            "bedrock",
            "vertex",
            "foundry",
            "ollama",
            "vllm",
            "llama_cpp",
        ]
    },
    "mentor=azure": ["mentor.client.model=m", "mentor.client.base_url=https://r.openai.azure.com/openai/v1"],
    "mentor=replay": ["replay.run=outputs/run"],
    "mentor=diffusion": ["mentor.runs=outputs"],
}
KEY = "sk-" + "abcdefghijklmnop0123456789"

Compose = Callable[..., dict[str, Any]]


def group_and_choice(path: Path) -> tuple[str, str]:
    group, _, choice = path.relative_to(CONF).with_suffix("").as_posix().partition("/")
    return group, choice


def merged(path: Path) -> dict[str, Any]:
    """A file's keys with those of the bases that it inherits from."""
    node: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.parent.name not in GROUPS:
        return node
    bases = [base.partition("@")[0] for base in node.pop("defaults", []) if isinstance(base, str)]
    return functools.reduce(lambda keys, base: keys | merged(path.with_name(f"{base}.yaml")), bases, {}) | node


def header(path: Path) -> str:
    """The comment lines that a file opens with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(lines[: next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))])


def launch_words(path: Path) -> list[str]:
    """The overrides of the first command in a file's header."""
    command = re.search(r"catalyst run (.*)", header(path))
    assert command, f"{path} opens with no launch command"
    return shlex.split(command[1])


def words_of(path: Path) -> list[str]:
    """The overrides that choose a file, with what a user must give besides."""
    name = "=".join(group_and_choice(path))
    return [name, *GIVEN.get(name, [])]


def build_all(config: dict[str, Any]) -> RunComponents:
    """Every node of a configuration as its object; keys, terminals and recorded runs are not asked for."""
    strategy = build_node(config["strategy"], "strategy")
    node = config["mentor"]
    extra = {"strategy": strategy} if node["_target_"].endswith(".LanguageModel") else {}
    parts = {group: build_node(config[group], group) for group in ("task", "backbone", "head")}
    settings = build_dataclass(Settings, {k: v for k, v in config.items() if k not in (*GROUPS, "replay")}, "")
    mentor = build_node(node, "mentor", **extra)
    return RunComponents(
        **parts, optimizer=build_optimizer(config["optimizer"], settings), mentor=mentor, settings=settings
    )


@pytest.fixture
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading any model, tokenizer or data fails the test."""

    def fail(*arguments: Any, **settings: Any) -> None:
        pytest.fail("something was loaded while the configuration was checked")

    for owner in (transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase, transformers.AutoTokenizer):
        monkeypatch.setattr(owner, "from_pretrained", fail)
    monkeypatch.setattr("datasets.load_dataset", fail)


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


# --- every choice


def test_the_walk_finds_as_many_choices_as_there_are_and_all_that_were_promised() -> None:
    found: dict[str, set[str]] = {}
    for path in CHOICES:
        group, choice = group_and_choice(path)
        found.setdefault(group, set()).add(choice)
    assert {group: len(names) for group, names in found.items()} == NUMBERS
    assert len(FILES) == sum(NUMBERS.values()) + len(NO_CHOICES) + len(TABLES) + len(BASES)
    missing = {group: set(names.split()) - found[group] for group, names in PROMISED.items()}
    assert not any(missing.values()), missing


@pytest.mark.usefixtures("nothing_loads", "no_keys")
@pytest.mark.parametrize("path", CHOICES, ids=lambda path: "=".join(group_and_choice(path)))
def test_every_choice_composes_and_builds_without_loading_anything(path: Path, composed: Compose) -> None:
    group, choice = group_and_choice(path)
    config = composed(*words_of(path))
    parts = build_all(config)
    own = merged(path)
    if group == "task":
        assert parts.task.name == choice
    elif group in GROUPS:
        assert config[group]["_target_"] == (own | own.get(group, {}))["_target_"]
    elif group == "protocol":
        assert parts.settings.protocol.name == choice
    else:
        assert all(key in config for key in own if key != "defaults")


@pytest.mark.parametrize(
    "path",
    # Slow where the command is another one than that which is composed and built above.
    [path if launch_words(path) == words_of(path) else pytest.param(path, marks=pytest.mark.slow) for path in CHOICES],
    ids=lambda path: "=".join(group_and_choice(path)),
)
def test_every_file_opens_with_a_command_that_composes(path: Path, composed: Compose) -> None:
    words = launch_words(path)
    if "{" not in "".join(words):  # a template in braces goes through a shell: test_command_line.py
        build_all(composed(*words))


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: "=".join(group_and_choice(path)))
def test_every_file_opens_with_a_command_that_names_it(path: Path) -> None:
    words = launch_words(path)
    group, choice = group_and_choice(path)
    names = f"{group}={choice}"
    shown_by_a_preset = group in ("protocol", "task", "backbone") and any(
        word.startswith("experiment=") for word in words
    )
    assert names in words or shown_by_a_preset


def test_every_other_file_opens_with_a_comment_too() -> None:
    for name in ("config.yaml", "models.yaml"):
        assert header(CONF / name)
    assert "catalyst run" in header(CONF / "config.yaml")


@pytest.mark.parametrize("name", sorted(SWEEPS))
def test_what_carries_out_sweeps_opens_with_a_command_that_composes(name: str) -> None:
    pytest.importorskip("submitit", reason="the sweep extra is not installed")
    words = launch_words(CONF / name)
    hydra = [word for word in words if word.startswith("hydra")] or ["hydra/sweeper=grid"]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        node = compose("config", hydra, return_hydra_config=True).hydra
    group, choice = name.removesuffix(".yaml").rsplit("/", 1)
    assert node.runtime.choices[group] == choice
    target = node[group.removeprefix("hydra/")]._target_
    assert callable(getattr(__import__(target.rpartition(".")[0], fromlist=["_"]), target.rpartition(".")[2]))


def test_every_key_of_the_top_level_is_a_setting_and_every_setting_is_a_key() -> None:
    keys = set(yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))) - {"defaults", "hydra"}
    assert keys | {"protocol"} == set(field_names(Settings))


def test_the_top_level_says_its_defaults_as_the_settings_have_them(composed: Compose) -> None:
    config = composed()
    assert build_dataclass(Settings, {k: v for k, v in config.items() if k not in GROUPS}, "") == Settings(
        stage=StageLengths(steps=200), record=Interval(steps=5), evaluate=Evaluations(steps=50)
    )


@pytest.mark.parametrize("group", [g for g in GROUPS if g not in ("optimizer", "mentor")])
def test_a_choice_names_every_key_of_its_class_so_that_each_can_be_overridden(group: str) -> None:
    for path in list_choices(CONF / group):
        node = merged(path)
        module, _, name = node.pop("_target_").rpartition(".")
        fields = field_names(getattr(__import__(module, fromlist=[name]), name))
        assert list(node) == fields or set(node) == set(fields), path


def test_the_official_protocol_takes_every_choice_of_the_published_code(composed: Compose) -> None:
    parts = build_all(composed("protocol=official"))
    settings = parts.settings
    assert dataclasses.asdict(settings.protocol) == {
        "name": "official",
        "report_on": "dev",
        "embed_twice": True,
        "dropout": True,
        "max_length": 128,
        "pad_to_max_length": True,
        "first_candidates": True,
        "candidate_gap": 2,
        "count_start": False,
        "official_states": True,
    }
    assert (settings.restart.choose, settings.restart.moments, settings.schedule.name) == ("first", "keep", "linear")
    assert (settings.prompt.start, settings.prompt.projection, settings.prompt.fill) == ("normal", "official", " a")
    assert settings.prompt.special_tokens
    assert (settings.pool.candidates, settings.pool.size, settings.pool.keep) == (5, 5, False)
    assert parts.backbone.pooling == "pooler"


@pytest.mark.parametrize(
    ("task", "batch_size", "lr", "epochs"),
    [
        ("boolq", 32, 7e-3, 100),
        ("copa", 16, 9e-3, 120),
        ("rte", 32, 5e-3, 100),
        ("wic", 32, 1e-2, 50),
        ("wsc", 16, 1e-2, 12),
    ],
)
def test_a_preset_of_the_paper_has_its_batch_rate_and_epochs(
    composed: Compose, task: str, batch_size: int, lr: float, epochs: int
) -> None:
    config = composed(f"experiment=official/{task}")
    settings = build_all(config).settings
    assert (config["task"]["name"], settings.batch_size, config["optimizer"]["lr"]) == (task, batch_size, lr)
    plan = settings.plan(examples=batch_size * 10)
    assert plan[:3] == (10, 10, 10)
    assert sum(plan) == epochs * 10
    assert (config["backbone"]["name"], settings.prompt.length) == ("FacebookAI/roberta-large", 8)
    assert (config["optimizer"]["_target_"], config["optimizer"]["weight_decay"]) == ("torch.optim.AdamW", 0)
    assert settings.clip_norm == 1


def test_the_paper_asks_gpt4_as_its_code_does(composed: Compose) -> None:
    mentor = build_all(composed("experiment=official/boolq", "mentor=gpt4_1106")).mentor
    assert isinstance(mentor, LanguageModel)
    assert mentor.client.model == "gpt-4-1106-preview"
    assert (mentor.proposals, mentor.strategy.words, mentor.strategy.parsing) == (3, 9, "official")


# --- refusals


@pytest.fixture(scope="session")
def edited(composed: Compose) -> Compose:
    """The default configuration with some keys set (a.b=value), added, or left out (~a.b): faster than composing."""
    default = composed()

    def make(*edits: str) -> dict[str, Any]:
        config = copy.deepcopy(default)
        for edit in edits:
            path, _, value = edit.lstrip("+~").partition("=")
            *parents, key = path.split(".")
            node = functools.reduce(lambda node, name: node[name], parents, config)
            if edit.startswith("~"):
                del node[key]
            else:
                node[key] = yaml.safe_load(value)
        return config

    return make


def refusal(make: Compose, *overrides: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        build_components(make(*overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("+task.shotz=4", r"no key task\.shotz; there are: .*shots.*\(did you mean shots\?\)"),
        ("+bach_size=4", r"no key bach_size; there are: .*\(did you mean batch_size\?\)"),
        ("+prompt.lenght=4", r"no key prompt\.lenght; .*\(did you mean length\?\)"),
        ("+optimizer.lrr=1", r"no key optimizer\.lrr; there are: lr, .*\(did you mean lr\?\)"),
        ("+optimizer.momentum=0.9", r"no key optimizer\.momentum; there are: .*betas"),
        ("+optimizer.params=1", r"no key optimizer\.params"),
        ("+head.zzz=1", r"no key head\.zzz; there are: dropout$"),
    ],
)
def test_an_unknown_key_is_named_with_those_that_there_are(edited: Compose, override: str, words: str) -> None:
    assert re.search(words, refusal(edited, override))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("batch_size=many", r"batch_size='many' does not fit: .*integer"),
        ("batch_size=2.5", r"batch_size=2\.5 does not fit: .*integer"),
        ("batch_size=null", r"batch_size=None does not fit"),
        ("prompt.length=[1,2]", r"prompt\.length=\[1, 2\] does not fit"),
        ("prompt=8", r"prompt=8 does not fit"),
        ("task.shots=some", r"task\.shots='some' does not fit: .*integer"),
        ("task.labels=positive", r"task\.labels='positive' does not fit: .*list"),
        ("protocol.dropout=perhaps", r"protocol\.dropout='perhaps' does not fit: .*boolean"),
        ("head.dropout=much", r"head\.dropout='much' does not fit: .*number"),
        ("clip_norm=nothing", r"clip_norm='nothing' does not fit"),
        ("optimizer.lr=fast", r"optimizer\.lr='fast'"),
        ("seed=1.5", r"seed=1\.5 does not fit: .*integer"),
        ("seed=true", r"seed=true does not fit: it must be a number"),
        ("prompt.std=false", r"prompt\.std=false does not fit: it must be a number"),
        ("optimizer.betas=[0.9]", r"AdamW refuses its settings \(.*optimizer\.betas=\[0\.9\]"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(edited: Compose, override: str, words: str) -> None:
    assert re.search(words, refusal(edited, override))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=-1", r"seed=-1 is out of range; it must lie between 0 and 9223372036854775807"),
        ("stages=0", r"stages=0 is too small; it must be at least 1"),
        ("batch_size=0", r"batch_size=0 is too small"),
        ("prompt.length=0", r"prompt\.length=0 is too small"),
        ("pool.candidates=0", r"pool\.candidates=0 is too small"),
        ("pool.size=0", r"pool\.size=0 is too small"),
        ("stage.steps=0", r"stage\.steps=0 must be more than 0"),
        ("record.steps=0", r"record\.steps=0 must be more than 0"),
        ("evaluate.steps=-5", r"evaluate\.steps=-5 must be more than 0"),
        ("clip_norm=-1.0", r"clip_norm=-1\.0 is too small"),
        ("schedule.warm_up=1.5", r"schedule\.warm_up=1\.5 is out of range"),
        ("schedule.name=cosin", r"schedule\.name=cosin is not known; there are: .*\(did you mean cosine\?\)"),
        (
            "restart.choose=bset",
            r"restart\.choose=bset is not known; there are: best, first, all, if_better, race \(did you mean best\?\)",
        ),
        ("restart.moments=forget", r"restart\.moments=forget is not known; there are: prompt, reset, keep"),
        ("view=lively", r"view=lively is not known; .*\(did you mean live\?\)"),
        ("device=gpu", r"device=gpu is not known; there are: auto, cpu, cuda"),
        ("protocol.report_on=train", r"protocol\.report_on=train is not known; there are: test, dev"),
        ("backbone.kind=decoder", r"backbone\.kind=decoder is not known; there are: encoder, masked_lm, causal_lm"),
        ("backbone.dtype=float64", r"backbone\.dtype=float64 is not known"),
        ("prompt.projection=cosin", r"prompt\.projection=cosin is not known; .*\(did you mean cosine\?\)"),
        ("strategy.words=0", r"strategy\.words=0 is too small"),
        ("optimizer.lr=-1", r"AdamW refuses its settings \(optimizer\.lr=-1, "),
        ("optimizer.betas=[0.9,1.5]", r"AdamW refuses its settings \(.*optimizer\.betas=\[0\.9, 1\.5\]"),
        ("task.dev_share=0.9", r"task\.dev_share=0\.9 is out of range"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_is_allowed(edited: Compose, override: str, words: str) -> None:
    assert re.search(words, refusal(edited, override))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("task._target_=os.system", r"task\._target_=os\.system is not accepted; .*llm_catalyst\. or torch\.optim\."),
        ("mentor._target_=subprocess.Popen", r"mentor\._target_=subprocess\.Popen is not accepted"),
        ("optimizer._target_=builtins.eval", r"optimizer\._target_=builtins\.eval is not accepted"),
        ("optimizer._target_=torch.optimizer.Adam", r"optimizer\._target_=torch\.optimizer\.Adam is not accepted"),
        ("optimizer._target_=torch.load", r"optimizer\._target_=torch\.load is not accepted"),
        ("backbone._target_=llm_catalyst.models.backbones.text.TextBakcbone", r"backbone\._target_=.* does not exist"),
        ("head._target_=llm_catalyst.heads.clasifier.Classifier", r"head\._target_=.* does not exist"),
        ("optimizer._target_=torch.optim.Adamw", r"optimizer\._target_=torch\.optim\.Adamw does not exist"),
        ("strategy._target_=null", r"strategy\._target_=None is not accepted"),
    ],
)
def test_only_classes_of_this_package_and_of_torch_optim_are_built(edited: Compose, override: str, words: str) -> None:
    assert re.search(words, refusal(edited, override))


WITHOUT_RATES = ("~optimizer.lr", "~optimizer.betas", "~optimizer.eps", "~optimizer.weight_decay")


@pytest.mark.parametrize(
    "edits",
    [
        pytest.param(["head._target_=llm_catalyst.utils.paths.conf_directory", "~head.dropout"], id="function as head"),
        pytest.param(["head._target_=torch.optim.AdamW", "~head.dropout"], id="optimizer as head"),
        pytest.param(
            ["optimizer._target_=llm_catalyst.utils.rng.derive_seed", *WITHOUT_RATES], id="function as optimizer"
        ),
        pytest.param(["optimizer._target_=llm_catalyst.cli.run.os", *WITHOUT_RATES], id="module as optimizer"),
    ],
)
def test_a_target_that_is_neither_a_dataclass_nor_an_optimizer_in_its_place_is_refused(
    edited: Compose, edits: list[str]
) -> None:
    group = edits[0].partition(".")[0]
    assert f"{group}._target_" in refusal(edited, *edits)


@pytest.mark.parametrize(
    ("edit", "key"),
    [
        (f"task.description={KEY}", "task.description"),
        (f"task.labels=[positive, Bearer {KEY}]", "task.labels[1]"),
        (f"+mentor.client={{base_url: 'https://{KEY}@host/v1'}}", "mentor.client.base_url"),
    ],
)
def test_a_value_that_looks_like_a_key_is_refused_and_not_repeated(edited: Compose, edit: str, key: str) -> None:
    message = refusal(edited, edit)
    assert message.startswith(key)
    assert "environment" in message
    assert KEY not in message


def test_ordinary_words_are_no_keys() -> None:
    refuse_secrets({"a": "a sky-high-performance-review", "b": "key-value", "c": ["mask-filling", 3, None]})


@pytest.mark.usefixtures("nothing_loads", "no_keys")
@pytest.mark.parametrize(
    ("mentor", "variable"),
    [("gpt4", "OPENAI_API_KEY"), ("gpt35", "OPENAI_API_KEY"), ("claude_opus", "ANTHROPIC_API_KEY")],
)
@pytest.mark.parametrize("value", [None, "", "  \n"], ids=["absent", "empty", "blank"])
def test_a_missing_key_stops_a_run_before_any_model_is_loaded(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, mentor: str, variable: str, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv(variable, value)
    assert variable in refusal(composed, f"mentor={mentor}")


@pytest.mark.usefixtures("nothing_loads", "no_keys")
def test_with_its_key_the_same_run_is_accepted(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-real-key-0123456789")
    assert build_components(composed("mentor=gpt4")).mentor.client.key_variable == "OPENAI_API_KEY"


def test_a_replay_of_no_run_is_refused_by_its_key(composed: Compose, tmp_path: Path) -> None:
    message = refusal(composed, "mentor=replay", f"replay.run={tmp_path / 'nowhere'}")
    assert f"replay.run={tmp_path / 'nowhere'}" in message


def test_a_person_is_not_asked_where_there_is_no_terminal(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert "needs a terminal" in refusal(composed, "mentor=human")


# --- stage plans


@pytest.mark.parametrize(
    ("stage", "stages", "plan"),
    [
        ({"steps": 200}, None, (200, 200, 200, 200)),
        ({"steps": 5}, 2, (5, 5)),
        ({"steps": [3, 4, 5]}, None, (3, 4, 5)),
        ({"steps": [3, 4, 5]}, 3, (3, 4, 5)),
        ({"steps": [7]}, None, (7,)),
        ({"epochs": 1}, 2, (20, 20)),
        ({"epochs": 1.25}, 1, (25,)),
        ({"epochs": 0.5}, 1, (10,)),
        ({"epochs": [0.25, 3]}, None, (5, 60)),
        ({"steps": 200, "epochs": 2}, 1, (40,)),
        ({"steps": [1, 2], "epochs": 2}, None, (40, 40, 40, 40)),
    ],
    ids=str,
)
def test_stages_are_planned_in_steps_or_epochs(
    stage: dict[str, Any], stages: int | None, plan: tuple[int, ...]
) -> None:
    settings = Settings(stage=StageLengths(**stage, early_share=None), stages=stages, batch_size=32)
    assert settings.plan(examples=640) == plan


def test_a_last_small_batch_counts_as_a_step_of_the_epoch() -> None:
    settings = Settings(stage=StageLengths(epochs=2), stages=1, batch_size=32)
    assert settings.plan(examples=65) == (6,)


@pytest.mark.parametrize(
    ("stage", "stages", "words"),
    [
        ({"steps": [3, 4]}, 3, r"stages=3, but the list in stage has 2 entries"),
        ({"epochs": [1, 1]}, 1, r"stages=1, but the list in stage has 2 entries"),
        ({"steps": [3, 0]}, None, r"stage\.steps=0 must be more than 0"),
        ({"steps": "ten"}, None, r"stage\.steps=ten is not a number of steps"),
        ({"steps": 2.5}, None, r"stage\.steps=2\.5 is not a number of steps"),
        ({"steps": True}, None, r"stage\.steps=True is not a number of steps"),
        ({"epochs": "one"}, None, r"stage\.epochs=one is not a number of epochs"),
        ({"epochs": 0}, None, r"stage\.epochs=0 "),
        ({}, None, r"stage\.steps=None is not a number of steps"),
        ({"steps": []}, None, r"stage\.steps"),
        ({"steps": float("inf")}, None, r"stage\.steps=inf"),
        ({"epochs": float("nan")}, None, r"stage\.epochs=nan"),
    ],
    ids=str,
)
def test_a_plan_that_cannot_be_is_refused(stage: dict[str, Any], stages: int | None, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Settings(stage=StageLengths(**stage, early_share=None), stages=stages)


def test_recording_and_evaluation_take_one_number_and_fractions_of_an_epoch() -> None:
    settings = Settings(record=Interval(epochs=0.25), evaluate=Evaluations(epochs=1), batch_size=32)
    assert (settings.every("record", 640), settings.every("evaluate", 640)) == (5, 20)
    with pytest.raises(ConfigurationError, match="record takes one number"):
        Settings(record=Interval(steps=[1, 2]))


# E10
@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=007", "seed", 7),
        ("seed='1'", "seed", 1),
        ("seed=1e3", "seed", 1000),
        ("batch_size='16'", "batch_size", 16),
        ("dry_run='yes'", "dry_run", True),
        ("prompt.length=4.0", "prompt.length", 4),
        ("task.shots='8'", "task.shots", 8),
        ("budget.usd='2.5'", "budget.usd", 2.5),
        ("mentor.proposals='5'", "mentor.proposals", 5),
    ],
)
def test_the_checked_value_is_recorded(composed: Compose, override: str, key: str, value: Any) -> None:
    config = composed(override, "mentor=random")
    recorded = record_checked(config, build_components(config))
    found = functools.reduce(lambda node, name: node[name], key.split("."), recorded)
    assert (found, type(found)) == (value, type(value))


def test_what_needs_no_conversion_is_recorded_as_it_is(composed: Compose) -> None:
    config = composed("experiment=quickstart", "task.labels=[bad,good]")
    assert record_checked(config, build_components(config)) == config


def test_without_training_nothing_goes_on_while_a_mentor_answers(composed: Callable[..., dict[str, Any]]) -> None:
    words = ("task=quickstart", "backbone=minilm", "head=similarity", "mentor=openai_compatible", "optimizer=none")
    server = ("mentor.client.model=m", "mentor.client.base_url=http://127.0.0.1:9", "mentor.client.key_variable=null")
    assert build_components(composed(*words, *server))
    with pytest.raises(ConfigurationError, match=r"optimizer=none trains nothing; choose mentor\.overlap=false"):
        build_components(composed(*words, *server, "mentor.overlap=true"))


@pytest.mark.parametrize("key", ["optimizer.lr", "prompt.std", "clip_norm", "budget.usd", "schedule.warm_up_rate"])
@pytest.mark.parametrize("value", ["inf", "nan", "1e400"])
def test_a_number_that_is_not_finite_is_refused(composed: Compose, key: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{re.escape(key)}=(inf|nan) is no finite number"):
        build_components(composed(f"{key}={value}"))


def test_threads_have_a_limit(composed: Compose) -> None:
    with pytest.raises(ConfigurationError, match=r"threads=100000 is out of range; it must lie between 1 and 1024"):
        build_components(composed("threads=100000"))
