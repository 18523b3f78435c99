"""Answers in the many forms in which models write them: reasoning, tables, LaTeX, HTML, several items in a line."""

import re
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from helpers.measure_replies import LONG_UNITS

from llm_catalyst.mentors import reply_markup, reply_parser, reply_sections
from llm_catalyst.mentors.reply_parser import MOST_REJECTED, parse_proposals
from llm_catalyst.mentors.strategies.evoprompt import parse_last_prompt

BOTH = ["Is it good?", "How is it?"]
THREE = ["Is it good?", "How is it?", "Tell the mood"]

# The reply by the name of its form; each proposes BOTH.
TWO_PROMPTS = {
    "answer": "<thinking>x</thinking><answer>\n- Is it good?\n- How is it?\n</answer>",
    "analysis heading": (
        "## Analysis\n- The best prompts mention mood\n- Loss falls with words\n\n## Final prompts\n"
        "- Is it good?\n- How is it?"
    ),
    "analysis bold": (
        "**Analysis:**\n- The best prompts mention mood\n\n**Final prompts:**\n1. Is it good?\n2. How is it?"
    ),
    "analysis colon": "Analysis:\n1. The best mention mood\n2. b b\n\nNew prompts:\n1. Is it good?\n2. How is it?",
    "reasoning prose, list": "Reasoning:\nShort prompts do better here.\n\n- Is it good?\n- How is it?",
    "list, explanation": "New prompts:\n- Is it good?\n- How is it?\n\nExplanation:\n- short one\n- neutral one",
    "harmony": (
        "<|channel|>analysis<|message|>We need - a list\n"
        "- x y<|end|><|start|>assistant<|channel|>final<|message|>- Is it good?\n- How is it?"
    ),
    "harmony stripped": "analysisWe need three prompts.\n- a draft hereassistantfinal- Is it good?\n- How is it?",
    "reflection after": "- Is it good?\n- How is it?\n<reflection>\n- they are short\n</reflection>",
    "table": "| # | Prompt |\n|---|---|\n| 1 | Is it good? |\n| 2 | How is it? |",
    "table 3": (
        "| No. | Prompt | Expected loss |\n|:--|:--:|--:|\n| 1 | Is it good? | 0.2 |\n| 2 | How is it? | 0.3 |"
    ),
    "table noedge": "# | Prompt\n--|--\n1 | Is it good?\n2 | How is it?",
    "table bold quotes": (
        'Here:\n\n| Prompt | Rationale |\n|---|---|\n| **"Is it good?"** | because |\n| `How is it?` | since |'
    ),
    "table no rule": "| 1 | Is it good? |\n| 2 | How is it? |",
    "table one col": "| Is it good? |\n| How is it? |",
    "item": "\\begin{itemize}\n\\item Is it good?\n\\item How is it?\n\\end{itemize}",
    "enumerate": "\\begin{enumerate}\n  \\item[1.] Is it good?\n  \\item \\textbf{How is it?}\n\\end{enumerate}",
    "circled": "① Is it good?\n② How is it?",
    "circled2": "❶ Is it good?\n❷ How is it?",
    "circled inline": "① Is it good? ② How is it?",
    "keycap": "1️⃣ Is it good?\n2️⃣ How is it?",
    "emoji": "✅ Is it good?\n👉 How is it?",
    "Roman": "I. Is it good?\nII. How is it?",
    "roman)": "(i) Is it good?\n(ii) How is it?",
    "html list": "<ul>\n<li>Is it good?</li>\n<li>How is it?</li>\n</ul>",
    "ol inline": "<ol><li>Is it good?</li><li>How is it?</li></ol>",
    "xml": "<prompts>\n<prompt>Is it good?</prompt>\n<prompt>How is it?</prompt>\n</prompts>",
    "xml id": '<prompt id="1">Is it good?</prompt>\n<prompt id="2">How is it?</prompt>',
    "xml numbered": "Sure\n<prompt1>Is it good?</prompt1><prompt2>How is it?</prompt2>",
    "yaml": "prompts:\n  - text: Is it good?\n    loss: 0.2\n  - text: How is it?\n    loss: 0.3",
    "csv": "prompt,loss\nIs it good?,0.2\nHow is it?,0.3",
    "csv q": 'id;prompt\n1;"Is it good?"\n2;How is it?',
    "jsonl": '{"prompt": "Is it good?"}\n{"prompt": "How is it?"}',
    "json fenced": '```json\n{"prompts": ["Is it good?", "How is it?"]}\n```',
    "json trailing comma": '["Is it good?", "How is it?",]',
    "single quotes": "- 'Is it good?'\n- 'How is it?'",
    "checkbox": "- [ ] Is it good?\n- [x] How is it?",
    "arrow": "→ Is it good?\n→ How is it?",
    "star num": "**1.** Is it good?\n**2.** How is it?",
    "heading each": "### 1. Is it good?\n### 2. How is it?",
    "heading proposals": "### Prompt 1\nIs it good?\n\n### Prompt 2\nHow is it?",
    "rationales": "1. Is it good?\n   - Rationale: short\n2. How is it?\n   - Rationale: short",
    "rationales2": "1. **Is it good?** – This asks directly.\n2. **How is it?** – neutral",
    "bold label": "1. **Prompt 1**: Is it good?\n2. **Prompt 2**: How is it?",
    "blockquote": "> Is it good?\n\n> How is it?",
    "nested": "- Prompts:\n  - Is it good?\n  - How is it?",
    "Final answer": "Let me think. mood matters.\n- mood is good\nFinal answer:\n- Is it good?\n- How is it?",
    "tool call": (
        '<tool_call>\n{"name": "propose", "arguments": {"prompts": ["Is it good?", "How is it?"]}}\n</tool_call>'
    ),
    "zh": "1、Is it good?\n2、How is it?",
    "full width": "１．Is it good?\n２．How is it?",
    "dash num": "1 – Is it good?\n2 – How is it?",
    "P1": "P1: Is it good?\nP2: How is it?",
    "#1": "#1: Is it good?\n#2: How is it?",
    "Option A": "Option A: Is it good?\nOption B: How is it?",
    "footer": "- Is it good?\n- How is it?\n\nNote: these are short.",
    "score": "- Is it good? (loss: 0.21, accuracy: 0.93)\n- How is it? (loss: 0.3)",
    "score2": "- Is it good? | loss 0.21\n- How is it? | loss 0.30",
    "hr": "---\n- Is it good?\n---\n- How is it?\n***",
    "fence with words": '```text title="x"\nIs it good?\nHow is it?\n```',
    "fences in a list": "1. First:\n   ```\n   Is it good?\n   ```\n2. Second:\n   ```\n   How is it?\n   ```",
    "fence in a line": "```Is it good?```\n```How is it?```",
    "backticks": "1. ``Is it good?``\n2. ``How is it?``",
    "json comments": '[\n  "Is it good?", // first, short\n  "How is it?", // second\n]',
    "json cut off": '{"prompts": ["Is it good?", "How is it?", "Tell me ab',
    "json objects cut off": '{"prompts": [{"text": "Is it good?"}, {"text": "How is it?"}, {"text": "Tel',
    "json key cut off": '[{"text": "Is it good?", "loss": 1}, {"text": "How is it?", "lo',
    "json line end": '["Is it\ngood?", "How is it?"]',
    "json old and new": '[{"old_prompt": "x", "new_prompt": "Is it good?"}, {"old_prompt": "a", "p": "How is it?"}]',
    "json in a text": '"[\\"Is it good?\\", \\"How is it?\\"]"',
    "tool call's text": '{"name": "f", "arguments": "{\\"prompts\\": [\\"Is it good?\\", \\"How is it?\\"]}"}',
    "line ends escaped": "1. Is it good?\\n2. How is it?",
    "quotes escaped": "- &quot;Is it good?&quot;\n- &#39;How is it?&#39;",
    "yaml block": "- prompt: |\n    Is it good?\n- prompt: >-\n    How is it?",
    "yaml keys": "prompt_1: Is it good?\nprompt_2: How is it?",
    "yaml ids": "- id: 1\n  prompt: Is it good?\n- id: 2\n  prompt: How is it?",
    "opro": "text: Is it good?\nscore: 90\n\ntext: How is it?\nscore: 91",
    "xml lines": "<prompt>\nIs it good?\n</prompt>\n<prompt>\nHow\nis it?\n</prompt>",
    "xml list": "<instruction>\n- Is it good?\n- How is it?\n</instruction>",
    "xml items": "<items><item>Is it good?</item><item>How is it?</item></items>",
    "xml elements": (
        "<prompt><id>1</id><text>Is it good?</text></prompt>\n<prompt><text>How is it?</text><why>x</why></prompt>"
    ),
    "cdata": "<prompts><prompt><![CDATA[Is it good?]]></prompt><prompt><![CDATA[How is it?]]></prompt></prompts>",
    "drawn table": "┌───┬───┐\n│ # │ Prompt │\n├───┼───┤\n│ 1 │ Is it good? │\n│ 2 │ How is it? │\n└───┴───┘",
    "number words": "Prompt One: Is it good?\nPrompt Two: How is it?",
    "German": "Vorschlag 1: Is it good?\nVorschlag 2: How is it?",
    "French": "Proposition 1 : Is it good?\nProposition 2 : How is it?",
    "Chinese": "提示1：Is it good?\n提示2：How is it?",
    "Chinese numbers": "一、Is it good?\n二、How is it?",
    "Chinese brackets": "（1）Is it good?\n（2）How is it?",
    "Arabic digits": "١- Is it good?\n٢- How is it?",
    "1-": "1- Is it good?\n2- How is it?",
    "1>": "1> Is it good?\n2> How is it?",
    "1 tab": "1\tIs it good?\n2\tHow is it?",
    "pictures": "🎬 Is it good?\n🔥 How is it?",
    "quotes of Europe": "1. „Is it good?”\n2. ‚How is it?‘",
    "quotes of Japan": "1. 「Is it good?」\n2. 『How is it?』",
    "quotes, arrow": '1. "Is it good?" → direct\n2. "How is it?" → open',
    "loss after a question": "1. Is it good? loss: 0.2\n2. How is it? loss: 0.3",
    "special tokens": "<s>- Is it good?\n- How is it?</s>",
    "llama": "<|start_header_id|>assistant<|end_header_id|>\n\n- Is it good?\n- How is it?<|eot_id|>assistant",
    "gemma": "<start_of_turn>model\n- Is it good?\n- How is it?<end_of_turn>\n<start_of_turn>user\n- more",
    "deepseek": "<｜begin▁of▁sentence｜>- Is it good?\n- How is it?<｜end▁of▁sentence｜>",
    "role": "Assistant: - Is it good?\n- How is it?",
    "next turn": "- Is it good?\n- How is it?\n\nUser: thanks, more\nAssistant:\n- a third one",
    "next instruction": "- Is it good?\n- How is it?\n\n### Instruction:\nNow this\n### Response:\n- a third one",
    "think with attributes": '<think time="3 s">\n- x y\n</think>\n- Is it good?\n- How is it?',
    "think with blanks": "< think >\n- x y\n</ think >\n- Is it good?\n- How is it?",
    "smuggled text": "- Is it good?\U000e0041\U000e0101\ufe01\n- How is it?\u3164",
}
# Those with other proposals.
OTHERS = {
    "thinking unclosed": ("<thinking>\n- maybe ask about mood\n- or tone\n", []),
    "analysis cut off": ("Analysis:\n- The best mention mood\n- and words", []),
    "roman": ("i. Is it good?\nii. How is it?\niii. Tell it", ["Is it good?", "How is it?", "Tell it"]),
    "a,b quoted": ('"Is it good?", "How is it?", "Tell the mood"', THREE),
    "a,b sentence": ('I suggest "Is it good?", "How is it?" and "Tell the mood".', THREE),
    "a,b": ("Is it good, How is it, Tell the mood", ["Is it good", "How is it", "Tell the mood"]),
    "a;b": ("Is it good; How is it; Tell the mood", ["Is it good", "How is it", "Tell the mood"]),
    "a,b one prompt": ("Is it good, bad or something else", ["Is it good, bad or something else"]),
    "inline num": ("1. Is it good? 2. How is it? 3. Tell the mood", THREE),
    "thinking": ("<thinking>\n- maybe ask about mood\n- or tone\n</thinking>\n- Is it good?", ["Is it good?"]),
    "reasoning": ("<reasoning>- a\n- b b</reasoning>\n- Is it good?", ["Is it good?"]),
    "answer before prose": (
        "Some thought first.\n- not this one\n<answer>\n- Is it good?\n</answer>\nI hope this helps",
        ["Is it good?"],
    ),
    "answer unclosed": ("- thought here\n<answer>\n- Is it good?\n", ["Is it good?"]),
    "scratchpad": ("<scratchpad>\n1. hm hm\n</scratchpad>\n1. Is it good?", ["Is it good?"]),
    "analysis plain": ("Analysis\n- The best prompts mention mood\n\nFinal prompts\n- Is it good?", ["Is it good?"]),
    "analysis 2": ("### Step 1: Analysis\n- mood helps\n### Step 2: Final prompts\n- Is it good?", ["Is it good?"]),
    "seed think": ("<seed:think>\n- a b\n</seed:think>\n- Is it good?", ["Is it good?"]),
    "[THINK]": ("[THINK]\n- a b\n[/THINK]\n- Is it good?", ["Is it good?"]),
    "kimi": ("◁think▷- a b◁/think▷- Is it good?", ["Is it good?"]),
    "html table": (
        "<table><tr><th>#</th><th>Prompt</th></tr><tr><td>1</td><td>Is it good?</td></tr></table>",
        ["Is it good?"],
    ),
    "json in think": ('<think>["x y"]</think>["Is it good?"]', ["Is it good?"]),
    "preamble think": (
        "Okay, so I need to find better prompts. Let me think.\n- mood helps\n- tone helps\n</think>\n\n- Is it good?",
        ["Is it good?"],
    ),
    "answer boxed": ("The final answer is $\\boxed{\\text{Is it good?}}$", ["Is it good?"]),
    "placeholders": ("- [prompt 1]\n- <prompt 2>", []),
    "Persian": ("- می\u200cخواهم\n- \u200cIs it\u200d good?", ["می\u200cخواهم", "Is it good?"]),
    "numbers that do not count": ("Is it 1: good\nIs it 5: bad", ["Is it 1: good", "Is it 5: bad"]),
    "signs that are no pictures": ("≥ 4 stars\n≤ 2 stars", ["≥ 4 stars", "≤ 2 stars"]),
    "half a tag": ("<prompt>Is it good?</prompt>\n<prompt>How is it?</pro", BOTH),
    "one picture": ("🎬 or what\nis it", ["🎬 or what", "is it"]),
    "strike": ("- ~~Is it bad?~~\n- Is it good?", ["Is it good?"]),
    "answer label": ("Answer: Is it good?", ["Is it good?"]),
}


