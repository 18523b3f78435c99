from .anthropic import Claude as Claude
from .base import Client as Client
from .huggingface import LocalModel as LocalModel
from .human import Human as Human
from .mock import MockModel as MockModel
from .openai import OpenAIChat as OpenAIChat
from .replay import Replay as Replay
