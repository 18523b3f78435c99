"""The HTTP proxy that the environment puts between this machine and a server."""

import os
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass


def hub_url() -> str:
    """The address of the Hugging Face hub."""
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def name_proxy(url: str) -> str:
    """' through the proxy HOST:PORT (HTTPS_PROXY; NO_PROXY=… goes around it)', or '' where none is used for the URL."""
    parts, proxies = urlsplit(url), getproxies_environment()
    scheme = parts.scheme if parts.scheme in proxies else "all"
    if scheme not in proxies or proxy_bypass(parts.netloc):
        return ""
    # Without a name and password in it.
    place = proxies[scheme].rpartition("@")[2].partition("://")[2] or proxies[scheme].rpartition("@")[2]
    variable = next(name for name in sorted(os.environ, reverse=True) if name.lower() == f"{scheme}_proxy")
    return f" through the proxy {place} ({variable}; NO_PROXY={parts.hostname} goes around it)"
