"""Clients: who answers a mentor's requests, from a provider's API to a person."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
