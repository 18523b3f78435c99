from .clip import ClipBackbone as ClipBackbone
from .config import TextBackbone as TextBackbone
