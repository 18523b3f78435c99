"""The command line's words before Hydra reads them: quoting, sweeps over seeds, names derived from overrides."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_catalyst.config.errors import list_known_keys, print_error
from llm_catalyst.utils import checksums
from llm_catalyst.utils.paths import conf_directory, expand_path, list_choices
from llm_catalyst.utils.validation import ConfigurationError, did_you_mean

SWEEP = ("-m", "--multirun")
# Keys that are known under a shorter name, too.
SHORT_NAMES = {"restart": "restart.choose", "moments": "restart.moments"}


def absolutize_paths(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with relative paths to existing files made absolute, as a resume may start elsewhere."""
    mentors = [config["mentor"], *config["mentor"].get("fallbacks", [])]
    clients = [mentor["client"] for mentor in mentors if "client" in mentor]
    places = [(config["task"], "path"), (config["backbone"], "name"), (config.get("replay", {}), "run")]
    places.append((config.get("prompt", {}), "file"))
    places += [(mentor, key) for mentor in mentors for key in ("runs", "backbone", "file")]
    for node, key in [*places, *((client, key) for client in clients for key in ("run", "model"))]:
        if node.get(key) and expand_path(node[key]).exists():
            node[key] = str(expand_path(node[key]).absolute())
    return config


def expand_short_names(words: Sequence[str]) -> list[str]:
    """The words with the full name of each key that is known under a shorter one: restart.choose for restart."""
    parts = (word.partition("=") for word in words)
    return [f"{SHORT_NAMES.get(key, key) if sign else key}{sign}{value}" for key, sign, value in parts]


def is_override(word: str) -> bool:
    """Whether a word of the command line sets or removes a key; otherwise it belongs to an option of Hydra."""
    return ("=" in word and not word.startswith("-")) or word.startswith("~")


def refuse_other_words(words: Sequence[str]) -> None:
    """Raise ConfigurationError where one of these words, which are no options, sets or removes no key."""
    for word in words:
        key = re.match(r"(?:\+{0,2}[\w.@/:$-]+=|~[\w.@/:$-]+)", word)
        if key is None:
            groups = sorted(path.parent.name for path in conf_directory().glob("*/*.yaml") if path.stem == word)
            meant = " or ".join(f"{group}={word}" for group in groups)
            near = f" (did you mean {meant}?)" if groups else did_you_mean(word, list_known_keys())
            raise ConfigurationError(f"{word!r} sets no key; write KEY=VALUE{near}")


def refuse_missing_choices(words: Sequence[str], folders: Sequence[Path] = ()) -> None:
    """Raise ConfigurationError where an override of a group names no choice (`mentor=null`), or a list of them.

    Hydra has a raw ValueError for the first, and merges the choices of a list, of which a run would have one mixture.

    Args:
        words: Of the command line.
        folders: Of a user's own YAML files.
    """
    for word in words:
        key, sign, value = word.partition("=")
        group = key.lstrip("+")
        places = [folder / group for folder in (conf_directory(), *folders) if (folder / group).is_dir()]
        if not sign or not places or group in ("", "hydra"):
            continue
        choices = [path.stem for place in places for path in list_choices(place)]
        fix = f"; for none of them write {group}=none" if "none" in choices else "; or leave it out"
        if any(part.strip().lower() in ("", "null") for part in value.split(",")):
            raise ConfigurationError(f"{word} names no choice; there are: {', '.join(choices)}{fix}")
        if value.startswith("["):
            raise ConfigurationError(f"{word} names several choices; write one, or for a sweep -m {group}=A,B")


