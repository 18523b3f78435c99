"""GEPA: reflect on a few answers of a prompt that is the best on some examples; keep the rewritten one if it is better.

Source: GEPA (Agrawal et al. 2025, "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning", arXiv
2507.19457, algorithms 1 and 2), and its code (gepa-ai/gepa: gepa_utils.py, reflective_mutation.py, acceptance.py,
instruction_proposal.py), in our own words.

Faithful: a parent is drawn from the candidates that are the best on some of the Pareto examples, in proportion to their
number, after candidates that are best only where another one is, too, were removed; it is tried on a minibatch of 3
training examples, which go round in a shuffled order; a minibatch without a mistake is skipped; the language model sees
the parent's answers and the right ones, and rewrites the prompt; the child is accepted if it gets strictly more of the
same minibatch right, and may be a parent at once.

Different:
- The Pareto examples are training examples, drawn once in a run; minibatches come from the others, or from all if too
  few are left. Theirs are a split of their own, all of it. The run's dev split still chooses the restart.
- The candidates are the best prompts of the run, those among them that training found; theirs are the first prompt and
  its accepted descendants, without a bound.
- A candidate's known answers are dropped when the classifier head has been trained since.
- Feedback is the right answer; a classifier gives no reasoning that could be shown.
- Merges (up to 5 there) put together modules of two programs. A single prompt has one module: left out.
- The temperature is that of published examples with DSPy.
"""

from collections.abc import Iterator, Mapping, Sequence
from random import Random

from llm_catalyst.mentors.base import MentorContext, Trial
from llm_catalyst.mentors.strategies.base import Dialogue, Request, Strategy
from llm_catalyst.mentors.strategies.templates import ask_again, describe_task, format_input, quote_json
from llm_catalyst.mentors.strategies.trials import mark_answers, marks_are_valid
from llm_catalyst.runs.records import Advice, Prompt, Proposal, Rejected
from llm_catalyst.utils.validation import NonNegative, PositiveInt, config_dataclass

MOST_DRAWS = 10  # parents and minibatches that are tried in search of a mistake, for each request

ROLE = """You improve a short text prompt that is put in front of the input of a frozen language model. You learn from \
the answers that it gave to single inputs, from the wrong ones above all."""
WISH = """Find out what these inputs ask for and what the model took them for. Then rewrite the prompt, so that the \
wrong answers become right, the right ones stay right, and other inputs of this kind gain, too. It may be an odd \
string of word pieces: keep what it hints at, not its form."""
RULES = """\
- Write fewer than {words} words. Only the first {tokens} tokens are used.
- Write the new prompt on one line that begins with "- ".
- Answer with the new prompt only: no introduction, no explanation."""

Mistake = tuple[Prompt, list[int], list[Trial]]  # a parent, a minibatch, and its trials on it, one of them wrong


