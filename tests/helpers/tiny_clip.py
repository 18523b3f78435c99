"""A tiny random CLIP with a tokenizer of CLIP's kind, in a folder as the hub holds it, and images that are drawn."""

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers.models.clip import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils import logging

from llm_catalyst.models.backbones.clip import ClipBackbone, FrozenClip, load_clip
from llm_catalyst.models.heads.base import ImageHead
from llm_catalyst.models.prompted import PromptedClip
from llm_catalyst.tasks.base import Example, TaskData
from llm_catalyst.tasks.image_task import ImageTask
from llm_catalyst.utils.memory import PassLimits

torch.set_num_threads(1)
logging.set_verbosity_error()
logging.disable_progress_bar()

CPU = torch.device("cpu")
FOLDER = tempfile.TemporaryDirectory(prefix="tiny-clip-")
WORDS = "red circle square very large green"  # each a token of its own; other words fall to pieces
LABELS = ("red circle", "square", "very large green hexagon")
TEMPLATES = ("a photo of a {}.", "a drawing of the {}, a type of shape.", "one {}.")
START, END = "<|startoftext|>", "<|endoftext|>"
PLACES = 24  # of the text tower: few, so that texts can be too long
TOWER = {"num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "projection_dim": 16}
TEXT = TOWER | {"hidden_size": 32, "max_position_embeddings": PLACES}
VISION = TOWER | {"hidden_size": 24, "image_size": 32, "patch_size": 8}


@cache
def tokenizer() -> Any:
    """Lower-case byte-level BPE in which '</w>' ends a word; ids in CLIP's order, start and end of text the last."""
    pieces = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    pieces.normalizer = normalizers.Lowercase()
    pieces.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False)])
    trainer = trainers.BpeTrainer(vocab_size=300, end_of_word_suffix="</w>", show_progress=False)
    pieces.train_from_iterator([template.format(WORDS) for template in TEMPLATES] * 3, trainer)
    merges: Any = [tuple(pair) for pair in json.loads(pieces.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    return CLIPTokenizer(vocab={piece: i for i, piece in enumerate(dict.fromkeys(known))}, merges=merges)


@cache
def folder(eos: int | None = None) -> str:
    """A folder with the model, its tokenizer and its image processor; `eos` is the id that its configuration has."""
    path = Path(FOLDER.name) / f"clip-{eos}"
    last = len(tokenizer()) - 1
    ids = {"vocab_size": len(tokenizer()), "bos_token_id": last - 1, "eos_token_id": last if eos is None else eos}
    config = CLIPConfig(text_config=TEXT | ids, vision_config=VISION, projection_dim=16, initializer_factor=4.0)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        CLIPModel(config).save_pretrained(path)
    tokenizer().save_pretrained(path)
    CLIPImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(path)
    return str(path)


@cache
def backbone(**settings: Any) -> FrozenClip:
    """The tiny CLIP as a run loads it."""
    return load_clip(ClipBackbone(folder(), **settings), False, CPU)


def shape_data(labels: tuple[str, ...] = LABELS, **fields: Any) -> TaskData:
    """An image task with one example of each class whose image nobody looks at."""
    task = ImageTask(**{"name": "shapes", "templates": list(TEMPLATES), "layout": "shapes", **fields})
    rows = tuple(Example(((f"/nowhere/{i}.png", None),), i) for i in range(len(labels)))
    return TaskData(task, labels, rows, rows, rows, "memory")


def model(head: ImageHead, data: TaskData | None = None, **settings: Any) -> PromptedClip:
    """The tiny CLIP under a head."""
    constants = head.constants(backbone(**settings), data or shape_data())
    return PromptedClip(backbone(**settings), head, constants, PassLimits(10**6, 10**6))


def drawing(path: Path, seed: int, size: tuple[int, int] = (50, 40)) -> str:
    """The path of a drawn image: a disc on a coloured ground, both by `seed`."""
    image = Image.new("RGB", size, (seed * 53 % 256, 90, 200))
    ImageDraw.Draw(image).ellipse((5, 5, 20 + seed % 15, 30), fill=(250, seed * 31 % 256, 10))
    image.save(path)
    return str(path)
