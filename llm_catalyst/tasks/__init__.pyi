from .base import Example as Example
from .base import Task as Task
from .base import TaskData as TaskData
from .batching import Batch as Batch
from .batching import Examples as Examples
from .batching import TextBatch as TextBatch
from .image_task import ImageTask as ImageTask
from .text_task import TextTask as TextTask
