"""Answers in the many forms in which models write them: reasoning, tables, LaTeX, HTML, several items in a line."""

import time

import pytest

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
    ("reply", "reason"),
    [
        (OTHERS["thinking"][0], "reasoning before the answer"),
        (OTHERS["thinking unclosed"][0], "reasoning without an answer; the answer may have been cut off"),
        (OTHERS["answer before prose"][0], "text beside the tags of the answer"),
        (TWO_PROMPTS["analysis heading"], "a line of an analysis, not of the answer"),
        (OTHERS["analysis cut off"][0], "a line of an analysis, not of the answer"),
        (OTHERS["strike"][0], "struck out"),
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


@pytest.mark.parametrize(
    "unit",
    [
        "<thinking>",
        "</answer>",
        "<answer>",
        "|a|\n",
        "| ",
        "\\item ",
        "①a ",
        "1. a ",
        "<li>",
        '"a", ',
        "**a** - b",
        "a; ",
        "\\boxed{",
    ],
)
def test_long_answers_of_any_markup_are_read_in_linear_time(unit: str) -> None:
    def seconds(n: int) -> float:
        begun = time.process_time()  # other processes may be at work
        _, rejected = parse_proposals(unit * n)
        assert len(rejected) <= MOST_REJECTED + 3
        return time.process_time() - begun

    assert min(seconds(40_000) for _ in range(3)) < 20 * 6 * max(seconds(2_000), 0.003)