@config_dataclass("strategy")
class Gepa(Strategy):
    """Reflection on mistakes; conf/strategy/gepa.yaml explains the fields."""

    needs_pool = True
    needs_model = True

    proposals: PositiveInt = 4
    minibatch: PositiveInt = 3
    pareto: PositiveInt = 64
    candidates: PositiveInt = 20
    temperature: NonNegative | None = 1.0

    def propose(self, context: MentorContext) -> Dialogue:
        """Send a request for each of `proposals` parents; propose the children that beat their parent, in order."""
        rows, marks = self.mark_candidates(context)
        batches = draw_minibatches(self.select_rows(rows, context), self.minibatch, context.rng)
        accepted: list[Proposal] = []
        refused: list[Rejected] = []
        asked = False
        for _ in range(self.proposals):
            if (mistake := find_mistake(marks, batches, context)) is None:
                break
            asked = True
            _, batch, trials = mistake
            before = count_correct(trials)
            (response,) = yield (self.build_request(context, mistake),)
            for child in response.proposals:
                after = count_correct(context.attempt([child.prompt], batch)[0])
                if after > before:
                    marks |= mark_answers([child.prompt], rows, context)
                    accepted.append(child)
                else:
                    result = f"{after} of {len(batch)} examples right, its parent {before}"
                    refused.append(Rejected(child.prompt.text, result))
        known = [[list(prompt.tokens), right] for prompt, right in marks.items()]
        memory = {"stage": context.stage, "pareto": rows, "right": known}
        # After requests, an empty advice is a result of the method: no child was accepted.
        why = None if asked else "no mistake was found to reflect on"
        return Advice(tuple(accepted), tuple(refused), fallback=why, memory=memory)

    def mark_candidates(self, context: MentorContext) -> tuple[list[int], dict[Prompt, str]]:
        """The Pareto examples, and each candidate's marks on them, the worst candidate first.

        Only candidates without valid marks from earlier consultations are tried.
        """
        memory = context.memory
        rows = memory.get("pareto") or sorted(context.draw_examples(self.pareto))
        valid = memory and marks_are_valid(memory["stage"], context)
        known = {tuple(tokens): marks for tokens, marks in memory["right"]} if valid else {}
        prompts = [entry.prompt for entry in context.scored[-self.candidates :]]
        tried = mark_answers([prompt for prompt in prompts if prompt.tokens not in known], rows, context)
        return rows, {prompt: known.get(prompt.tokens) or tried[prompt] for prompt in prompts}

    def select_rows(self, pareto: Sequence[int], context: MentorContext) -> list[int]:
        """The training examples that minibatches are drawn from."""
        everything = range(len(context.task.examples))
        others = sorted(set(everything) - set(pareto))
        return others if len(others) >= self.minibatch else list(everything)

    def build_request(self, context: MentorContext, mistake: Mistake) -> Request:
        """The request that shows a parent's answers to a minibatch and asks for a better prompt."""
        parent, batch, trials = mistake
        shown = [format_trial(row, trial, context) for row, trial in zip(batch, trials, strict=True)]
        prompt, answered = f"The prompt: {quote_json(parent.text)}", "With this prompt, the model answered:"
        words, tokens = self.limits(context.space)
        rules = RULES.format(words=words, tokens=tokens)
        paragraphs = [describe_task(context.task), prompt, answered, *shown, WISH, rules]
        rationale = f"rewritten from {quote_json(parent.text)}"
        reminder = ask_again("one now that is unlike the one above", 'on one line that begins with "- "', "new prompt")
        return self.make_request(ROLE, paragraphs, "New prompt:", reminder, rationale=rationale)


def draw_minibatches(rows: Sequence[int], size: int, rng: Random) -> Iterator[list[int]]:
    """Minibatches without end: all rows in a shuffled order, again and again; an incomplete one is left out."""
    size = min(size, len(rows))
    while True:
        order = rng.sample(rows, len(rows))
        yield from (order[i : i + size] for i in range(0, len(order) - size + 1, size))


def find_mistake(marks: Mapping[Prompt, str], batches: Iterator[list[int]], context: MentorContext) -> Mistake | None:
    """The first mistake in at most MOST_DRAWS draws of a parent and a minibatch, or None.

    The first parent with a mistake is taken; theirs continues with the next iteration if there is none.
    """
    wins = count_front_wins(list(marks.values()))
    for _ in range(MOST_DRAWS):
        (parent,) = context.rng.choices(list(marks), weights=wins)
        batch = next(batches)
        trials = context.attempt([parent], batch)[0]
        if count_correct(trials) < len(batch):
            return parent, batch, trials
    return None


def count_front_wins(marks: Sequence[str]) -> list[int]:
    """On how many examples each candidate is one of the best; 0 for those that are dominated.

    A candidate is dominated if, wherever it is best, another one that is not dominated is best, too. The worst
    candidates are looked at first, so that of two with the same marks the earlier one goes.
    """
    best = [max(column) for column in zip(*marks, strict=True)]
    winners = [{i for i, mine in enumerate(marks) if mine[row] == top} for row, top in enumerate(best)]
    for i in sorted(range(len(marks)), key=lambda i: marks[i].count("1")):
        if all(len(front) > 1 for front in winners if i in front):
            for front in winners:
                front.discard(i)
    return [sum(i in front for front in winners) for i in range(len(marks))]


def format_trial(row: int, trial: Trial, context: MentorContext) -> str:
    """A training example with the answer that the model gave, and the right one."""
    example = context.task.examples[row]
    verdict = "right" if trial.right else f"wrong, the right answer is {context.task.name_answer(example)}"
    return f"Input: {format_input(example)}\nAnswer: {trial.answer} ({verdict})"


def count_correct(trials: Sequence[Trial]) -> int:
    """The number of right answers."""
    return sum(trial.right for trial in trials)
