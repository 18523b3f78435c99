from .base import Parameters as Parameters
from .base import PromptedModel as PromptedModel
