"""Every family of text models in transformers, as a tiny model: served with its own numbers, or refused by name.

PYTHONPATH=tests python tests/models/test_all_families.py        writes the table in docs/guide.md anew
"""

import re
from collections import Counter
from collections.abc import Sequence

import pytest
from helpers.command import REPOSITORY
from helpers.families import Outcome, render_families, try_all

GUIDE = REPOSITORY / "docs" / "guide.md"
TABLE = re.compile(r"^\| transformers [\d.]+ \| families \|\n(?:\|.*\n)+", re.MULTILINE)
# The reason why no tiny model of a family is tried here; a run tries the real one before it trains.
NOT_TRIED = {
    "blt": "the sizes of its byte patches follow from one another",
    "dots3_note": "its layers have sizes of their own, by number",
    "gemma3n": "it needs the package timm",
    "gemma4_assistant": "it drafts for another model, whose states it reads",
    "gemma4_unified_assistant": "it drafts for another model, whose states it reads",
    "layoutlmv2": "it needs the package detectron2",
}
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def outcomes() -> Sequence[Outcome]:
    return try_all()


# E1, E5
def test_every_family_is_served_with_the_models_own_numbers_or_refused_by_name(
    outcomes: Sequence[Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print("", render_families(outcomes), *(f"{name}: {why}" for name, why in NOT_TRIED.items()), sep="\n")
    assert [each for each in outcomes if each.state == "wrong"] == []
    assert {each.family for each in outcomes if each.state == "not tried"} == {*NOT_TRIED}
    counts = Counter(each.state for each in outcomes)
    assert counts["served"] > 200
    assert counts["refused"] > 30


def test_the_families_that_must_be_there_are_served(outcomes: Sequence[Outcome]) -> None:
    served = {(each.kind, each.family) for each in outcomes if each.state == "served"}
    masked = "bert roberta deberta-v2 distilbert electra albert modernbert camembert xlm-roberta mpnet"
    causal = "gpt2 opt llama qwen3 mistral gemma gemma2 gemma3 biogpt xglm granite phi3 mamba gpt_neox bloom falcon"
    assert {("masked_lm", name) for name in masked.split()} <= served
    assert {("causal_lm", name) for name in causal.split()} <= served


def test_no_family_but_opt_has_a_head_that_calls_the_decoder_of_its_base_model(outcomes: Sequence[Outcome]) -> None:
    """Funnel's head calls the base model, as all others do: its logits were compared, too."""
    assert {each.family for each in outcomes if each.state == "served" and each.decoder} == {"opt", "funnel"}


def test_the_table_in_the_guide_is_what_was_seen(outcomes: Sequence[Outcome]) -> None:
    found = TABLE.search(GUIDE.read_text(encoding="utf-8"))
    assert found, "docs/guide.md holds no table of families"
    assert found[0].rstrip("\n") == render_families(outcomes)


if __name__ == "__main__":
    GUIDE.write_text(TABLE.sub(lambda _: render_families(try_all()) + "\n", GUIDE.read_text(encoding="utf-8")), "utf-8")
