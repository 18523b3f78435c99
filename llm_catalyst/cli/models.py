"""`catalyst models`: the chat models of a server, or those of conf/models.yaml: shutdown date, price and preset."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.text import Text

from llm_catalyst.config.build import build_node
from llm_catalyst.mentors.catalogue import (
    Lifecycle,
    find_lifecycle,
    find_model,
    list_own_files,
    load_models,
    read_own_models,
    use_models,
)
from llm_catalyst.mentors.clients.http import HTTPClient
from llm_catalyst.mentors.clients.model_lookup import ModelLookup
from llm_catalyst.mentors.clients.openai import OpenAIChat
from llm_catalyst.sweeps.fallbacks import NO_FALLBACKS, read_node
from llm_catalyst.utils.format import format_count, join_first
from llm_catalyst.utils.paths import conf_directory, list_choices
from llm_catalyst.utils.terminal import escape_controls, make_columns
from llm_catalyst.utils.validation import ConfigurationError, check_choice

# What the names of models for other uses hold: no server's list says what a model is for.
OTHER_USES = re.compile(
    r"embed|rerank|moderation|whisper|transcri|tts|audio|speech|voice|realtime|image|imagen|dall-e|sora|veo|video|ocr"
)
OPEN = "???"  # a key of a preset that its user gives


def models_command(place: str | None, config_dir: Path | None, console: Console) -> None:
    """Print the models at `place`, a preset of conf/mentor or an address; None: those of conf/models.yaml that live."""
    folders = [folder for folder in (config_dir, conf_directory()) if folder]
    use_models(read_own_models(folders))
    prices = " and ".join(["conf/models.yaml", *map(str, list_own_files(folders))])
    presets = read_presets(folders)
    if place is None:
        endings = [find_lifecycle(name) for name in load_models()]
        print_models("conf/models.yaml", [ending for ending in endings if not ending.over], presets, prices, console)
        return
    client = find_client(place, presets)
    client.preflight()
    endings = [ModelLookup(entry.id, entry, known=True).lifecycle for entry in client.list_models()]
    print_models(client.base_url, sorted(endings, key=lambda ending: ending.model), presets, prices, console)


def read_presets(folders: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """The node `client` of each preset of a mentor that has one, of the packaged folder and a user's."""
    files = {path.stem: path for folder in folders for path in (folder / "mentor").glob("*.yaml")}
    names = [
        path.stem for folder in folders for path in list_choices(folder / "mentor") if path.stem not in NO_FALLBACKS
    ]
    nodes: dict[str, Any] = {name: OmegaConf.to_container(read_node(name, files), resolve=True) for name in names}
    return {name: node["client"] for name, node in nodes.items() if isinstance(node.get("client"), dict)}


def find_client(place: str, presets: Mapping[str, Mapping[str, Any]]) -> HTTPClient:
    """The client of a preset, or of the address `place`: with the key of the preset that has this address.

    Raises ConfigurationError where `place` is neither, or the preset asks no server.
    """
    if "://" in place:
        url = place.rstrip("/")
        own = (node for node in presets.values() if str(node.get("base_url", "")).rstrip("/") == url)
        node = next(own, None)
        if node is None:
            return OpenAIChat(model="any", base_url=url, key_variable=None)
    else:
        if ":" in place:
            raise ConfigurationError(f"{place} is no address: one begins with http:// or https://; try http://{place}")
        check_choice("mentor", place, sorted(presets))
        node = presets[place]
    if node.get("base_url") == OPEN:
        raise ConfigurationError(
            f"mentor={place} leaves mentor.client.base_url open; give the address: catalyst models URL"
        )
    if node.get("base_url", OPEN) is None:  # a cloud, by the SDK's own class
        raise ConfigurationError(f"mentor={place} has no list of models; its provider's console has one")
    given = {"model": "any"} if node.get("model") == OPEN else {}
    client = build_node({**node, **given}, "mentor.client")
    if not isinstance(client, HTTPClient):
        raise ConfigurationError(f"mentor={place} asks no server for its models")
    return client


def print_models(
    source: str, endings: Iterable[Lifecycle], presets: Mapping[str, Mapping[str, Any]], prices: str, console: Console
) -> None:
    """Print a line for each chat model, and how many others there are; `prices` names the files of prices."""
    endings = list(endings)
    chat = [ending for ending in endings if not OTHER_USES.search(ending.model)]
    others = [ending.model for ending in endings if OTHER_USES.search(ending.model)]
    table = make_columns("model", "shutdown", "successor", "$ in", "cached", "out", "mentor=", wide=0)
    for ending in chat:
        facts = find_model(ending.model)
        tier = facts.prices[0] if facts and facts.prices else None
        costs = [None] * 3 if tier is None else [tier.input, tier.cached, tier.output]
        names = {ending.model, *([facts.name] if facts else [])}
        asked = [name for name, node in presets.items() if node.get("model") in names]
        table.add_row(
            Text(escape_controls(ending.model), "dim" if ending.over else ""),
            Text(str(ending.shutdown or "") or ("retired" if ending.over else ""), "yellow" if ending.shutdown else ""),
            Text(escape_controls(ending.successor or "") if ending.shutdown else ""),
            *(Text("–" if cost is None else f"{cost:g}", "dim" if cost is None else "") for cost in costs),
            Text(", ".join(asked)),
        )
    console.print(table, crop=False)
    notes = [f"{format_count(len(chat), 'chat model')} of {source}; prices in USD per million tokens ({prices})"]
    if others:
        notes.append(f"left out by their names: {join_first(sorted(others), 5)}")
    for note in notes:
        console.print(Text(escape_controls(note), "dim"), soft_wrap=True)
