"""Guess the instruction from demonstrations, keep the guesses under which the answers are likeliest, vary the best.

Source: APE and iterative APE (Zhou et al. 2022, "Large Language Models Are Human-Level Prompt Engineers", arXiv
2211.01910, algorithm 1 and figures 2 and 3), and its code (keirp/automatic_prompt_engineer: generate.py, ape.py,
evaluation/likelihood.py, configs/default.yaml), in our own words.

Faithful: neither the task nor a score is shown, only inputs and outputs; 5 subsets of 5 examples; temperature 0.9;
duplicates removed; candidates are ranked by the mean log-likelihood of the answers on 50 training examples (here:
lowest mean loss first, which is its negative); later rounds ask for variations of the best prompts that keep their
meaning.

Different:
- One request asks for a list of `candidates` prompts. Theirs draws 50 completions of 50 tokens each for every subset;
  few providers return several completions of one request, so that would be 50 requests, each with the demonstrations
  in it. A list is one request, and a model need not repeat itself within it.
- All candidates are ranked on the same examples. Theirs draws other ones for each prompt, so that a prompt also wins by
  the luck of easy examples.
- The bandit that shares trials out among the candidates is left out: 50 prompts on 50 examples are cheap here.
- The run scores `proposals` candidates on the whole dev split. The next variations are of the `best` of all prompts
  with such a score, those that training found among them. In the paper its own score decides which share of them is
  varied; its code stops after the first round.
- It states how many words and tokens an instruction may have.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from annotated_types import Ge, Le

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.reply_parser import MOST_READ
from llm_catalyst.mentors.strategies.base import Dialogue, Request, Strategy, collect_proposals
from llm_catalyst.mentors.strategies.paraphrase import Paraphrase
from llm_catalyst.mentors.strategies.templates import ask_again, format_input, quote_json, write_rules
from llm_catalyst.mentors.strategies.trials import rank_by_loss, reject_candidate
from llm_catalyst.runs.records import Advice
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.validation import NonNegative, PositiveInt, config_dataclass

ROLE = "You find out which instruction was followed, from what came out of it."
STORY = """\
Somebody was given an instruction and, one by one, the inputs below. By the instruction, they gave these outputs:"""
WISH = """What was the instruction? Write {instructions} that would lead to these outputs, and to the right ones for \
other inputs of this kind. Let each be another guess, not the same one in other words."""


@config_dataclass("strategy")
class Ape(Strategy):
    """Instructions guessed from demonstrations; conf/strategy/ape.yaml explains the fields."""

    needs_model = True

    proposals: PositiveInt = 8
    subsets: PositiveInt = 5
    demonstrations: PositiveInt = 5
    candidates: Annotated[int, Ge(1), Le(MOST_READ)] = 10
    examples: PositiveInt = 50
    best: PositiveInt = 5
    temperature: NonNegative | None = 0.9

    def propose(self, context: MentorContext) -> Dialogue:
        """Propose the best guesses; the best variations, once guesses were made and if there is a prompt to vary."""
        vary = context.memory.get("guessed") and context.scored
        requests = self.ask_variations(context) if vary else self.ask_guesses(context)
        candidates = collect_proposals((yield tuple(requests)))
        if not candidates:
            return Advice()
        ranked = rank_by_loss(candidates, context, self.examples)
        rejected = [reject_candidate(each, f"not among the best {self.proposals}") for each in ranked[self.proposals :]]
        return Advice(tuple(ranked[: self.proposals]), tuple(rejected), memory={"guessed": True})

    def ask_guesses(self, context: MentorContext) -> Iterator[Request]:
        """A request for each subset of demonstrations: which instruction led to the outputs of these examples?"""
        task, wanted = context.task, format_count(self.candidates, "instruction")
        rules = write_rules(*self.limits(context.space), "instruction", "the instructions only: no introduction")
        reminder = ask_again(f"{wanted} now that would lead to the outputs", noun="usable instruction")
        for _ in range(self.subsets):
            examples = [task.examples[row] for row in context.draw_examples(self.demonstrations)]
            shown = [f"Input: {format_input(each)}\nOutput: {task.name_answer(each)}" for each in examples]
            paragraphs = [STORY, *shown, WISH.format(instructions=wanted), rules]
            yield self.make_request(ROLE, paragraphs, "Instructions:", reminder, self.candidates, "from demonstrations")

    def ask_variations(self, context: MentorContext) -> Iterator[Request]:
        """The request of strategy=paraphrase for each of the best prompts scored so far, the best one first."""
        paraphrase = Paraphrase(form=self.form, words=self.words, proposals=self.candidates)
        for parent in reversed(context.scored[-self.best :]):
            request = paraphrase.build_request(parent.prompt, context.space)
            rationale = f"a variation of {quote_json(parent.prompt.text)}"
            yield replace(request, temperature=self.temperature, rationale=rationale)
