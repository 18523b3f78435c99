"""Candidates on training examples: their mean losses, and their right and wrong answers."""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.runs.records import Prompt, Proposal, Rejected
from llm_catalyst.utils.format import format_count


def rank_by_loss(candidates: Sequence[Proposal], context: MentorContext, examples: int) -> list[Proposal]:
    """The candidates by their mean loss on at most `examples` training examples, the lowest first, NaN last.

    The examples are drawn once, the same for all. The loss (nats) is added to each rationale.
    """
    rows = context.draw_examples(examples)
    trials = context.attempt([candidate.prompt for candidate in candidates], rows)
    losses = [fmean(trial.loss for trial in each) for each in trials]
    on = f"on {format_count(len(rows), 'training example')}"
    ranked = sorted(zip(losses, candidates, strict=True), key=lambda pair: math.inf if math.isnan(pair[0]) else pair[0])
    reasons = [", ".join(filter(None, (each.rationale, f"loss {loss:.3f} {on}"))) for loss, each in ranked]
    return [replace(each, rationale=reason) for (_, each), reason in zip(ranked, reasons, strict=True)]


def reject_candidate(candidate: Proposal, reason: str) -> Rejected:
    """A candidate that is not proposed, with its rationale and the reason."""
    return Rejected(candidate.prompt.text, f"{candidate.rationale}: {reason}")


def mark_answers(prompts: Sequence[Prompt], rows: Sequence[int], context: MentorContext) -> dict[Prompt, str]:
    """Each prompt's marks on the training examples `rows`: "1" for a right answer, "0" for a wrong one."""
    tried = zip(prompts, context.attempt(prompts, rows) if prompts else [], strict=True)
    return {prompt: "".join(str(int(trial.right)) for trial in trials) for prompt, trials in tried}


def marks_are_valid(stage: int, context: MentorContext) -> bool:
    """Whether marks that were made after `stage` still hold: whether the head is the same.

    `scored` has only prompts that were scored under the present head: if one of them is of that stage or an earlier
    one, the head was not trained since. Without any this is not known, and the prompts must be tried again.
    """
    return any(entry.stage <= stage for entry in context.scored)
