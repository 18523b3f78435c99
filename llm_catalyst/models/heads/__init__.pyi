from .classifier import Classifier as Classifier
from .coop import Coop as Coop
from .similarity import Similarity as Similarity
from .tcp import Tcp as Tcp
from .verbalizer import Verbalizer as Verbalizer
from .zero_shot import ZeroShot as ZeroShot