def expand_seeds_together(words: Sequence[str]) -> list[str]:
    """The words, with `seeds_together=[1,2]` replaced by a sweep over these seeds with hydra/launcher=together.

    With --cfg, which shows the configuration of one run, by the first seed.
    Raises ConfigurationError where it names no seeds, or the words also set a seed or a launcher.
    """
    given = [word.partition("=")[2] for word in words if re.match(r"\+{0,2}seeds_together=", word)]
    if not given:
        return list(words)
    kept = [word for word in words if not re.match(r"\+{0,2}seeds_together=", word)]
    seeds = given[-1].strip("[] ").replace(" ", "")
    if not re.fullmatch(r"\d+(,\d+)*|range\(\d+(,\d+)*\)", seeds):
        raise ConfigurationError(f"seeds_together={given[-1]} names no seeds; write seeds_together=[1,2,3]")
    if any(word.startswith("hydra.run.dir=") for word in kept):
        raise ConfigurationError("seeds_together makes several runs; name the folder around them: hydra.sweep.dir=DIR")
    if len(numbers := re.findall(r"\d+", seeds)) > len(set(numbers)) and "range" not in seeds:
        raise ConfigurationError(f"seeds_together={given[-1]} names a seed twice; name each once")
    if other := [word for word in kept if re.match(r"seed=|hydra/launcher=(?!together$)", word)]:
        raise ConfigurationError(f"seeds_together={given[-1]} leaves {other[0]} nothing to say; drop one of the two")
    if {"--cfg", "-c"} & {*kept}:
        return [*kept, f"seed={re.findall('[0-9]+', seeds)[0]}"]
    launcher = [] if "hydra/launcher=together" in kept else ["hydra/launcher=together"]
    return [*(word for word in kept if word not in SWEEP), "-m", f"seed={seeds}", *launcher]


def choose_sweep_folder(words: Sequence[str]) -> list[str]:
    """The override that derives a sweep's folder from its words, so that the same command continues it."""
    if not {*SWEEP} & {*words} or any(word.startswith("hydra.sweep.dir=") for word in words):
        return []
    return [f"hydra.sweep.dir=outputs/sweeps/{name_sweep(words) or 'sweep'}"]


def name_sweep(words: Sequence[str]) -> str:
    """A folder's name derived from the overrides among the words, '' where there are none.

    Left out are overrides of where and how long a run takes place, such as a budget, options, and overrides of Hydra
    itself except those that decide which values a sweeper chooses.
    """
    from llm_catalyst.runs.run_config import PLACE

    ignored = rf"hydra(?!/sweeper$|\.sweeper\.(sampler|seed|params)).*|{PLACE}"
    overrides = [word for word in words if is_override(word)]
    kept = [word for word in overrides if not re.fullmatch(ignored, word.partition("=")[0].lstrip("+"))]
    digest = checksums.sha256("\n".join(kept).encode())[:8]
    return f"{sanitize_folder_name('_'.join(kept))[:60]}_{digest}" if kept else ""


def sanitize_folder_name(name: Any) -> str:
    """A name from a configuration as the name of one folder, without separators that would leave its parent."""
    return re.sub(r"[^\w.-]+", "_", str(name)).strip(".") or "_"


def expand_config_folders(words: Sequence[str]) -> tuple[list[str], list[Path]]:
    """The words with `~` expanded in --config-dir=FOLDER, which a shell leaves; and the folders of this option."""
    expanded, folders = [], []
    for before, word in itertools.pairwise(["", *words]):
        option, sign, given = word.partition("=")
        if option == "--config-dir" and sign:
            folders.append(expand_path(given))
            word = f"{option}={folders[-1]}"
        elif before in ("--config-dir", "-cd"):
            folders.append(Path(word))
        expanded.append(word)
    return expanded, folders


def list_plugins(words: Sequence[str]) -> list[str]:
    """The names of packages in `plugins=[my_package]`."""
    given = [word.partition("=")[2] for word in words if re.match(r"\+{0,2}plugins=\[.*\]$", word)]
    return re.findall(r"[\w.]+", given[-1]) if given else []


def warn_of_hidden_files(folders: Sequence[Path]) -> None:
    """Warn of each file in the user's --config-dir that a packaged one of the same name hides."""
    for folder in folders:
        for file in sorted(folder.rglob("*.yaml")):
            place = file.relative_to(folder)
            if place != Path("models.yaml") and (conf_directory() / place).exists():  # its rows are merged
                print_error(f"{file} is not used: a packaged choice has the same name; rename yours", "warning")
