"""A CoOp epoch with cached image features against one that computes them:   scripts/bench/features.py

A CLIP of ViT-B/16's shape with random weights, one batch of drawn images an epoch, a context of 16 vectors, SGD.
Cached: features read from disk, then the step. Computed: images decoded, augmented, encoded, then the same step. What
both share is the text tower's work, which grows with the number of classes: the more there are, the smaller the ratio.
Run it with the project's Python (.venv/bin/python). Five minutes on two slow cores.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers.models.clip import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from llm_catalyst.models.backbones.clip import ClipBackbone, FrozenClip, load_clip
from llm_catalyst.models.heads.clip import Coop
from llm_catalyst.models.image_features import ImageBatch, ImageFeatures
from llm_catalyst.models.image_features import load_features as load_features
from llm_catalyst.models.prompted import PromptedClip
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.base import Member, StepRange
from llm_catalyst.tasks.base import Example, TaskData
from llm_catalyst.tasks.image_task import ImageTask
from llm_catalyst.utils.memory import PassLimits
from llm_catalyst.utils.rng import make_generator

CONTEXT = 16
NAMED = "{}e"  # a class's name: some three tokens of this tokenizer, as of CLIP's


def main() -> int:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="bench-features-") as folder:
        os.environ["CATALYST_CACHE"] = folder
        backbone = vit_b16(Path(folder) / "clip")
        examples = drawn(Path(folder), options.images)
        print(f"{options.images} images, batches of {options.batch}, {options.threads} threads; seconds of an epoch")
        print(f"{'classes':>8}{'cached':>10}{'computed':>10}{'ratio':>8}")
        for classes in options.classes:
            cached, computed = measure(backbone, examples, classes, options)
            print(f"{classes:8}{cached:10.3f}{computed:10.3f}{computed / cached:8.1f}", flush=True)
    return 0


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=32, help="of an epoch (32)")
    options.add_argument("--batch", type=int, default=32, help="images of a step (32)")
    options.add_argument("--classes", type=int, nargs="+", default=[2, 10, 100], help="numbers of classes (2 10 100)")
    options.add_argument("--threads", type=int, default=1, help="of torch (1)")
    options.add_argument("--times", type=int, default=3, help="each epoch is taken, the median counts (3)")
    return options


def vit_b16(folder: Path) -> FrozenClip:
    """A CLIP of ViT-B/16's shape with random weights, written and loaded as a run loads it."""
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    ids = {"eos_token_id": len(pieces) - 1, "bos_token_id": len(pieces) - 2}
    CLIPModel(CLIPConfig(text_config=ids, vision_config={"patch_size": 16})).save_pretrained(folder)
    return load_clip(ClipBackbone(str(folder)), False, torch.device("cpu"))


def drawn(folder: Path, number: int) -> list[Example]:
    """Noise, as JPEG of a usual size."""
    examples = []
    for i in range(number):
        Image.effect_noise((500, 375), 40 + i).convert("RGB").save(folder / f"{i}.jpg")
        examples.append(Example(((str(folder / f"{i}.jpg"), None),), i % 2))
    return examples


def measure(
    backbone: FrozenClip, examples: Sequence[Example], classes: int, options: argparse.Namespace
) -> tuple[float, float]:
    """Seconds of an epoch with cached features, and of one that computes them."""
    labels = tuple(NAMED.format(i + 10) for i in range(classes))
    rows = tuple(examples)
    data = TaskData(ImageTask("bench"), labels, rows, rows, rows, "drawn")
    head = Coop(CONTEXT)
    model = PromptedClip(backbone, head, head.constants(backbone, data), PassLimits(options.batch, 10**6))
    prompt = torch.randn(CONTEXT, backbone.vocabulary.shape[1], generator=make_generator(0, "bench")) * 0.02
    member = Member.of({"prompt": prompt})
    load_features(backbone, examples, views=1, seed=1)
    cached = partial(load_features, backbone, examples, views=1, seed=1)

    def computed() -> ImageFeatures:
        for file in Path(os.environ["CATALYST_CACHE"]).glob("features/*"):
            file.unlink()
        return cached()

    return epoch_seconds(model, member, cached, options), epoch_seconds(model, member, computed, options)


def epoch_seconds(
    model: PromptedClip, member: Member, features: Callable[[], ImageFeatures], options: argparse.Namespace
) -> float:
    """The median of some epochs, each with its features."""
    optimizer = Backprop(partial(torch.optim.SGD, lr=0.002), clip_norm=None)
    taken = []
    for _ in range(options.times + 1):  # the first one warms up
        begin = perf_counter()
        split = features()
        steps = -(-len(split) // options.batch)
        for _ in optimizer.train(model, [member], batches(split, options.batch), StepRange(0, steps, steps, 0)):
            pass
        taken.append(perf_counter() - begin)
    return statistics.median(taken[1:])


def batches(split: ImageFeatures, size: int) -> Iterator[ImageBatch]:
    """One epoch's, in order."""
    for i in range(0, len(split), size):
        yield split.batch([range(i, min(i + size, len(split)))], "cpu")


if __name__ == "__main__":
    raise SystemExit(main())
