"""What a tokenizer makes of a task's texts is told where it is not their words."""

from pathlib import Path

import pytest
import torch
from helpers.row_files import as_csv, load_rows, write_files
from helpers.tiny import tokenizer
from helpers.tiny_models import backbone, toy_data, toy_problem, toy_settings

from llm_catalyst.models.heads.text import Classifier, Verbalizer
from llm_catalyst.tasks.token_warnings import warn_tokens
from llm_catalyst.tasks.tokenization import encode_around, tokenize_sequences
from llm_catalyst.training.problem import assemble_problem


def warnings_about(texts: list[str]) -> list[str]:
    rows, _ = tokenize_sequences(tokenizer(), [(text, None) for text in texts], 64)
    return warn_tokens(tokenizer(), "tiny", {"train": rows}, encode_around(tokenizer(), pair=False))


def test_words_that_the_vocabulary_has_are_no_reason_to_warn() -> None:
    assert warnings_about(["a very good film", "dull story", ""]) == []


def test_the_share_of_unknown_tokens_is_told() -> None:
    (warning,) = warnings_about(["映画", "good film good film"])  # one unknown word, or two, beside four known ones
    unknown = tokenizer()("映画", add_special_tokens=False).input_ids
    assert set(unknown) == {tokenizer().unk_token_id}
    assert warning.startswith(f"{len(unknown) / (4 + len(unknown)):.0%} of the tokens of the texts are unknown to tiny")
    assert tokenizer().unk_token in warning


@pytest.mark.parametrize("token", ["mask_token", "sep_token", "cls_token"])
def test_special_tokens_in_texts_are_counted(token: str) -> None:
    special = getattr(tokenizer(), token)
    (warning,) = warnings_about([f"good {special} film", "dull story", f"{special} bad"])
    assert warning.startswith(f"2 of 3 texts of train hold special tokens of the model ({special})")


def test_a_mask_in_a_text_does_not_move_the_place_of_the_label_word(tmp_path: Path) -> None:
    """The logits at the mask of the cloze, by a pass of the whole model over the same rows."""
    model = backbone("bert", words=True, kind="masked_lm")
    data = toy_data()
    masked = f"a {model.tokenizer.mask_token} film"
    rows = [(masked if i % 2 else f"good film {i % 3}", ("bad", "good")[i % 2]) for i in range(40)]
    folder = write_files(tmp_path, {"rows.csv": as_csv(rows)})
    data = load_rows(folder, words=["bad", "good"], cloze="It was {mask} .", max_length=32)
    problem = assemble_problem(data, model, Verbalizer(), toy_settings(batch_size=4))
    assert any("hold special tokens of the model" in warning for warning in problem.warnings)
    batch = problem.splits["train"].batch([list(range(8))], model.device)
    prompts = problem.start()["prompt"][None]
    words = torch.tensor([5, 6, 7])
    found = model.word_logits(prompts, batch, words)[0]
    m = prompts.shape[1]
    for row in range(8):
        real = batch.mask[0, row].bool()
        ids, types = batch.tokens[0, row][real], batch.types[0, row][real]
        rows = torch.cat([prompts[0], model.base.get_input_embeddings()(ids)])[None]
        segments = torch.cat([types.new_zeros(m), types])[None]
        whole = model.model(inputs_embeds=rows, token_type_ids=segments).logits[0]
        at = m + max(i for i, t in enumerate(ids.tolist()) if t == model.tokenizer.mask_token_id)
        torch.testing.assert_close(found[row], whole[at, words], atol=1e-5, rtol=1e-4)


def test_a_run_warns_of_them() -> None:
    assert toy_problem(head=Classifier()).warnings == ()
