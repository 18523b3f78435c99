"""Generation tasks: rows, references, splits, and the requests that a model is sent."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.command import REPOSITORY
from helpers.tiny_models import folder
from omegaconf import OmegaConf
from transformers import AutoTokenizer

from llm_catalyst.tasks.base import Example, TaskData
from llm_catalyst.tasks.generation_task import GenerationTask, measure_constant
from llm_catalyst.tasks.request_layout import RequestLayout, encode_requests, split_request
from llm_catalyst.utils.validation import ConfigurationError

QWEN = (  # the form of Qwen2's template, without its default system turn
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def preset(name: str, **fields: Any) -> GenerationTask:
    """The task of conf/task/NAME.yaml."""
    base = OmegaConf.load(REPOSITORY / "conf" / "task" / "_generation_task.yaml")
    own = OmegaConf.load(REPOSITORY / "conf" / "task" / f"{name}.yaml")
    merged: Any = OmegaConf.to_container(OmegaConf.merge(base, own, {"hub_config": None}))
    given = {key: value for key, value in merged.items() if key not in ("defaults", "_target_")}
    return GenerationTask(**{**given, **fields})


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# --- data sets


def test_gsm8k_keeps_its_test_split_and_holds_dev_out_of_train(real: Callable[[str], Path]) -> None:
    home = real("gsm8k")
    data = preset("gsm8k", path=str(home)).load(1)
    rows = [json.loads(line) for line in (home / "test.jsonl").read_text().splitlines()]
    assert [example.sequences[0][0] for example in data.test] == [row["question"] for row in rows]
    assert [example.targets for example in data.test] == [(row["answer"],) for row in rows]
    assert (len(data.dev), len(data.train)) == (100, 7373)
    assert not {row.sequences for row in data.dev} & {row.sequences for row in data.train}


@pytest.mark.parametrize(
    ("subset", "rule"),
    [
        ("navigate", "boolean"),
        ("date_understanding", "option"),
        ("object_counting", "number"),
        ("word_sorting", "verbatim"),
    ],
)
def test_bbh_is_split_by_seed_and_reports_on_the_same_rows_for_all_seeds(
    real: Callable[[str], Path], subset: str, rule: str
) -> None:
    file = str(real("bbh") / f"{subset}.json")
    one, two = (preset("bbh", path=file).load(seed) for seed in (1, 2))
    assert isinstance(one.task, GenerationTask)
    assert one.task.extract == rule
    assert [len(split) for split in (one.train, one.dev, one.test)] == [50, 50, 150]
    assert one.test == two.test
    assert one.train != two.train
    splits = [{row.sequences for row in split} for split in (one.train, one.dev, one.test)]
    assert not splits[0] & splits[1]
    assert not (splits[0] | splits[1]) & splits[2]


def test_a_subset_is_found_below_the_data_folder_and_a_misspelt_one_is_told(
    real: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALYST_DATA", str(real("bbh").parent))
    assert preset("bbh", subset="snarks").load(1).source.endswith("bbh/snarks.json")
    with pytest.raises(ConfigurationError, match=r"task\.subset=snark is not in .*did you mean snarks"):
        preset("bbh", subset="snark").load(1)


def test_mmlu_shows_lettered_options(tmp_path: Path) -> None:
    # The fields of cais/mmlu: a list of options, and the number of the right one.
    rows = [
        {"question": f"What is {i} + 1?", "choices": [str(i), str(i + 1), "9", "0"], "answer": 1} for i in range(12)
    ]
    for split in ("validation", "test"):
        write_lines(tmp_path / f"{split}.jsonl", rows if split == "test" else rows[:6])
    data = preset("mmlu", path=str(tmp_path), subset=None, dev_rows=2).load(1)
    assert data.test[0].sequences == (("What is 0 + 1?\n(A) 0\n(B) 1\n(C) 9\n(D) 0", None),)
    assert data.test[0].targets == ("(B)",)


def test_squad_has_several_references_of_which_the_best_counts(tmp_path: Path) -> None:
    row = {
        "context": "It was in Denver, Colorado.",
        "answers": {"text": ["Denver", "Denver, Colorado"], "answer_start": [10, 10]},
    }
    for split in ("train", "validation"):
        write_lines(
            tmp_path / f"{split}.jsonl", [{**row, "question": f"Where was it ({split} {i})?"} for i in range(10)]
        )
    data = preset("squad", path=str(tmp_path), dev_rows=2).load(1)
    assert data.test[0].targets == ("Denver", "Denver, Colorado")
    assert isinstance(data.task, GenerationTask)
    assert measure_constant(data.task, data.test) == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"extract": "number"},
            r"task.extract=number reads no answer from the references of 10 of 10 rows \(100.0%\) of train",
        ),
        ({"text": "{q}"}, "there is no column 'q'; .*task.text and task.target"),
        ({"target": "{nothing}"}, "there is no nothing; fill it in"),
        ({"target": "no column"}, r"task.target='no column' names no column"),
        ({"question": "{other}"}, r"task.question='\{other\}' must hold \{input\}"),
        ({"extract": "regex"}, "task.extract=regex needs task.pattern"),
        ({"extract": "regex", "pattern": "("}, "is no regular expression"),
        ({"pattern": "x"}, "task.pattern has no effect"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    rows = [{"question": f"q {i}", "answer": "red" if i % 2 else "blue", "nothing": None} for i in range(10)]
    write_lines(tmp_path / "train.jsonl", rows)
    write_lines(tmp_path / "test.jsonl", rows)
    with pytest.raises(ConfigurationError, match=said):
        preset("local_generation", path=str(tmp_path), **fields).load(1)


# --- requests

ROW, SHOT = Example((("1 + 1?", None),), 0, targets=("2",)), Example((("2 + 2?", None),), 0, targets=("4",))


@pytest.mark.parametrize(
    ("position", "text"),
    [  # opro/evaluation/eval_utils.py, gen_prompt
        ("before", "Think.\nQ: 1 + 1?\n\nA:"),
        ("question_begin", "Q: Think.\n1 + 1?\n\nA:"),
        ("question_end", "Q: 1 + 1?\nThink.\n\nA:"),
        ("answer_begin", "Q: 1 + 1?\n\nA: Think."),
    ],
)
def test_a_request_as_plain_text_has_opros_forms(position: str, text: str) -> None:
    assert RequestLayout(preset("local_generation", position=position), (), False).write_text(ROW, "Think.") == text


def test_examples_stand_between_instruction_and_question() -> None:
    layout = RequestLayout(preset("local_generation"), (SHOT,), False)
    assert layout.write_text(ROW, "Think.") == "Think.\nQ: 2 + 2?\n\nA: 4\n\nQ: 1 + 1?\n\nA:"


@pytest.mark.parametrize(
    ("position", "turns"),
    [
        ("before", [("user", "Think.\n\n1 + 1?")]),
        ("question_end", [("user", "1 + 1?\n\nThink.")]),
        ("system", [("system", "Think."), ("user", "1 + 1?")]),
        ("answer_begin", [("user", "1 + 1?"), ("assistant", "Think.")]),
    ],
)
def test_a_request_as_turns_of_a_chat(position: str, turns: list[tuple[str, str]]) -> None:
    layout = RequestLayout(preset("local_generation", position=position), (), True)
    assert [(turn["role"], turn["content"]) for turn in layout.write_turns(ROW, "Think.")] == turns


def test_few_shot_examples_are_drawn_from_train(real: Callable[[str], Path]) -> None:
    data: TaskData = preset("bbh", path=str(real("bbh") / "navigate.json"), few_shot=3).load(1)
    assert isinstance(data.task, GenerationTask)
    shots = data.task.draw_few_shot(data.train, 1)
    assert len(shots) == 3
    assert all(shot in data.train for shot in shots)


@pytest.mark.parametrize("position", ["before", "question_begin", "question_end", "answer_begin", "system"])
@pytest.mark.parametrize("chat", [False, True])
def test_the_two_parts_of_a_request_lie_around_the_instruction(position: str, chat: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder("qwen"))
    tokenizer.chat_template = QWEN
    layout = RequestLayout(preset("local_generation", position=position), (SHOT,), chat)
    before, after = split_request(layout, tokenizer, ROW)
    if chat:
        begun = position == "answer_begin"
        whole = tokenizer.apply_chat_template(
            layout.write_turns(ROW, "Think."),
            tokenize=False,
            add_generation_prompt=not begun,
            continue_final_message=begun,
        )
    else:
        whole = layout.write_text(ROW, "Think.")
    assert f"{before}Think.{after}" == whole


def test_a_template_that_refuses_a_system_turn_is_told() -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder("qwen"))
    tokenizer.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    layout = RequestLayout(preset("local_generation", position="system"), (), True)
    with pytest.raises(ConfigurationError, match=r"refuses task\.position=system .*no system turn"):
        split_request(layout, tokenizer, ROW)
    tokenizer.chat_template = "{{ messages[0].content | upper }}"
    with pytest.raises(ConfigurationError, match="does not show a turn as it is"):
        split_request(RequestLayout(preset("local_generation"), (), True), tokenizer, ROW)


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama"])
def test_the_ids_of_a_request_read_as_its_text(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder(name))
    layout = RequestLayout(preset("local_generation", question="film {input}", answer="good"), (), False)
    found = encode_requests(layout, tokenizer, [ROW])
    assert list(found.before[0]) == tokenizer("good").input_ids[: len(found.before[0])]
    read = tokenizer.decode([*tokenizer("good", add_special_tokens=False).input_ids, *found.after[0]])
    assert read == tokenizer.decode(tokenizer(layout.write_text(ROW, "good"), add_special_tokens=False).input_ids)
    assert found.answers[0][-1] == tokenizer.eos_token_id


def test_a_file_with_too_few_rows_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", [{"question": "q", "answer": "a"}])
    with pytest.raises(ConfigurationError, match="nothing is left for"):
        preset("local_generation", path=str(tmp_path / "rows.jsonl")).load(1)