@pytest.mark.parametrize("reply", TWO_PROMPTS.values(), ids=TWO_PROMPTS)
def test_a_list_in_any_form_gives_its_texts_without_markup(reply: str) -> None:
    assert parse_proposals(reply)[0] == BOTH


@pytest.mark.parametrize(("reply", "wanted"), OTHERS.values(), ids=OTHERS)
def test_thoughts_headings_and_remarks_are_no_proposals(reply: str, wanted: list[str]) -> None:
    assert parse_proposals(reply)[0] == wanted


@pytest.mark.parametrize(
    "reply",
    [
        "I’m sorry, but I can’t assist with that.",
        "As an AI language model, I cannot provide prompts.",
        "Unfortunately, I cannot fulfil this request.",
        "I must decline.",
        "I won't help with that.",
        "I apologize, but I cannot do this.",
        "Es tut mir leid, aber dabei kann ich nicht helfen.",
        "Désolé, je ne peux pas vous aider.",
        "Lo siento, no puedo ayudarte con eso.",
        "对不起，我无法满足您的请求。",
        "抱歉，我不能帮助您。",
        "申し訳ありませんが、お手伝いできません。",
        "죄송하지만 도와드릴 수 없습니다.",
        "Извините, я не могу помочь с этим.",
        "None",
        "N/A",
    ],
)
def test_a_refusal_in_any_apostrophe_or_language_is_no_proposal(reply: str) -> None:
    assert [rejected.reason for rejected in parse_proposals(reply)[1]] == ["a phrase, not a proposal"]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (OTHERS["thinking"][0], "reasoning before the answer"),
        (OTHERS["thinking unclosed"][0], "reasoning without an answer; the answer may have been cut off"),
        (OTHERS["answer before prose"][0], "text beside the tags of the answer"),
        (TWO_PROMPTS["analysis heading"], "a line of an analysis, not of the answer"),
        (OTHERS["analysis cut off"][0], "a line of an analysis, not of the answer"),
        (OTHERS["strike"][0], "struck out"),
        (TWO_PROMPTS["next turn"], "text after the end of the answer"),
    ],
)
def test_what_is_dropped_has_its_reason(reply: str, reason: str) -> None:
    assert reason in [rejected.reason for rejected in parse_proposals(reply)[1]]


