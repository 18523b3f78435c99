"""A mentor that proposes given prompts: a person's own candidates, or those of another method."""

from collections.abc import Sequence

from llm_catalyst.mentors.base import Mentor, MentorContext
from llm_catalyst.runs.records import Advice, Proposal, Rejected
from llm_catalyst.utils.prompt_file import read_prompts
from llm_catalyst.utils.validation import ConfigurationError, PositiveInt, config_dataclass


@config_dataclass("mentor")
class Listed(Mentor):
    """Proposes the prompts of `file`, one on a line, in their order: at each restart the next `proposals` of them.

    After the last one it begins anew with the first. Without a file those of `prompts` are proposed.
    """

    file: str | None = None
    proposals: PositiveInt = 3
    prompts: tuple[str, ...] = ()

    def preflight(self) -> None:
        """Raise ConfigurationError where the file cannot be read, or there is no prompt."""
        if not self.read():
            raise ConfigurationError(
                "mentor=listed has no prompt, and the task has none of its own (task.prompts); "
                "write them into a file, one on a line: mentor.file=prompts.txt"
            )

    def read(self) -> Sequence[str]:
        """The prompts of the file or of the list. Raises ConfigurationError where the file cannot be read."""
        return self.prompts if self.file is None else read_prompts("mentor.file", self.file)

    def propose(self, context: MentorContext) -> Advice:
        """The next prompts, each fitted into m tokens; one without any token is rejected."""
        texts = self.read()
        first = context.stage * self.proposals
        proposals, rejected = list[Proposal](), list[Rejected]()
        for i in range(first, first + min(self.proposals, len(texts))):
            number = i % len(texts)
            try:
                prompt, lost = context.space.fit(texts[number])
                proposals.append(
                    Proposal(
                        prompt,
                        f"prompt {number + 1} of {len(texts)} in the {'list' if self.file is None else 'file'}",
                        lost,
                    )
                )
            except ValueError as error:
                rejected.append(Rejected(texts[number], str(error)))
        return Advice(tuple(proposals), tuple(rejected), None if proposals else "none of the prompts has a token")
