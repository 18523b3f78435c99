"""Clients answer the requests of a language-model mentor: providers, local models, recorded runs, a person."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
