"""Whether long answers of a language model are parsed in linear time:   tests/helpers/measure_replies.py

Prints for each unit, which an answer repeats, the seconds for 50,000 and for 400,000 characters and their ratio: 8
where the time is linear, less where a limit ends the reading, 64 where it is quadratic. A minute on a slow core.
"""

from time import process_time

from llm_catalyst.mentors.reply_parser import parse_proposals

LONG_UNITS = (
    *("[", "\n[", ": [", "['a',", '{"a":', '["a",', '"', '["//', "{{", "(1", " ", "\\n- a", "\x1b[", "&amp;", "- a\n"),
    *(
        "<think>",
        "<thinking>",
        "</answer>",
        "<answer>",
        "<<s>",
        "<s>",
        "<|im_end|>",
        "\nUser: ",
        "<prompt>\n",
        "<item>",
    ),
    *("<li>", "<id>", "<![CDATA[", "|a|\n", "| ", "│a│\n", "\\item ", "\\boxed{", "①a ", "1. a ", "A 1: a\n", "☀ a\n"),
    *('"a", ', "**a** - b", "a; ", "```\n", "`"),
)
SHORT, LONG = 50_000, 400_000  # characters


def main() -> None:
    for unit in LONG_UNITS:
        short, long = (min(measure(unit * (size // len(unit))) for _ in range(3)) for size in (SHORT, LONG))
        print(f"{unit!r:16} {short:8.3f} {long:8.3f} {long / max(short, 0.001):8.1f}")


def measure(reply: str) -> float:
    """The processor's seconds for one reply."""
    begun = process_time()
    parse_proposals(reply)
    return process_time() - begun


if __name__ == "__main__":
    main()
