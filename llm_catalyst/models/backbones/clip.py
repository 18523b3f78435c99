"""Frozen CLIP models behind a learned context: text features from embeddings, image features from pixels.

Radford et al. 2021, arXiv 2103.00020. Shapes: n texts of s tokens, d width of the text tower, b images of h x w pixels,
e width that both towers are projected to, m context vectors, v vocabulary size.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from llm_catalyst.models.backbones import tiny_clip
from llm_catalyst.models.backbones.base import Backbone, FrozenBackbone
from llm_catalyst.models.backbones.checkpoint import refuse_other_weights
from llm_catalyst.models.backbones.clip_towers import Towers
from llm_catalyst.models.backbones.config import DTYPES, explained_load_errors
from llm_catalyst.models.backbones.hub_cache import cache_without_hub, require_hub
from llm_catalyst.models.backbones.loading import set_tf32
from llm_catalyst.models.backbones.local_files import refuse_files
from llm_catalyst.models.soft_prompt import plain_ids
from llm_catalyst.utils.validation import ConfigurationError, NonNegativeInt, config_dataclass


@config_dataclass("backbone")
class ClipBackbone(Backbone):
    """The `backbone` node: which pretrained CLIP, and how it is loaded.

    `library` reads the checkpoint: `transformers` the Vision Transformers, `open_clip` the ResNets, too. `name` is the
    hub's or a local folder, its weights in safetensors. `views` is how many augmented views of each training image are
    computed, once; epoch i trains on view i mod `views` (CoOp draws a new one in every epoch), 0: the plain image.
    `crop` is the least share of an image's area that a view shows: where objects are small, CoOp's 0.08 cuts many away.
    """

    modality = "image"

    name: str
    library: Literal["transformers", "open_clip"] = "transformers"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    views: NonNegativeInt = 8
    crop: Annotated[float, Ge(0.01), Le(1)] = 0.08

    def location(self) -> str:
        """The hub name or local path; for `tiny-clip` the folder of a model that is made on this machine."""
        if self.name == tiny_clip.NAME:
            return str(tiny_clip.ensure_tiny_clip())
        return super().location()


@dataclass(frozen=True)
class Pixels:
    """An image's shortest edge once scaled, the square cut out of it, and each channel's mean and deviation."""

    shortest: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class FrozenClip(FrozenBackbone):
    """A loaded, frozen CLIP."""

    def __init__(
        self, settings: ClipBackbone, model: Any, tokenizer: Any, commit: str | None, towers: Towers, pixels: Pixels
    ) -> None:
        super().__init__(settings, model, tokenizer, commit)
        self.towers = towers
        self.pixels = pixels
        self.scale = model.get_parameter("logit_scale").detach().float().exp()
        self.train(False)

    @property
    def vocabulary(self) -> Tensor:
        """Token embeddings (v, d) of the text tower."""
        return self.towers.vocabulary

    @cached_property
    def width(self) -> int:
        """Width e of the features."""
        return self.encode(["a"]).shape[1]

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the image tower, its layers and weights: equal ones give equal image features."""
        digest = hashlib.sha256()
        for part in self.towers.vision:
            digest.update(repr(part).encode())  # the activation is no weight
            for name, tensor in part.state_dict().items():
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, without any special token."""
        return plain_ids(self.tokenizer, texts)

    def rows(self, tokens: Sequence[Sequence[int]], said: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embeddings (n, s, d) of tokens between start and end of text, and the place (n,) of that end.

        Padded to the longest text of all: no token sees one behind it, so that CLIP's padding to 77 changes nothing.
        Raises ConfigurationError where a text does not fit; `said` names each.
        """
        places = len(self.towers.positions)
        for name, row in zip(said, tokens, strict=True):
            if len(row) + 2 > places:
                problem = f"{name!r} takes {len(row) + 2} places with start, context and end; this CLIP has {places}"
                raise ConfigurationError(f"{problem}: make prompt.length smaller, or the name or template shorter")
        ends = [len(row) + 1 for row in tokens]
        start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        width = max(ends) + 1
        table = [[start, *row, *[end] * (width - 1 - len(row))] for row in tokens]
        return self.vocabulary[torch.tensor(table, device=self.device)], torch.tensor(ends, device=self.device)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Unit-length features (n, e) of whole texts."""
        return self.towers.text_features(*self.rows(self.tokens(texts), texts))

    def image_features(self, pixels: Tensor) -> Tensor:
        """Unit-length features (b, e), float32, of pixels (b, 3, h, w) on any device."""
        pixels = pixels.to(self.device, self.vocabulary.dtype)
        return nn.functional.normalize(self.towers.image(pixels).float(), dim=-1)

    def facts(self) -> dict[str, Any]:
        """The weights' name, location, commit and number, with a hash of the image tower."""
        return super().facts() | {"image_tower": self.identity}


def load_clip(
    settings: ClipBackbone, words: bool, device: torch.device, twice: bool = False, official_states: bool = False
) -> FrozenClip:
    """The frozen CLIP on `device`; `words`, `twice` and `official_states` are for text models.

    Raises ConfigurationError where it cannot be loaded.
    """
    settings.check(device)
    set_tf32(False, device)  # a run of texts in this process may have set it
    where = settings.location()
    refuse_files("backbone.name", where)
    with explained_load_errors(settings.name):
        frozen = (with_transformers if settings.library == "transformers" else with_open_clip)(settings, device)
        frozen.record_files(where, settings.revision)
    return frozen


