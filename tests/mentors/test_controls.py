"""One contract for every mentor without a language model, and what is particular to each."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.tiny import consultation, prompt_space, scored
from helpers.tiny_models import TOKENIZERS

from llm_catalyst.config.build import build_components
from llm_catalyst.mentors.base import MentorContext, TaskDescription
from llm_catalyst.mentors.controls import BestOfPool, Evolution, NoMentor, Perturb, RandomTokens
from llm_catalyst.models.prompt_settings import PromptSettings
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.runs.records import Advice, LLMCall, Prompt, ScoredPrompt
from llm_catalyst.utils.validation import ConfigurationError

N = 4
MENTORS = {
    "none": NoMentor(),
    "best": BestOfPool(),
    "random": RandomTokens(N),
    "perturb": Perturb(N),
    "perturb one token": Perturb(N, rate=0.0),
    "evolution": Evolution(N),
    "evolution with all neighbours": Evolution(N, mutation=1.0, neighbours=1000),
}
SPACES = {
    "tiny": prompt_space(length=4),
    **{
        name: PromptSpace(
            make(),
            torch.randn(len(make()) + 3, 16, generator=torch.Generator().manual_seed(1)),
            PromptSettings(length=5),
        )
        for name, make in TOKENIZERS.items()
    },
}
TASK = TaskDescription("toy", "Say how the film was.", ("bad", "good"))


def pool_of(space: PromptSpace) -> tuple[ScoredPrompt, ...]:
    texts = ("film movie film movie", "it was it was", "good story good story")
    return tuple(scored(space, text, 0.9 - 0.2 * i, 0.5) for i, text in enumerate(texts))


def ask(mentor: Any, space: PromptSpace, pool: tuple[ScoredPrompt, ...], seed: int = 0) -> Advice:
    """Advice at a seed; an exchange, which would count as a paid call, must not be recorded."""

    def record(exchange: LLMCall) -> None:
        raise AssertionError("a control recorded an exchange")

    return mentor.propose(MentorContext(TASK, pool, 0, 3, space, random.Random(seed), record))


@pytest.fixture(params=MENTORS)
def mentor(request: pytest.FixtureRequest) -> Any:
    return MENTORS[request.param]


@pytest.fixture(params=SPACES)
def space(request: pytest.FixtureRequest) -> PromptSpace:
    return SPACES[request.param]


def draws(mentor: Any) -> bool:
    """Whether chance has a part in what a mentor proposes."""
    return not isinstance(mentor, NoMentor | BestOfPool)


# The contract


def test_proposals_have_m_allowed_tokens_and_their_text_and_are_as_many_as_asked_for(
    mentor: Any, space: PromptSpace
) -> None:
    for seed in range(5):
        advice = ask(mentor, space, pool_of(space), seed)
        assert len(advice.proposals) == mentor.proposals
        assert advice.fallback is None
        for proposal in advice.proposals:
            assert len(proposal.prompt.tokens) == space.length
            assert {*proposal.prompt.tokens} <= {*space.allowed_ids}
            assert proposal.prompt == space.prompt(proposal.prompt.tokens)
            assert proposal.rationale
            assert proposal.lost == ""


def test_advice_follows_from_the_random_stream_alone(mentor: Any, space: PromptSpace) -> None:
    torch.manual_seed(1)
    first = ask(mentor, space, pool_of(space), 3)
    torch.manual_seed(2)
    random.seed(2)
    assert ask(mentor, space, pool_of(space), 3) == first
    assert (ask(mentor, space, pool_of(space), 4) != first) is draws(mentor)


def test_asking_leaves_the_global_random_streams_alone(mentor: Any, space: PromptSpace) -> None:
    space.allowed_ids  # noqa: B018 - made on first use
    torch.manual_seed(1)
    random.seed(1)
    expected = torch.rand(1).item(), random.random()
    torch.manual_seed(1)
    random.seed(1)
    ask(mentor, space, pool_of(space))
    assert (torch.rand(1).item(), random.random()) == expected


def test_an_empty_pool_is_answered_by_proposals_or_by_a_reason(mentor: Any, space: PromptSpace) -> None:
    advice = ask(mentor, space, ())
    if isinstance(mentor, BestOfPool | Perturb | Evolution):
        assert advice.proposals == ()
        assert advice.fallback == "the pool is empty"
    else:
        assert len(advice.proposals) == mentor.proposals
        assert advice.fallback is None


def test_a_pool_of_one_prompt_is_enough(mentor: Any, space: PromptSpace) -> None:
    advice = ask(mentor, space, pool_of(space)[:1])
    assert advice.fallback is None
    assert len(advice.proposals) <= mentor.proposals
    assert bool(advice.proposals) is bool(mentor.proposals)


@pytest.mark.parametrize("name", ["none", "best", "random", "perturb", "evolution"])
def test_a_quickstart_run_is_built_with_each_of_them(name: str, composed: Callable[..., dict[str, Any]]) -> None:
    built = build_components(composed("experiment=quickstart", f"mentor={name}")).mentor
    assert type(built) is type(MENTORS[name])


# Each of them


def test_no_mentor_means_carry_on() -> None:
    assert ask(NoMentor(), SPACES["tiny"], pool_of(SPACES["tiny"])) == Advice()


def test_the_pools_best_is_proposed_as_it_is() -> None:
    space = SPACES["tiny"]
    pool = pool_of(space)
    assert [proposal.prompt for proposal in ask(BestOfPool(), space, pool).proposals] == [pool[-1].prompt]


def test_random_tokens_have_nothing_to_do_with_the_pool() -> None:
    space = SPACES["WordPiece"]
    assert ask(RandomTokens(N), space, ()) == ask(RandomTokens(N), space, pool_of(space))
    drawn = {t for seed in range(60) for p in ask(RandomTokens(N), space, (), seed).proposals for t in p.prompt.tokens}
    assert drawn == {*space.allowed_ids}  # every readable token comes up


def test_perturbing_replaces_one_token_at_least_and_only_by_near_ones() -> None:
    space = SPACES["WordPiece"]
    best = pool_of(space)[-1].prompt.tokens
    for proposal in ask(Perturb(N, rate=0.0, neighbours=3), space, pool_of(space)).proposals:
        ((old, new),) = [(a, b) for a, b in zip(best, proposal.prompt.tokens, strict=True) if a != b]
        assert new in space.nearest(space.vocabulary[old], 4).tolist()[1:]


def test_a_higher_rate_moves_a_prompt_further_away() -> None:
    space = SPACES["WordPiece"]
    best = pool_of(space)[-1].prompt.tokens

    def changed(rate: float) -> int:
        advice = [ask(Perturb(N, rate), space, pool_of(space), seed) for seed in range(10)]
        found = [proposal.prompt.tokens for each in advice for proposal in each.proposals]
        return sum(a != b for tokens in found for a, b in zip(tokens, best, strict=True))

    assert changed(0.0) == 10 * N
    assert 10 * N < changed(0.5) < changed(1.0) == 10 * N * space.length


def test_children_without_mutation_are_made_of_their_parents_tokens_place_by_place() -> None:
    space = SPACES["tiny"]
    pool = pool_of(space)
    for child in ask(Evolution(N, mutation=0.0), space, pool).proposals:
        places = zip(child.prompt.tokens, *(s.prompt.tokens for s in pool), strict=True)
        assert all(token in parents for token, *parents in places)


def test_children_are_distinct_and_new_to_the_pool() -> None:
    space = SPACES["tiny"]
    pool = pool_of(space)
    for seed in range(10):
        tokens = [p.prompt.tokens for p in ask(Evolution(N), space, pool, seed).proposals]
        assert len({*tokens}) == N
        assert not {*tokens} & {s.prompt.tokens for s in pool}


def test_where_no_new_child_can_be_found_the_reason_is_told() -> None:
    space = SPACES["tiny"]
    advice = ask(Evolution(N, mutation=0.0), space, pool_of(space)[:1])
    assert (advice.proposals, advice.fallback) == ((), "no new child was found")


def test_better_prompts_are_parents_more_often() -> None:
    space = SPACES["WordPiece"]
    letters = ("b", "c", "d")
    pool = tuple(scored(space, letter, 0.9 - 0.2 * i, 0.5) for i, letter in enumerate(letters))
    ids = [s.prompt.tokens[0] for s in pool]
    children = [p.prompt.tokens for seed in range(60) for p in ask(Evolution(N, 0.0), space, pool, seed).proposals]
    counts = [sum(tokens.count(i) for tokens in children) for i in ids]
    assert counts == sorted(counts)
    assert counts[2] > 1.5 * counts[0]


def test_mutation_prefers_the_nearest_tokens() -> None:
    space = SPACES["WordPiece"]
    start = space.prompt([space.allowed_ids[7]] * space.length)
    pool = (ScoredPrompt(start, pool_of(space)[0].score, "gradient", 0),)
    near = {*space.nearest(space.vocabulary[start.tokens[0]], 4).tolist()} - {start.tokens[0]}
    found = [
        token
        for seed in range(40)
        for proposal in ask(Evolution(N, 1.0, 3), space, pool, seed).proposals
        for token in proposal.prompt.tokens
    ]
    assert len(near) == 3
    assert 0.65 < sum(token in near for token in found) / len(found) < 0.85  # three in four, and a few by chance


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomTokens(0), "mentor.proposals=0"),
        (lambda: Perturb(0), "mentor.proposals=0"),
        (lambda: Perturb(rate=-1.0), "mentor.rate=-1.0"),
        (lambda: Perturb(neighbours=0), "mentor.neighbours=0"),
        (lambda: Evolution(0), "mentor.proposals=0"),
        (lambda: Evolution(mutation=1.1), "mentor.mutation=1.1"),
        (lambda: Evolution(neighbours=0), "mentor.neighbours=0"),
    ],
)
def test_settings_out_of_bounds_are_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_the_pools_prompts_are_what_they_seem() -> None:
    """The pool of these tests holds three different prompts of allowed tokens, the best last."""
    for space in SPACES.values():
        pool = pool_of(space)
        prompts: set[Prompt] = {s.prompt for s in pool}
        assert len(prompts) == 3
        assert all({*p.tokens} <= {*space.allowed_ids} and len(p.tokens) == space.length for p in prompts)
        assert pool[-1].score.loss < pool[0].score.loss


def test_children_of_prompts_of_several_lengths_keep_each_token_at_its_place_or_leave_out_the_end() -> None:
    space = replace(prompt_space(6), settings=PromptSettings(length=6, fill="none"))
    short, long = scored(space, "good film", 0.4, 0.8), scored(space, "is it a bad story", 0.3, 0.9)
    context = replace(consultation((short, long)), space=space)
    children = [p.prompt.tokens for p in Evolution(proposals=40, mutation=0).propose(context).proposals]
    a, b = short.prompt.tokens, long.prompt.tokens
    assert {len(child) for child in children} == {2, 3, 4, 5}
    for child in children:
        assert child[0] in (a[0], b[0])
        assert child[1] in (a[1], b[1])
        assert list(child[2:]) == [token for token in b[2:] if token in child[2:]]
