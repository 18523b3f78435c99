"""Requests of a generation task: where instruction, examples and input stand, as plain text or as turns of a chat.

The instruction is what a prompt takes the place of. As plain text (the positions of OPRO, opro/evaluation/eval_utils.py
@ google-deepmind/opro):

    before           <instruction>\\n Q: <input>\\n\\n A:
    question_begin   Q: <instruction>\\n <input>\\n\\n A:
    question_end     Q: <input>\\n <instruction>\\n\\n A:
    answer_begin     Q: <input>\\n\\n A: <instruction>

As turns of a chat the user's turn has no "Q:" and "A:", `system` is the system turn, and with answer_begin the
assistant's turn begins with the instruction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.generation_task import GenerationTask
from llm_catalyst.tasks.request_batching import EncodedRequests
from llm_catalyst.tasks.templates import fill_template
from llm_catalyst.tasks.tokenization import encode_behind, find_surrounding
from llm_catalyst.utils.validation import ConfigurationError

Turn = dict[str, str]  # role and content
PLACE = "\u2063prompt\u2063"  # stands for the instruction in a text that is cut there; no data set holds it
GAP = "\n\n"  # between question, answer and examples


@dataclass(frozen=True)
class RequestLayout:
    """The requests of a task, each with the same examples in front; `chat` says whether as turns of a chat."""

    task: GenerationTask
    shots: tuple[Example, ...]
    chat: bool

    def write_text(self, example: Example, instruction: str) -> str:
        """The request as plain text."""
        task, position = self.task, self.task.position
        question = fill_question(task, example, instruction if position.startswith("question") else "")
        answer = f"{task.answer} {instruction}" if position == "answer_begin" else task.answer
        before = f"{instruction}\n" if position in ("before", "system") else ""
        shown = "".join(f"{fill_question(task, shot)}{GAP}{task.answer} {shot.targets[0]}{GAP}" for shot in self.shots)
        return f"{before}{shown}{question}{GAP}{answer}"

    def write_turns(self, example: Example, instruction: str) -> list[Turn]:
        """The request as turns of a chat; with answer_begin the last one is the beginning of the assistant's."""
        position = self.task.position
        turns = [{"role": "system", "content": instruction}] if position == "system" else []
        for shot in self.shots:
            turns += [make_turn("user", shot.sequences[0][0]), make_turn("assistant", shot.targets[0])]
        text = example.sequences[0][0]
        if position == "before" and turns:  # in front of the examples, too
            turns[0] = make_turn("user", f"{instruction}{GAP}{turns[0]['content']}")
        elif position in ("before", "question_begin"):
            text = f"{instruction}{GAP}{text}"
        elif position == "question_end":
            text = f"{text}{GAP}{instruction}"
        turns.append(make_turn("user", text))
        return [*turns, make_turn("assistant", instruction)] if position == "answer_begin" else turns


def make_turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}


def fill_question(task: GenerationTask, example: Example, instruction: str = "") -> str:
    """The question with the input, and the instruction at the input's beginning or end."""
    text = example.sequences[0][0]
    if instruction:
        text = f"{instruction}\n{text}" if task.position == "question_begin" else f"{text}\n{instruction}"
    return fill_template(task.question, {"input": text})


def split_request(layout: RequestLayout, tokenizer: Any, example: Example) -> tuple[str, str]:
    """The text of a request before the instruction and after it.

    Raises:
        ConfigurationError: the chat template takes no system turn, or does not show the instruction as it is.
    """
    if not layout.chat:
        before, _, after = layout.write_text(example, PLACE).partition(PLACE)
        return before, after
    turns = layout.write_turns(example, PLACE)
    begun = turns[-1]["role"] == "assistant"
    try:
        text = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=not begun, continue_final_message=begun
        )
    except Exception as error:  # jinja2.TemplateError and others: templates raise what they like
        problem = f"the model's chat template refuses task.position={layout.task.position} ({error})"
        raise ConfigurationError(f"{problem}; choose another position, or backbone.chat=false") from None
    before, found, after = text.partition(PLACE)
    if not found or PLACE in after:
        problem = "the model's chat template does not show a turn as it is, once"
        raise ConfigurationError(f"{problem}; choose another task.position, or backbone.chat=false")
    return before, after


def encode_requests(layout: RequestLayout, tokenizer: Any, examples: Sequence[Example]) -> EncodedRequests:
    """The requests as token ids, and behind each the first reference answer and the token that ends a text.

    What stands before the instruction and after it is tokenized apart, as the prompt between them is.
    """
    lead, _ = find_surrounding(tokenizer) if not layout.chat else ([], [])
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    before, after, answers = [], [], []
    for example in examples:
        first, rest = split_request(layout, tokenizer, example)
        before.append((*lead, *tokenizer(first, add_special_tokens=False).input_ids))
        after.append(tuple(encode_behind(tokenizer, rest) if rest else ()))
        target = example.targets[0] if layout.chat else f" {example.targets[0]}"
        answers.append((*encode_behind(tokenizer, target), *end))
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    return EncodedRequests(tuple(examples), tuple(before), tuple(after), tuple(answers), padding)
