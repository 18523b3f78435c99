"""CLIP's class features and logits: each head against a from-formula forward pass on the checkpoint's own weights."""

import json
import math
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.tiny_clip import CPU, LABELS, PLACES, TEMPLATES, backbone, folder, model, shape_data, tokenizer
from safetensors.torch import load_file
from torch import Tensor

from llm_catalyst.models.backbones.clip import ClipBackbone, load_clip
from llm_catalyst.models.base import stack_members
from llm_catalyst.models.heads.clip import Coop, Tcp, ZeroShot, features_in_context
from llm_catalyst.models.image_features import ImageBatch
from llm_catalyst.models.prompt_settings import PromptSettings
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.base import Member
from llm_catalyst.optimizers.schedule import StepRange
from llm_catalyst.utils.validation import ConfigurationError

M, WIDTH, FEATURES = 5, 32, 16


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(k: int = 1, b: int = 4) -> ImageBatch:
    """Image features and labels of b images for each of k members."""
    features = torch.nn.functional.normalize(random(k, b, FEATURES, seed=3), dim=-1)
    return ImageBatch(features, torch.arange(k * b).reshape(k, b) % len(LABELS))


# The formulas, in plain torch, on the weights as they lie in the file.


@cache
def weights() -> dict[str, Tensor]:
    return load_file(Path(folder()) / "model.safetensors")


def affine(x: Tensor, name: str) -> Tensor:
    return x @ weights()[f"{name}.weight"].T + weights()[f"{name}.bias"]


