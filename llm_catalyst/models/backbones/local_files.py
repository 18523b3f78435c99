"""The files of a model on this machine: which of them are read, what is wrong with them, and their checksums.

A folder is one that `save_pretrained` wrote, or a snapshot in the hub's cache.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from llm_catalyst.models.backbones.hub_cache import find_cached
from llm_catalyst.utils.paths import expand_path
from llm_catalyst.utils.terminal import list_names
from llm_catalyst.utils.validation import ConfigurationError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges*", "*.model", "*.tiktoken")
PARSED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
# What the numbers of a run depend on beside the weights.
READ = (
    *PARSED,
    "vocab*.json",
    "vocab*.txt",
    "merges*.txt",
    "*.model",
    "*.tiktoken",
    "config.json",
    "preprocessor_config.json",
    "open_clip_config.json",
    "modules.json",
    "*_Pooling/config.json",
)
CONVERT = (
    "a pickle can run any code when it is read, and so none is read here; where you trust its maker, convert it once "
    "with transformers: AutoModel…from_pretrained(NAME, use_safetensors=False).save_pretrained(FOLDER)"
)
FOLDER = "name the folder that save_pretrained wrote, with config.json and model.safetensors in it"
UNPACK = "unpack it, and name the folder with config.json in it"
FILES = {
    ".gguf": "is a file of llama.cpp, which is not read here; name the transformers model that it was made from",
    ".onnx": "is a file of ONNX Runtime, which is not read here; name the transformers model that it was made from",
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z"), f"is an archive; {UNPACK}"),
    **dict.fromkeys((".safetensors", *PICKLES), f"is one file of a model; {FOLDER}"),
}
OTHER_FORMATS = {
    ".onnx": "ONNX Runtime",
    ".gguf": "llama.cpp",
    ".h5": "TensorFlow",
    ".msgpack": "Flax",
    ".tflite": "TensorFlow Lite",
}
AGAIN = "download it again"
PIECE = 2**22  # bytes that are read at once
LFS_POINTER = b"version https://git-lfs"


def refuse_files(key: str, where: str) -> None:
    """Raise ConfigurationError as `refuse_place` does, or where files of a folder are missing or not whole."""
    refuse_place(key, where)
    folder = expand_path(where)
    if not folder.is_dir():
        return
    for file in (folder / name for name in PARSED if (folder / name).is_file()):
        try:
            json.loads(file.read_bytes())
        except ValueError as error:
            problem = f"{key}={where}: {file.name} is no JSON, or incomplete ({error})"
            raise ConfigurationError(f"{problem}; {AGAIN}") from error
    names = list_weights(key, where, folder)
    if not any(folder.glob("*.safetensors")) and not names:
        raise ConfigurationError(f"{key}={where} holds {explain_no_weights(folder)}")
    if lacking := [name for name in names if not (folder / name).is_file()]:
        raise ConfigurationError(f"{key}={where} lacks {list_names(lacking)}, which {INDEX} names; {AGAIN}")
    for name in names:
        if damage := find_damage(folder / name):
            raise ConfigurationError(f"{key}={where}: {name} {damage}; {AGAIN}")


def refuse_place(key: str, where: str) -> None:
    """Raise ConfigurationError where the place that `key` names is a file, is missing, or holds an adapter or pointers.

    A name of the hub passes, unless a folder of its owner's name is in the working directory.
    """
    path = expand_path(where)
    if path.is_file():
        raise ConfigurationError(f"{key}={where} {FILES.get(path.suffix.lower(), f'is a file; {FOLDER}')}")
    if path.is_dir():
        refuse_pointers(key, where, path)
        if (path / ADAPTER).is_file() or any(path.glob("adapter_model.*")):
            raise ConfigurationError(f"{key}={where} {explain_adapter(path)}")
    elif where.startswith((".", "/", "~")) or where.count("/") > 1 or path.suffix.lower() in FILES:
        raise ConfigurationError(f"{key}={where} is not there; name a folder, or a model of the hub")
    elif "/" in where and path.parent.is_dir() and find_cached(where, "config.json", None) is None:
        there = list_names(sorted(each.name for each in path.parent.iterdir() if each.is_dir()))
        raise ConfigurationError(
            f"{key}={where}: there is no folder ./{path}; the folder ./{path.parent} holds {there or 'no folder'}. "
            "Where the hub's model of that name is meant, run in another folder"
        )


def refuse_pointers(key: str, where: str, folder: Path) -> None:
    """Raise ConfigurationError where Git has put a pointer in the place of a large file."""
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        with file.open("rb") as content:
            if content.read(len(LFS_POINTER)) == LFS_POINTER:
                problem = f"{key}={where}: {file.name} is a pointer of Git LFS, and not the file itself"
                raise ConfigurationError(f"{problem}; fetch it in that folder: git lfs pull")


def explain_adapter(folder: Path) -> str:
    """What an adapter of PEFT in a folder is, and how it becomes a model that can be read."""
    content: Any = {}
    with suppress(OSError, ValueError):
        content = json.loads((folder / ADAPTER).read_bytes())
    content = content if isinstance(content, Mapping) else {}
    base = str(content.get("base_model_name_or_path") or "BASE_MODEL")
    kind = f"an adapter of PEFT ({content['peft_type']})" if content.get("peft_type") else "an adapter of PEFT"
    beside = (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()
    what = f"holds {kind} for {base} beside a model, which would be read without it"
    what = what if beside else f"is {kind} for {base}, and no model"
    load = f"PeftModel.from_pretrained(AutoModel…from_pretrained({base!r}), {str(folder)!r})"
    last = ", or remove the files adapter_* where the model is to be read without it" if beside else ""
    return f"{what}; merge the two once: {load}.merge_and_unload().save_pretrained(OTHER_FOLDER){last}"


def explain_no_weights(folder: Path) -> str:
    """What a folder without safetensors holds in their place, and the fix."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if pickles := [path.name for path in files if path.suffix in PICKLES and not path.name.startswith("training_args")]:
        return f"{', '.join(pickles)} and no {WEIGHTS}: {CONVERT}"
    load = "AutoModel…from_pretrained(ITS_MODEL).save_pretrained(FOLDER)"
    if others := [path for path in files if path.suffix in OTHER_FORMATS]:
        made = list_names(f"{path.name}, which is for {OTHER_FORMATS[path.suffix]}" for path in others[:2])
        return f"no {WEIGHTS}, but {made}; save the model with transformers there: {load}"
    there = ", ".join(path.name for path in files[:6]) or "nothing"
    return f"no weights: no {WEIGHTS} and no {INDEX} (there: {there}); put them there: {load}"


