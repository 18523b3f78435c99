from .base import Backbone as Backbone
from .base import FrozenBackbone as FrozenBackbone
from .clip import ClipBackbone as ClipBackbone
from .config import TextBackbone as TextBackbone