def norm(x: Tensor, name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * weights()[f"{name}.weight"] + weights()[f"{name}.bias"]


def attention(x: Tensor, name: str) -> Tensor:
    """Four heads over states (s, d); no state sees one behind it."""
    s, d = x.shape
    query, key, value = (affine(x, f"{name}.{part}_proj").reshape(s, 4, d // 4) for part in "qkv")
    mixed = torch.zeros(s, 4, d // 4)
    for i in range(s):
        for h in range(4):
            shares = torch.softmax(key[: i + 1, h] @ query[i, h] / math.sqrt(d // 4), dim=0)
            mixed[i, h] = shares @ value[: i + 1, h]
    return affine(mixed.reshape(s, d), f"{name}.out_proj")


def text_feature(rows: Tensor, deep: tuple[int, Tensor] | None = None) -> Tensor:
    """The unit feature (e,) of one text's embeddings (s, d), its end of text the last."""
    x = rows + weights()["text_model.embeddings.position_embedding.weight"][: len(rows)]
    for number in range(3):
        if deep and deep[0] == number:
            x = torch.cat([x[:1], deep[1], x[1 + len(deep[1]) :]])
        layer = f"text_model.encoder.layers.{number}"
        x = x + attention(norm(x, f"{layer}.layer_norm1"), f"{layer}.self_attn")
        inner = affine(norm(x, f"{layer}.layer_norm2"), f"{layer}.mlp.fc1")
        x = x + affine(inner * torch.sigmoid(1.702 * inner), f"{layer}.mlp.fc2")
    feature = norm(x[-1], "text_model.final_layer_norm") @ weights()["text_projection.weight"].T
    return feature / feature.norm()


def embedded(text: str) -> Tensor:
    """A text's embeddings, without start and end of text."""
    ids = tokenizer()(text).input_ids[1:-1]
    return weights()["text_model.embeddings.token_embedding.weight"][ids]


def between(*parts: Tensor) -> Tensor:
    """The parts between the embeddings of start and end of text."""
    table = weights()["text_model.embeddings.token_embedding.weight"]
    return torch.cat([table[-2:-1], *parts, table[-1:]])


def scaled(image_features: Tensor, classes: list[Tensor]) -> Tensor:
    return weights()["logit_scale"].exp() * image_features @ torch.stack(classes).T


PARTS = {
    "end": lambda context, name: between(context, embedded(f"{name}.")),
    "middle": lambda context, name: between(context[:2], embedded(name), context[2:], embedded(".")),
    "front": lambda context, name: between(embedded(name), context, embedded(".")),
}


# The backbone


def test_text_features_of_whole_texts_are_those_of_transformers_under_both_conventions_of_the_end() -> None:
    texts = [template.format(label) for template in TEMPLATES for label in LABELS]
    assert len(set(map(len, backbone().tokens(texts)))) > 3
    for eos in (None, 2):
        clip = load_clip(ClipBackbone(folder(eos)), False, CPU)
        theirs = transformers.CLIPModel.from_pretrained(folder(eos))
        padded = tokenizer()(texts, padding="max_length", max_length=PLACES, return_tensors="pt").input_ids
        with torch.no_grad():
            expected = theirs.get_text_features(padded).pooler_output
        torch.testing.assert_close(
            clip.encode(texts), torch.nn.functional.normalize(expected, dim=-1), atol=1e-5, rtol=0
        )


def test_texts_without_gradient_go_forward_in_pieces_of_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, ends = backbone().rows(backbone().tokens(LABELS), LABELS)
    deep = (1, random(3, 2, WIDTH))
    whole = backbone().towers.text_features(rows, ends, deep).detach()
    monkeypatch.setattr("llm_catalyst.models.backbones.clip_towers.TOKENS", 1)
    with torch.no_grad():
        torch.testing.assert_close(backbone().towers.text_features(rows, ends, deep), whole, atol=1e-5, rtol=0)


def test_a_common_beginning_gives_what_each_text_gives_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_catalyst.models.backbones.clip_towers.GROUP", 3)
    names = ["red", "square", "hexagon", "very large red", "circle", "a", "large green circle"]
    constants = Coop(M).constants(backbone(), shape_data(tuple(names)))
    prompts = random(2, M, WIDTH).requires_grad_()
    together = model(Coop(M), shape_data(tuple(names))).prepare({"prompt": prompts})["class features"]
    contexts = prompts[:, None].expand(2, len(names), -1, -1)
    apart = features_in_context(backbone(), constants, contexts)
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)
    weights = random(2, len(names), FEATURES)
    gradients = [torch.autograd.grad((features * weights).sum(), prompts)[0] for features in (together, apart)]
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_image_features_are_those_of_transformers() -> None:
    pixels = random(2, 3, 32, 32)
    with torch.no_grad():
        expected = transformers.CLIPModel.from_pretrained(folder()).get_image_features(pixels).pooler_output
        found = backbone().image_features(pixels)
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=-1), atol=1e-5, rtol=0)
    assert backbone().width == FEATURES


@pytest.mark.parametrize("head", [Coop(M), Coop(M, "middle"), Tcp(M, layer=1), ZeroShot()])
def test_a_clip_in_half_precision_gives_about_the_same_class_features_in_float32(head: Any) -> None:
    own = head.weights(backbone(), shape_data(), torch.Generator().manual_seed(1))
    parameters = stack_members([{"prompt": random(M, WIDTH), **own}])
    with torch.no_grad():
        half, whole = (
            model(head, dtype=dtype).prepare(parameters)["class features"] for dtype in ("bfloat16", "float32")
        )
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, atol=0.1, rtol=0)
    assert backbone(dtype="bfloat16").identity != backbone(dtype="float32").identity


def test_a_special_token_in_a_class_name_is_left_out() -> None:
    assert backbone().tokens(["red <|endoftext|> circle"]) == backbone().tokens(["red circle"])


def test_what_is_no_clip_or_holds_pickles_only_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ConfigurationError, match=r"pytorch_model\.bin and no model\.safetensors"):
        load_clip(ClipBackbone(str(tmp_path)), False, CPU)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(ConfigurationError, match=r"holds no weights: .*\(there: nothing\)"):
        load_clip(ClipBackbone(str(tmp_path)), False, CPU)
    shutil.copy(Path(folder()) / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigurationError, match="is a bert, not a CLIP"):
        load_clip(ClipBackbone(str(tmp_path)), False, CPU)
    with pytest.raises(ConfigurationError, match=r"backbone\.library=openclip is not known"):
        ClipBackbone("x", library="openclip")


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        (2, r"holds 16 weights of its CLIPModel for which config\.json has no place \(.*vision_model\S*layers\.2\."),
        (4, r"lacks 16 of the weights of CLIPModel \(.*vision_model\S*layers\.3\..*name the checkpoint that holds"),
    ],
)
def test_a_tower_of_other_layers_than_its_configuration_is_refused(tmp_path: Path, layers: int, problem: str) -> None:
    shutil.copytree(folder(), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["vision_config"]["num_hidden_layers"] == 3
    config["vision_config"]["num_hidden_layers"] = layers
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigurationError, match=problem):
        load_clip(ClipBackbone(str(tmp_path)), False, CPU)


def test_the_facts_hold_the_checksums_of_a_clips_files() -> None:
    assert {"model.safetensors", "config.json", "preprocessor_config.json"} <= set(backbone().facts()["files"])


def test_without_open_clip_the_resnet_says_what_it_needs() -> None:
    try:
        import open_clip  # noqa: F401
    except (ImportError, RuntimeError):
        with pytest.raises(ConfigurationError, match="pip install open_clip_torch torchvision"):
            load_clip(ClipBackbone("timm/resnet50_clip.openai", library="open_clip"), False, CPU)
    else:
        pytest.skip("open_clip is there")