def list_weights(key: str, where: str, folder: Path) -> list[str]:
    """The names of the files that hold the weights: those of the index, or the one file; [] where neither is there.

    Raises:
        ConfigurationError: the index cannot be read; `key` and `where` name the model.
    """
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [WEIGHTS] if (folder / WEIGHTS).is_file() else []
    try:
        return sorted({str(name) for name in json.loads((folder / INDEX).read_bytes())["weight_map"].values()})
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        problem = f"{key}={where}: {INDEX} lists no files of weights ({type(error).__name__}: {error})"
        raise ConfigurationError(f"{problem}; {AGAIN}") from error


def find_damage(file: Path) -> str:
    """What is wrong with a safetensors file by its header: its length, and that of what it announces; '' if nothing."""
    size = file.stat().st_size
    with file.open("rb") as content:
        length = struct.unpack("<Q", head)[0] if len(head := content.read(8)) == 8 else size
        if 8 + length > size:
            return f"is no safetensors file, or is incomplete ({size:,} bytes)"
        try:
            tensors = json.loads(content.read(length))
            ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
        except (ValueError, LookupError, TypeError, AttributeError):
            return "is no safetensors file: its header cannot be read"
    whole = 8 + length + max(ends, default=0)
    return "" if size == whole else f"is {'incomplete' if size < whole else 'damaged'} ({size:,} of {whole:,} bytes)"


def hash_files(folder: Path, code: bool) -> dict[str, str]:
    """SHA-256 of each file of a model that the numbers of a run depend on; with `code` its Python files are among them.

    Measured: 1.8 s for one file of 1.4 GB that was just read, on a busy processor with instructions for it (SHA-NI).
    """
    named = list_weights("backbone.name", str(folder), folder) or [path.name for path in folder.glob("*.safetensors")]
    patterns = (*READ, "*.py") if code else READ
    other = {path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern)}
    names = sorted(name for name in {*named, *other} if (folder / name).is_file())
    with ThreadPoolExecutor(4) as threads:
        return dict(zip(names, threads.map(hash_file, (folder / name for name in names)), strict=True))


def hash_file(file: Path) -> str:
    """The SHA-256 of a file, which this process reads once as long as it does not change."""
    found = file.stat()
    return hash_content(file, found.st_size, found.st_mtime_ns)


@cache
def hash_content(file: Path, size: int, changed: int) -> str:
    """The SHA-256 of a file of `size` bytes that was `changed` at that time, read in pieces."""
    with file.open("rb") as content:
        digest = hashlib.sha256()
        while piece := content.read(PIECE):
            digest.update(piece)
        return digest.hexdigest()
