"""The proxy between this machine and a server is named, without its password."""

import pytest

from llm_catalyst.utils.proxies import name_proxy

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({}, "http://localhost:1/v1", ""),
        ({"HTTPS_PROXY": "http://p:8080"}, "http://localhost:1/v1", ""),
        ({"HTTP_PROXY": "http://p:8080"}, "http://localhost:1/v1", "p:8080 (HTTP_PROXY; NO_PROXY=localhost goes"),
        ({"https_proxy": "p:3128"}, "https://huggingface.co", "p:3128 (https_proxy; NO_PROXY=huggingface.co goes"),
        ({"ALL_PROXY": "socks5://u:secret@p:1"}, "https://api.openai.com/v1", " through the proxy p:1 (ALL_PROXY"),
        ({"HTTP_PROXY": "http://p:8080", "NO_PROXY": "localhost"}, "http://localhost:1/v1", ""),
    ],
    ids=str,
)
def test_the_proxy_of_a_url_is_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, expected: str
) -> None:
    for name in (*NAMES, *map(str.lower, NAMES)):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert expected in name_proxy(url)
    assert bool(expected) == bool(name_proxy(url))
    assert "secret" not in name_proxy(url)