# CoOp


@pytest.mark.parametrize("position", PARTS)
def test_coops_logits_are_those_of_its_formula(position: str) -> None:
    prompt, batch = random(1, M, WIDTH), images()
    with torch.no_grad():
        found = model(Coop(M, position)).logits({"prompt": prompt}, batch)
    classes = [text_feature(PARTS[position](prompt[0], label)) for label in LABELS]
    torch.testing.assert_close(found[0], scaled(batch.features[0], classes), atol=1e-5, rtol=1e-5)


def test_members_together_give_what_each_gives_alone() -> None:
    prompts, batch = random(3, M, WIDTH), images(3)
    for head in (Coop(M), Tcp(M, layer=1)):
        own = [head.weights(backbone(), shape_data(), torch.Generator().manual_seed(i)) for i in range(3)]
        members = [{"prompt": prompt, **weights} for prompt, weights in zip(prompts, own, strict=True)]
        clip = model(head)
        with torch.no_grad():
            together = clip.logits(stack_members(members), batch)
            for i, member in enumerate(members):
                alone = clip.logits(
                    stack_members([member]), ImageBatch(batch.features[i : i + 1], batch.labels[i : i + 1])
                )
                torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-5)


def test_a_context_that_starts_from_text_reads_as_that_text() -> None:
    settings = PromptSettings(length=4, start="text", text="a photo of a")
    space = PromptSpace(tokenizer(), backbone().vocabulary, settings)
    assert len(backbone().tokens(["a photo of a"])[0]) == 4
    prompt = space.start(torch.Generator())[None]
    with torch.no_grad():
        found = model(Coop(4)).prepare({"prompt": prompt})["class features"][0]
    torch.testing.assert_close(found, backbone().encode([f"a photo of a {name}." for name in LABELS]))
    assert space.project(prompt)[0][0].text == "a photo of a"


def test_a_shorter_text_in_a_space_of_longer_prompts_reads_as_that_text_where_prompts_stand_as_written() -> None:
    settings = PromptSettings(length=8, start="task", fill="none")
    space = PromptSpace(tokenizer(), backbone().vocabulary, settings, Coop(8).class_at(8), ("a photo of a",))
    prompt = space.start(torch.Generator())[None]
    assert prompt.shape == (1, 4, 32)
    with torch.no_grad():
        found = model(Coop(8)).prepare({"prompt": prompt})["class features"][0]
    torch.testing.assert_close(found, backbone().encode([f"a photo of a {name}." for name in LABELS]))
    assert space.project(prompt)[0][0].text == "a photo of a [CLASS]"


def test_a_class_that_does_not_fit_or_has_no_token_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"'very large green hexagon' takes \d\d places .* this CLIP has 24"):
        Coop(14).constants(backbone(), shape_data())
    with pytest.raises(ConfigurationError, match="the class '  ' holds no token"):
        Coop(M).constants(backbone(), shape_data(("square", "  ")))
    with pytest.raises(ConfigurationError, match=r"head\.class_position=behind is not known"):
        Coop(M, "behind")


