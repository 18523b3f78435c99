"""The way between text, tokens and soft prompts, for the three kinds of vocabularies."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from helpers.tiny import prompt_space
from helpers.tiny_models import TOKENIZERS, reloaded_tokenizer, word_piece
from transformers import AddedToken

from llm_catalyst.models.prompt_settings import PromptSettings
from llm_catalyst.models.soft_prompt import PromptSpace, allowed_tokens
from llm_catalyst.utils.validation import ConfigurationError

KINDS = sorted(TOKENIZERS)
BEYOND = 3  # rows of the embedding for which the tokenizer has no token
TEXT = "the good film was very slow"


def space_of(tokenizer: Any, **settings: Any) -> PromptSpace:
    """A space over a random vocabulary with a few rows more than the tokenizer has tokens."""
    rows = torch.randn(len(tokenizer) + BEYOND, 16, generator=torch.Generator().manual_seed(0))
    return PromptSpace(tokenizer, rows, PromptSettings(**{"length": 6, **settings}))


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return TOKENIZERS[request.param]()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Text -> prompt -> text


def test_a_text_of_m_tokens_becomes_a_prompt_and_the_same_text_again(tokenizer: Any) -> None:
    prompt, lost = space_of(tokenizer).fit(TEXT)
    assert prompt.text == TEXT
    assert prompt.tokens == tuple(ids_of(tokenizer, TEXT))
    assert lost == ""


def test_a_soft_prompt_made_of_a_text_projects_back_to_that_text(tokenizer: Any) -> None:
    space = space_of(tokenizer)
    prompts, similarities = space.project(space.embed([space.fit(TEXT)[0]]))
    assert prompts[0].text == TEXT
    assert similarities[0] == pytest.approx(1.0, abs=1e-6)


def test_a_text_that_is_too_long_is_cut_and_its_lost_end_is_told(tokenizer: Any) -> None:
    prompt, lost = space_of(tokenizer, length=2).fit(TEXT)
    assert prompt.text == "the good"
    assert lost == "film was very slow"


def test_a_text_that_is_too_short_is_repeated(tokenizer: Any) -> None:
    prompt, lost = space_of(tokenizer, length=5).fit(" slow film")
    slow, film = prompt.tokens[:2]
    assert prompt.tokens == (slow, film, slow, film, slow)
    assert prompt.text == "slow film slow film slow"
    assert lost == ""


def test_a_text_that_is_too_short_is_filled_with_the_text_of_prompt_fill(tokenizer: Any) -> None:
    prompt, _ = space_of(tokenizer, length=5, fill=" a").fit(" slow film")
    assert prompt.text == "slow film a a a"


def test_a_filling_text_without_a_token_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"prompt\.fill"):
        space_of(word_piece(), fill=" ").fit("slow film")


@pytest.mark.parametrize("text", ["", "  \n", "[SEP][CLS]"])
def test_a_text_without_a_token_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="holds no token"):
        space_of(word_piece()).fit(text)


def test_special_tokens_written_in_a_hostile_text_do_not_enter_a_prompt(tokenizer: Any) -> None:
    special = " ".join(tokenizer.all_special_tokens)
    prompt, _ = space_of(tokenizer, length=12).fit(f"{special} good{special}film {special}")
    assert not {*prompt.tokens} & {*tokenizer.all_special_ids}
    assert "good" in prompt.text
    assert "film" in prompt.text


def test_a_special_token_that_has_no_role_does_not_enter_a_prompt_either() -> None:
    """Llama 3 marks turns with tokens such as <|start_header_id|>, which `all_special_ids` does not list."""
    tokenizer = reloaded_tokenizer("llama")
    tokenizer.add_tokens([AddedToken("<|start_header_id|>", special=True)], special_tokens=True)
    turn = tokenizer.convert_tokens_to_ids("<|start_header_id|>")
    prompt, _ = space_of(tokenizer).fit("<|start_header_id|> good film")
    assert turn not in prompt.tokens


def test_special_tokens_stay_where_the_protocol_asks_for_them() -> None:
    tokenizer = TOKENIZERS["byte-level BPE"]()
    prompt, lost = space_of(tokenizer, length=8, special_tokens=True, fill=" a").fit(" slow film")
    assert " ".join(tokenizer.convert_ids_to_tokens(list(prompt.tokens))) == "<s> Ġslow Ġfilm </s> Ġa Ġa Ġa Ġa"
    assert lost == ""


# Projection


def test_projections_and_random_prompts_keep_to_the_rows_that_are_given(tokenizer: Any) -> None:
    found = space_of(tokenizer, special_tokens=True, projection_rows=[4, 40])
    prompts, _ = found.project(torch.randn(20, 6, 16, generator=generator(1)))
    assert {i for prompt in prompts for i in prompt.tokens} <= {*range(4, 40)}
    assert {*found.sample(generator(2)).tokens} <= {*range(4, 40)}
    with pytest.raises(ConfigurationError, match=r"prompt\.projection_rows=null"):
        space_of(tokenizer, projection_rows=[10**5, 10**6]).sample(generator(0))
    with pytest.raises(ConfigurationError, match=r"prompt\.projection_rows=\[9, 9\] holds no row"):
        PromptSettings(projection_rows=(9, 9))


def brute_force(space: PromptSpace, row: torch.Tensor) -> list[int]:
    """All allowed tokens by their nearness to a row, written out from the formulas."""

    def nearness(i: int) -> float:
        token = space.vocabulary[i].double()
        point = row.double()
        dot = sum((a * b).item() for a, b in zip(point, token, strict=True))
        cosine = dot / (point.square().sum().sqrt() * token.square().sum().sqrt()).item()
        distance = (point - token).square().sum().sqrt().item()
        return {"cosine": cosine, "l2": -distance, "dot": dot, "official": -cosine}[space.settings.projection]

    return sorted(space.allowed_ids, key=nearness, reverse=True)


@pytest.mark.parametrize("projection", ["cosine", "l2", "dot", "official"])
def test_projection_agrees_with_its_formula(projection: str) -> None:
    space = space_of(word_piece(), projection=projection, length=3)
    soft = torch.randn(2, 3, 16, generator=generator(1)) * 2
    ranked = [[brute_force(space, row) for row in member] for member in soft]
    prompts, similarities = space.project(soft)
    assert [list(p.tokens) for p in prompts] == [[row[0] for row in member] for member in ranked]
    assert space.nearest(soft, 7).tolist() == [[row[:7] for row in member] for member in ranked]
    for member, prompt, similarity in zip(soft, prompts, similarities, strict=True):
        pairs = zip(member, space.vocabulary[list(prompt.tokens)], strict=True)
        cosines = [torch.cosine_similarity(row, token, dim=0).item() for row, token in pairs]
        assert similarity == pytest.approx(sum(cosines) / 3, abs=1e-5)


def test_the_projections_differ_so_that_the_test_above_tells_them_apart() -> None:
    soft = torch.randn(4, 3, 16, generator=generator(1)) * 2
    found = {
        projection: str(space_of(word_piece(), projection=projection, length=3).project(soft)[0])
        for projection in ("cosine", "l2", "dot", "official")
    }
    assert len(set(found.values())) == 4


def test_a_text_of_tokens_that_no_projection_would_take_projects_to_itself_until_it_is_moved() -> None:
    space = space_of(word_piece(), word_start=True, length=2)
    tokens = word_piece().convert_tokens_to_ids(["film", "##less"])
    rows = space.embed([space.prompt(tokens)])
    prompts, similarities = space.project(torch.cat([rows, rows + 1e-3, rows * 0 + space.vocabulary[0]]))
    assert prompts[0].tokens == tuple(tokens)
    assert similarities[0] == pytest.approx(1)
    assert prompts[1].tokens[0] == tokens[0]
    for prompt in prompts[1:]:
        assert {*prompt.tokens} - {tokens[0]} <= {*space.allowed_ids}


@pytest.mark.parametrize(
    ("place", "shown"),
    [(4, "is this a good [CLASS]"), (2, "is this [CLASS] a good"), (0, "[CLASS] is this a good")],
)
def test_the_place_of_a_class_name_is_shown_and_read(place: int, shown: str) -> None:
    space = replace(prompt_space(length=4), class_at=place)
    prompt, lost = space.fit("is this a good [CLASS].")
    assert (prompt.text, lost) == (shown, "")
    assert space.fit(shown)[0] == prompt == space.fit("is this {} a good")[0]


def test_the_official_projection_takes_the_least_similar_token() -> None:
    space = space_of(word_piece(), projection="official", length=1)
    row = space.vocabulary[space.allowed_ids[0]][None, None]
    prompts, similarities = space.project(row)
    cosines = torch.cosine_similarity(row[0], space.vocabulary[list(space.allowed_ids)], dim=-1)
    assert prompts[0].tokens == (space.allowed_ids[int(cosines.argmin())],)
    assert similarities[0] == pytest.approx(cosines.min().item(), abs=1e-5)


def peculiar() -> Any:
    """A WordPiece tokenizer with added tokens, special and not."""
    tokenizer = word_piece().__class__(vocab=word_piece().get_vocab())
    tokenizer.add_tokens(["brandnew"])
    tokenizer.add_tokens([AddedToken("[TURN]", special=True)], special_tokens=True)
    return tokenizer


@pytest.mark.parametrize("projection", ["cosine", "l2", "dot", "official"])
def test_special_unused_added_and_missing_tokens_are_never_projected(projection: str) -> None:
    tokenizer = peculiar()
    space = space_of(tokenizer, projection=projection)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", "brandnew", "[TURN]"]
    closed = [*tokenizer.convert_tokens_to_ids(names), *range(len(tokenizer), len(tokenizer) + BEYOND)]
    assert len({*closed}) == len(names) + BEYOND
    assert {*closed} == {*range(len(space.vocabulary))} - {*space.allowed_ids}
    rows = torch.cat([space.vocabulary[closed], -space.vocabulary[closed]]) * 3
    assert not {*space.nearest(rows).flatten().tolist()} & {*closed}


def test_not_even_the_farthest_neighbours_are_forbidden_tokens() -> None:
    space = space_of(word_piece())
    near = space.nearest(space.vocabulary[space.allowed_ids[0]], len(space.vocabulary))
    assert {*near.tolist()} <= {*space.allowed_ids}


def test_half_characters_are_never_projected() -> None:
    tokenizer = TOKENIZERS["byte-level BPE"]()
    half = tokenizer.convert_tokens_to_ids("Ã")  # the first byte of two
    space = space_of(tokenizer)
    assert half not in space.allowed_ids
    assert all("\ufffd" not in space.decode([i]) and space.decode([i]) for i in space.allowed_ids)


def test_with_word_start_only_tokens_that_begin_a_word_are_projected(tokenizer: Any) -> None:
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    marks = {"Ġ": lambda p: p.startswith("Ġ"), "▁": lambda p: p.startswith("▁"), "##": lambda p: p[:2] != "##"}
    (begins,) = [test for mark, test in marks.items() if sum(piece.startswith(mark) for piece in pieces) > 3]
    every, starts = space_of(tokenizer).allowed_ids, space_of(tokenizer, word_start=True).allowed_ids
    assert {*starts} == {i for i in every if begins(pieces[i])}
    assert 0 < len(starts) < len(every)
    for word in ("good", "film"):
        assert ids_of(tokenizer, f" {word}")[-1] in starts


def test_a_vocabulary_without_an_allowed_token_is_refused_with_advice() -> None:
    tokenizer = word_piece().__class__(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "##s": 5})
    assert allowed_tokens(tokenizer, 6, word_start=False).tolist() == [False] * 5 + [True]
    with pytest.raises(ValueError, match="word_start=false"):
        space_of(tokenizer, word_start=True).allowed_ids  # noqa: B018 - the property raises


def test_similarity_is_one_for_exact_rows_and_lower_beside_them(tokenizer: Any) -> None:
    space = space_of(tokenizer)
    rows = space.vocabulary[list(space.allowed_ids[:6])]
    _, (exact, scaled, beside) = space.project(torch.stack([rows, 4 * rows, rows + 0.3]))
    assert exact == pytest.approx(1.0, abs=1e-6)
    assert scaled == pytest.approx(1.0, abs=1e-6)
    assert beside < 0.999


def test_projection_works_in_half_precision() -> None:
    space = space_of(word_piece())
    half = PromptSpace(space.tokenizer, space.vocabulary.bfloat16(), space.settings)
    tokens = space.allowed_ids[:6]
    prompts, similarities = half.project(half.vocabulary[list(tokens)][None].float())
    assert prompts[0].tokens == tokens
    assert similarities[0] == pytest.approx(1.0, abs=1e-3)
    assert half.embed(prompts).dtype == torch.float32


# Spread


def test_the_spread_is_the_mean_cosine_distance_over_all_pairs_of_prompts(tokenizer: Any) -> None:
    space = space_of(tokenizer)
    prompts = [space.sample(generator(seed)) for seed in range(4)]
    means = [space.vocabulary[list(prompt.tokens)].mean(0) for prompt in prompts]
    cosines = [torch.cosine_similarity(one, other, dim=0).item() for one, other in combinations(means, 2)]
    assert len(cosines) == 6
    assert space.spread(prompts) == pytest.approx(1 - sum(cosines) / 6, abs=1e-5)


def test_prompts_that_are_all_the_same_have_no_spread_and_a_single_one_has_none_to_tell() -> None:
    space = space_of(word_piece())
    prompt, other = space.sample(generator(1)), space.sample(generator(2))
    assert space.spread([prompt] * 3) == 0
    assert space.spread([space.prompt(prompt.tokens[::-1]), prompt]) == 0  # the same tokens in another order
    assert 0 < (space.spread([prompt, prompt, other]) or 0) < (space.spread([prompt, other]) or 0) <= 2
    assert space.spread([prompt]) is space.spread([]) is None


# Start


def test_a_start_from_the_vocabulary_is_made_of_distinct_allowed_rows() -> None:
    space = space_of(word_piece(), start="vocabulary", length=10)
    start = space.start(generator(3))
    tokens = [int((space.vocabulary == row).all(-1).nonzero()) for row in start]
    assert len({*tokens}) == 10
    assert {*tokens} <= {*space.allowed_ids}


def test_a_normal_start_has_the_standard_deviation_that_was_asked_for() -> None:
    start = space_of(word_piece(), start="normal", std=3.0, length=500).start(generator(3))
    assert start.shape == (500, 16)
    assert start.std().item() == pytest.approx(3.0, rel=0.05)
    assert start.mean().item() == pytest.approx(0.0, abs=0.15)


def test_a_start_from_text_is_the_embedding_of_its_words(tokenizer: Any) -> None:
    space = space_of(tokenizer, start="text", text=TEXT)
    torch.testing.assert_close(space.start(generator(3)), space.vocabulary[ids_of(tokenizer, TEXT)])


def test_sampling_follows_from_the_seed_alone() -> None:
    space = space_of(word_piece(), length=8)
    first, again, other = (space.sample(generator(seed)) for seed in (5, 5, 6))
    assert first == again
    assert first.tokens != other.tokens
    for start in ("vocabulary", "normal"):
        space = space_of(word_piece(), start=start)
        assert torch.equal(space.start(generator(5)), space.start(generator(5)))
        assert not torch.equal(space.start(generator(5)), space.start(generator(6)))


def test_sampling_repeats_tokens_only_where_the_vocabulary_is_smaller_than_the_prompt() -> None:
    tokenizer = word_piece().__class__(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "a": 5})
    assert space_of(tokenizer, length=4).sample(generator(1)).tokens == (5, 5, 5, 5)
    space = space_of(word_piece(), length=8)
    assert len({*space.sample(generator(1)).tokens}) == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "prompt.length=0"),
        ({"std": -1.0}, "prompt.std=-1.0"),
        ({"start": "vocab"}, "did you mean vocabulary"),
        ({"projection": "euclid"}, "prompt.projection=euclid"),
        ({"start": "text"}, "prompt.text"),
    ],
)
def test_settings_out_of_bounds_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigurationError, ValueError), match=message):
        PromptSettings(**settings)
