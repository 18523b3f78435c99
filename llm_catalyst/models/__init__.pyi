from .base import Parameters as Parameters
from .base import PromptedModel as PromptedModel
from .base import Tensors as Tensors