def read_clip(settings: ClipBackbone) -> tuple[Any, Any, Any]:
    """Tokenizer, image processor and model of a CLIP of transformers.

    Raises ConfigurationError where the model is another one, or its weights are not those of its config.json.
    """
    import transformers

    where = settings.location()
    common: Any = {"revision": settings.revision or "main"}
    require_hub(where, settings.revision, ["config.json"])
    with cache_without_hub(where):
        config = transformers.AutoConfig.from_pretrained(where, **common)
        if config.model_type != "clip":
            problem = f"backbone.name={settings.name} is a {config.model_type}, not a CLIP; try backbone=clip_vit_b16"
            raise ConfigurationError(problem)
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, **common)
        processor = transformers.AutoImageProcessor.from_pretrained(where, **common)
        options: Any = {"dtype": DTYPES[settings.dtype], "use_safetensors": True, "ignore_mismatched_sizes": True}
        options |= {"attn_implementation": "sdpa", "output_loading_info": True, **common}
        model, found = transformers.CLIPModel.from_pretrained(where, **options)
    refuse_other_weights(settings, model, found)
    return tokenizer, processor, model


def with_transformers(settings: ClipBackbone, device: torch.device) -> FrozenClip:
    """A CLIP of transformers. Its text model takes token ids only, so that its parts are called one by one."""
    tokenizer, processor, model = read_clip(settings)
    model.to(device)
    text = model.text_model

    def run(layer: nn.Module, states: Tensor, mask: Tensor | None) -> Tensor:
        return layer(states, None if mask is None else mask[None, None], is_causal=mask is None)

    towers = Towers(
        vocabulary=text.embeddings.token_embedding.weight,
        positions=text.embeddings.position_embedding.weight,
        layers=text.encoder.layers,
        run=run,
        norm=text.final_layer_norm,
        project=model.text_projection,
        image=lambda pixels: model.visual_projection(model.vision_model(pixels).pooler_output),
        vision=(model.vision_model, model.visual_projection),
    )
    shortest, crop = processor.size["shortest_edge"], processor.crop_size["height"]
    pixels = Pixels(shortest, crop, tuple(processor.image_mean), tuple(processor.image_std))
    return FrozenClip(settings, model, tokenizer, getattr(model.config, "_commit_hash", None), towers, pixels)


def with_open_clip(settings: ClipBackbone, device: torch.device) -> FrozenClip:
    """A CLIP of open_clip, from a folder as its hub repositories have it: open_clip_config.json and safetensors.

    All of OpenAI's CLIPs have the same tokenizer; open_clip brings it.
    """
    from transformers.models.clip import CLIPTokenizer

    try:
        import open_clip
        from open_clip.tokenizer import SimpleTokenizer
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit its torch raises RuntimeError
        raise ConfigurationError(
            "backbone.library=open_clip needs the package open_clip_torch, and that needs a torchvision which fits "
            "this torch (pip install open_clip_torch torchvision); backbone=clip_vit_b16 needs neither "
            f"({' '.join(str(error).split())})"
        ) from error
    folder, commit = find_weights(settings)
    model: Any = open_clip.create_model(f"local-dir:{folder}").to(device, DTYPES[settings.dtype])
    pieces = SimpleTokenizer()
    end = {f"{kind}_token": "<end_of_text>" for kind in ("eos", "unk", "pad")}
    tokenizer = CLIPTokenizer(vocab=pieces.encoder, merges=list(pieces.bpe_ranks), bos_token="<start_of_text>", **end)

    def run(layer: nn.Module, states: Tensor, mask: Tensor | None) -> Tensor:
        length = states.shape[1]
        return layer(states, attn_mask=model.attn_mask[:length, :length].to(states.dtype) if mask is None else mask)

    towers = Towers(
        vocabulary=model.token_embedding.weight,
        positions=model.positional_embedding,
        layers=model.transformer.resblocks,
        run=run,
        norm=model.ln_final,
        project=lambda states: states @ model.text_projection,
        image=model.encode_image,
        vision=(model.visual,),
    )
    size = model.visual.preprocess_cfg["size"]
    edge = size if isinstance(size, int) else size[0]
    pixels = Pixels(edge, edge, tuple(model.visual.image_mean), tuple(model.visual.image_std))
    return FrozenClip(settings, model, tokenizer, commit, towers, pixels)


def find_weights(settings: ClipBackbone) -> tuple[Path, str | None]:
    """The folder of the weights, which the hub may have to send, and the hub's commit."""
    from huggingface_hub import snapshot_download

    folder, commit = Path(settings.location()), None
    if not folder.is_dir():
        require_hub(settings.name, settings.revision, ["open_clip_config.json"])
        wanted = ["*.json", "*.safetensors"]
        folder = Path(snapshot_download(settings.name, revision=settings.revision, allow_patterns=wanted))
        commit = folder.name
    if not any(folder.glob("*.safetensors")):
        raise ConfigurationError(f"backbone.name={settings.name} holds no .safetensors file for open_clip to read")
    return folder, commit