def contexts_after(head: Coop, parameters: dict[str, Tensor], steps: int) -> Tensor:
    """Every class's context (c, m, d) after steps of SGD with momentum and weight decay."""
    member = Member.of(parameters)

    def sgd(weights: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(weights, lr=0.5, momentum=0.9, weight_decay=0.01)

    optimizer = Backprop(sgd, clip_norm=None)
    list(optimizer.train(model(head), [member], iter([images()] * steps), StepRange(0, steps, steps, 0)))
    own = member.parameters["head.context"].detach()
    return member.parameters["prompt"].detach() + own - own.mean(0)


def test_class_specific_contexts_take_the_steps_of_contexts_that_are_trained_apart() -> None:
    head = Coop(M, class_specific=True, spread=0.5)
    own = head.weights(backbone(), shape_data(), torch.Generator().manual_seed(4))["head.context"]
    parameters = {"prompt": random(M, WIDTH), "head.context": own}
    apart = torch.nn.Parameter(parameters["prompt"] + own - own.mean(0))
    optimizer = torch.optim.SGD([apart], lr=0.5, momentum=0.9, weight_decay=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        classes = [text_feature(PARTS["end"](c, name)) for c, name in zip(apart, LABELS, strict=True)]
        batch = images()
        torch.nn.functional.cross_entropy(scaled(batch.features[0], classes), batch.labels[0]).backward()
        optimizer.step()
    assert (apart - parameters["prompt"]).abs().max() > 0.1
    torch.testing.assert_close(contexts_after(head, parameters, 3), apart.detach(), atol=1e-4, rtol=1e-4)


# TCP


def test_tcps_logits_and_loss_are_those_of_its_formula() -> None:
    template = "a drawing of the {}, a type of shape."
    head, data, batch = Tcp(M, layer=1, weight=8.0), shape_data(template=template), images()
    own = head.weights(backbone(), data, torch.Generator().manual_seed(2))
    prompt = random(M, WIDTH)
    clip = model(head, data)
    parameters = stack_members([{"prompt": prompt, **own}])
    with torch.no_grad():
        logits, losses = clip.logits(parameters, batch), clip.losses(parameters, batch)
    zero_shot = [text_feature(between(embedded(template.format(name)))) for name in LABELS]
    classes = []
    for name, feature in zip(LABELS, zero_shot, strict=True):
        inner = own["head.down"] @ feature + own["head.down_bias"]
        knowledge = own["head.up"] @ (inner * torch.sigmoid(1.702 * inner)) + own["head.up_bias"]
        rows = between(prompt, embedded(f"{name}, a type of shape."))
        classes.append(text_feature(rows, (1, knowledge.reshape(M, WIDTH))))
    expected = scaled(batch.features[0], classes)
    torch.testing.assert_close(logits[0], expected, atol=1e-5, rtol=1e-5)
    cosines = torch.stack([a @ b for a, b in zip(classes, zero_shot, strict=True)])
    entropy = torch.nn.functional.cross_entropy(expected, batch.labels[0], reduction="none")
    torch.testing.assert_close(losses[0], entropy + 8 * (1 - cosines.mean()), atol=1e-4, rtol=1e-5)


def test_tcps_bottleneck_has_a_quarter_of_the_width_and_starts_as_torchs_linear_layers() -> None:
    own = Tcp(M, layer=1).weights(backbone(), shape_data(), torch.Generator().manual_seed(1))
    assert {name: tuple(w.shape) for name, w in own.items()} == {
        "head.down": (4, 16),
        "head.down_bias": (4,),
        "head.up": (M * WIDTH, 4),
        "head.up_bias": (M * WIDTH,),
    }
    assert 0.2 < own["head.down"].abs().max() <= 0.25
    assert 0.49 < own["head.up"].abs().max() <= 0.5


def test_a_layer_that_the_text_tower_lacks_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"head\.layer=8, but .* has layers 0 to 2"):
        Tcp(M).constants(backbone(), shape_data())


# Zero-shot


def test_zero_shot_takes_the_tasks_template_and_an_ensemble_the_mean_of_unit_features() -> None:
    with torch.no_grad():
        single = model(ZeroShot()).logits({"prompt": random(2, M, WIDTH)}, images(2))
        many = model(ZeroShot(ensemble=True)).logits({"prompt": random(1, M, WIDTH)}, images())
    apart = [[text_feature(between(embedded(t.format(name)))) for t in TEMPLATES] for name in LABELS]
    for i in range(2):
        expected = scaled(images(2).features[i], [features[0] for features in apart])
        torch.testing.assert_close(single[i], expected, atol=1e-5, rtol=1e-5)
    means = [torch.stack(features).mean(0) for features in apart]
    expected = scaled(images().features[0], [mean / mean.norm() for mean in means])
    torch.testing.assert_close(many[0], expected, atol=1e-5, rtol=1e-5)


def test_an_ensemble_without_templates_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"needs task\.templates"):
        ZeroShot(ensemble=True).constants(backbone(), shape_data(templates=[]))


# Training


@pytest.mark.parametrize("head", [Coop(M), Coop(M, class_specific=True), Tcp(M, layer=1)])
def test_gradients_reach_the_prompt_and_the_head_and_nothing_else(head: Any) -> None:
    own = head.weights(backbone(), shape_data(), torch.Generator().manual_seed(1))
    member = Member.of({"prompt": random(M, WIDTH), **own})
    model(head).losses(stack_members([member.parameters]), images()).sum().backward()
    for name, parameter in member.parameters.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert not any(p.requires_grad or p.grad is not None for p in backbone().parameters())


def test_class_features_that_are_prepared_once_serve_every_batch() -> None:
    clip, parameters = model(Coop(M)), {"prompt": random(2, M, WIDTH)}
    with torch.no_grad():
        prepared = clip.prepare(parameters)
        assert clip.prepare(prepared) is prepared
        assert torch.equal(clip.logits(prepared, images(2)), clip.logits(parameters, images(2)))