@pytest.mark.parametrize(
    "text",
    [
        "good, bad or neither of them",
        "is this | that",
        "Analysis of the film",
        "the answer",
        "the mood (1 to 5)",
        "<analysis> of the film",
        'say "good" or "bad"',
        "loss of words",
        "vi is an editor",
    ],
)
def test_a_proposal_that_looks_a_little_like_markup_stays_whole(text: str) -> None:
    assert parse_proposals(f"- {text}\n- another one")[0] == [text, "another one"]


def test_a_strategy_with_tags_of_its_own_reads_no_thoughts() -> None:
    reply = "<thinking><prompt>a draft</prompt></thinking><answer><prompt>the answer</prompt></answer>"
    assert parse_last_prompt(reply)[0] == ["the answer"]


class CountingPattern:
    """A compiled pattern that adds to `scanned` the length of each text that it is given."""

    scanned = 0

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._pattern, name)

        def count(*args: Any, **named: Any) -> Any:
            text = args[-1] if name == "sub" else args[0]
            start, end = (*args[1:3], 0, len(text))[:2] if name in ("match", "finditer") else (0, len(text))
            CountingPattern.scanned += min(len(text), end) - start
            return method(*args, **named)

        return count if callable(method) else method


def count_work(monkeypatch: pytest.MonkeyPatch, reply: str) -> int:
    """The Python instructions that parsing a reply takes, and the characters that patterns are given for it."""
    instructions = 0

    def trace(frame: FrameType, event: str, arg: object) -> Callable[..., Any]:
        nonlocal instructions
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        instructions += event == "opcode"
        return trace

    for module in (reply_parser, reply_markup, reply_sections):
        for name, value in list(vars(module).items()):
            if isinstance(value, re.Pattern):
                monkeypatch.setattr(module, name, CountingPattern(value))
    CountingPattern.scanned = 0
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        _, rejected = parse_proposals(reply)
    finally:
        sys.settrace(before)
        monkeypatch.undo()
    assert len(rejected) <= MOST_REJECTED + 3
    return instructions + CountingPattern.scanned


# What a pattern does within is counted by nothing; helpers/measure_replies.py measures its time.
@pytest.mark.parametrize("unit", LONG_UNITS)
def test_the_work_grows_linearly_with_the_length_of_the_answer(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = (count_work(monkeypatch, unit * (size // len(unit))) for size in (1_000, 8_000))
    assert 8_000 <= long < 2 * 8 * short  # quadratic: 64 times as much
