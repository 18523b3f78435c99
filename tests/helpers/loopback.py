"""A real HTTP server on 127.0.0.1 that speaks the wire formats of OpenAI and Anthropic, by a script."""

import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock
from urllib.parse import unquote


@dataclass(frozen=True)
class Response:
    """One scripted response. `drip_s` seconds pass between single bytes of the body, `delay_s` before it.

    With `reset` the connection is reset in the middle of the body.
    """

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drip_s: float = 0.0
    reset: bool = False


@dataclass(frozen=True)
class Request:
    """A request as it was received."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


@dataclass
class Loopback:
    """The running server: its address, its script, and the requests that it received.

    `looked_up` are the paths at which it was asked for models, which is free; `lookups` answer these. `reply`, where it
    is given, stands for the script: what is answered then does not hang on the order of requests, of which `most` were
    under way at the same time. `living`, where it is given, are the only models that it knows, with the days of their
    shutdown; of others it says what OpenAI says of a model that is gone.
    """

    url: str
    script: list[Response]
    lookups: list[Response]
    requests: list[Request] = field(default_factory=list)
    looked_up: list[str] = field(default_factory=list)
    reply: Callable[[Request], Response] | None = None
    living: Mapping[str, str | None] | None = None
    most: int = 0


def raw(body: str, status: int = 200, content_type: str = "application/json", **settings: Any) -> Response:
    """A response with any body."""
    headers = {"content-type": content_type, **settings.pop("headers", {})}
    return Response(body.encode(), status, headers, **settings)


def error(status: int, message: str, headers: Mapping[str, str] | None = None, code: str = "some_code") -> Response:
    """An error in the form that both providers share."""
    body = {"type": "error", "error": {"message": message, "type": "some_error", "code": code}}
    return raw(json.dumps(body), status, headers=headers or {})


def openai_chat(
    content: Any, finish_reason: str | None = "stop", model: str = "gpt-4o-mini", refusal: str | None = None
) -> Response:
    """A chat completion of 100 input and 20 output tokens."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason,
                "message": {"role": "assistant", "content": content, "refusal": refusal},
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }
    return raw(json.dumps(body), headers={"x-request-id": "req_openai"})


def anthropic_message(
    *texts: str, stop_reason: str | None = "end_turn", model: str = "claude-haiku-4-5-20251001", thought: str = "hm"
) -> Response:
    """A message of 100 input and 20 output tokens; it begins with a block of thinking, unless `thought` is empty."""
    blocks = [{"type": "thinking", "thinking": thought, "signature": "s"}] if thought else []
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": blocks + [{"type": "text", "text": text} for text in texts],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 100, "output_tokens": 20},
    }
    return raw(json.dumps(body), headers={"request-id": "req_anthropic"})


def model(name: str) -> Response:
    """What both providers say of a model that they know."""
    return raw(json.dumps({"id": name, "object": "model", "type": "model", "display_name": name, "created": 1}))


def model_list(*names: str) -> Response:
    """The list of a server's models, as both providers give it."""
    entries = [{"id": name, "object": "model", "type": "model"} for name in names]
    return raw(json.dumps({"object": "list", "data": entries, "has_more": False, "first_id": None, "last_id": None}))


def openai_model(name: str, shutdown_date: str | None) -> Response:
    """What OpenAI says of a model that it has."""
    return raw(json.dumps(model_entry(name, shutdown_date)))


def model_entry(name: str, shutdown_date: str | None) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1, "owned_by": "openai", "shutdown_date": shutdown_date}


def gone_model(name: str) -> Response:
    """What OpenAI says of a model that was shut down."""
    fault = {"message": f"The model `{name}` has been deprecated", "type": "invalid_request_error", "param": None}
    return raw(json.dumps({"error": fault | {"code": "model_not_found"}}), 404)


def look_up(living: Mapping[str, str | None], path: str) -> Response:
    """The answer to a request of the list of models, or of one of them; a server has them below /v1 only."""
    if not path.startswith("/v1/models"):
        return error(404, "no such route")
    _, sign, name = unquote(path).rpartition("/models/")
    if sign:
        return openai_model(name, living[name]) if name in living else gone_model(name)
    return raw(json.dumps({"object": "list", "data": [model_entry(*each) for each in living.items()]}))


@contextmanager
def serve(
    *script: Response,
    lookups: Sequence[Response] = (),
    reply: Callable[[Request], Response] | None = None,
    living: Mapping[str, str | None] | None = None,
) -> Iterator[Loopback]:
    """A server that gives the scripted responses one by one, and 418 when they are used up.

    Asked for a model (GET), it gives `lookups` one by one, and knows every model when they are used up.
    While it runs, NO_PROXY keeps the SDKs from going through a proxy, which they do even to 127.0.0.1.
    """
    loopback = Loopback("", list(script), list(lookups), reply=reply, living=living)
    under_way: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.path, headers, json.loads(body))
            loopback.requests.append(request)
            under_way.append(request)
            loopback.most = max(loopback.most, len(under_way))
            scripted = loopback.script.pop(0) if loopback.script else error(418, "the script is used up")
            response = loopback.reply(request) if loopback.reply else scripted
            if loopback.living is not None and (asked := request.body["model"]) not in loopback.living:
                response = gone_model(asked)
            time.sleep(response.delay_s)
            under_way.remove(request)  # before the answer goes out: another request may follow it at once
            self.give(replace(response, delay_s=0.0))

        def do_GET(self) -> None:
            loopback.looked_up.append(self.path)
            name = unquote(self.path.rpartition("/models/")[2])
            if loopback.living is not None:
                return self.give(look_up(loopback.living, self.path))
            self.give(loopback.lookups.pop(0) if loopback.lookups else model(name))

        def give(self, response: Response) -> None:
            time.sleep(response.delay_s)
            try:
                self.answer(response)
            except OSError:
                self.close_connection = True  # the client has gone: what a test of timeouts expects

        def answer(self, response: Response) -> None:
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(response.body)))
            self.end_headers()
            if response.reset:
                self.wfile.write(response.body[: len(response.body) // 2])
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return
            if not response.drip_s:
                self.wfile.write(response.body)
                return
            for byte in response.body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(response.drip_s)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the test's output is not a server log."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Nothing for a client that was killed, or gave up."""
            if not isinstance(sys.exc_info()[1], ConnectionError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    loopback.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        with mock.patch.dict(os.environ, NO_PROXY="127.0.0.1", no_proxy="127.0.0.1"):
            yield loopback
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
