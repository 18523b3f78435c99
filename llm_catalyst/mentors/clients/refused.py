"""The optional parameters that a server has refused for a model: they are not sent to it again by this process."""

import threading
from functools import cache


class RefusedParameters:
    """The names that one server has refused for one model; several threads may add to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: dict[str, None] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the order in which they were refused."""
        with self._lock:
            return tuple(self._names)

    def add(self, name: str) -> None:
        """Note that the server refuses `name`."""
        with self._lock:
            self._names[name] = None


@cache
def refused_parameters(url: str, model: str) -> RefusedParameters:
    """What the server at `url` has refused for `model`: the same object for the same arguments."""
    return RefusedParameters()
