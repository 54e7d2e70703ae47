"""InternVL2.5's fast tokenizer against the sentencepiece model it is built from."""

from __future__ import annotations

import json
import random

import pytest
import sentencepiece
from internvl_original import BEHIND, CHAT_TOKENS, TEXTS, UNUSED, train_pieces, write_tokenizer
from transformers import AutoTokenizer

from mathse.errors import CheckpointError
from mathse.models.internvl2_5.tokenizer import build_tokenizer

TEXT = {
    "empty": "",
    "one letter": "a",
    "space before": " a",
    "spaces everywhere": "  two   spaces    and more     ",
    "only spaces": "     ",
    "arithmetic": "2x + 3 = 11; 12345.678 - 9",
    "LaTeX": "\\frac{3}{4} \\times \\boxed{42} \\left( x^2 \\right) \\\\",
    "Chinese": "已知圆的半径为三，求阴影部分的面积。",
    "Chinese without a piece": "龘靐齉",
    "emoji": "🙂👩‍👩‍👧 done",
    "newlines": "\n\none\n\ntwo\r\n\n",
    "tabs": "\tx\t\ty",
    "accents": "é ñ ü ﬁ Ａ ² ½",
    "odd spaces": "x\u00a0y\u3000z\u200b",
    "a piece's space": "a\u2581b",
    "a byte's name": "<0x0A>",
    "null": "a\x00b",
    "Korean and Hindi": "한국어 हिन्दी",
}
KINDS = {
    "as published": {},
    "pieces that are always whole": {"user_defined_symbols": [*UNUSED, "[OTHER]", "▁▁", "▁▁▁▁", "\n\n", "==", "ab"]},
    "words across spaces": {"split_by_whitespace": False, "split_by_number": False, "split_by_unicode_script": False},
    "prefix": {"add_dummy_prefix": True, "user_defined_symbols": []},
    "normalised": {
        "normalization_rule_name": "nmt_nfkc",
        "add_dummy_prefix": True,
        "remove_extra_whitespaces": True,
        "user_defined_symbols": [],
    },
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """The tokenizer and the sentencepiece model, for each way such a model prepares text."""
    options = KINDS[request.param]
    folder = tmp_path_factory.mktemp("tokenizer")
    pieces = train_pieces(**options)
    if not options.get("user_defined_symbols", True):  # then nothing is renamed: all tokens come behind
        model = sentencepiece.SentencePieceProcessor(model_proto=pieces)
        ids = {token: len(model) + k for k, token in enumerate((*CHAT_TOKENS, *BEHIND))}
        (folder / "tokenizer.model").write_bytes(pieces)
        named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
        (folder / "tokenizer_config.json").write_text(json.dumps({**named, "additional_special_tokens": list(ids)}))
        (folder / "added_tokens.json").write_text(json.dumps(ids))
    else:
        write_tokenizer(folder, pieces)
    return build_tokenizer(folder), sentencepiece.SentencePieceProcessor(model_proto=pieces)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    write_tokenizer(folder, train_pieces())
    return folder


@pytest.mark.parametrize("name", TEXT)
def test_ids_are_the_sentencepiece_models(pair, name):
    tokenizer, model = pair
    ids = model.encode(TEXT[name])
    assert tokenizer(TEXT[name], add_special_tokens=False)["input_ids"] == ids
    assert tokenizer(TEXT[name])["input_ids"] == [model.bos_id(), *ids]


def test_ids_are_the_sentencepiece_models_on_random_mixtures(pair):
    tokenizer, model = pair
    draw = random.Random(0)
    parts = [*TEXT.values(), *TEXTS, "[OTHER]", *" \n=a1{}\\", "aa", "  ", "    ", "the", " the"]
    texts = ["".join(draw.choices(parts, k=draw.randint(1, 12))) for _ in range(500)]
    texts += ["".join(draw.choices(" aax=\n求面1", k=draw.randint(1, 40))) for _ in range(500)]
    mine = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert [text for text, ids in zip(texts, mine, strict=True) if model.encode(text) != ids] == []


@pytest.mark.parametrize("name", TEXT)
def test_text_comes_back_as_it_was(published, name):
    tokenizer = build_tokenizer(published)
    assert tokenizer.decode(tokenizer(TEXT[name], add_special_tokens=False)["input_ids"]) == TEXT[name].replace(
        "▁", " "
    )


def test_chat_tokens_have_the_ids_of_the_pieces_they_rename_and_added_ones_those_behind(published):
    tokenizer = build_tokenizer(published)
    model = sentencepiece.SentencePieceProcessor(model_file=str(published / "tokenizer.model"))
    for token, old in zip(CHAT_TOKENS, UNUSED, strict=True):
        assert tokenizer.encode(f"a{token}b", add_special_tokens=False)[1:-1] == [model.piece_to_id(old)]
    assert [tokenizer.convert_tokens_to_ids(token) for token in BEHIND] == [len(model) + k for k in range(len(BEHIND))]
    assert len(tokenizer) == len(model) + len(BEHIND)  # no token without a row in the embedding


def test_text_around_special_tokens_is_cut_as_if_it_stood_alone(published):
    tokenizer = build_tokenizer(published)
    model = sentencepiece.SentencePieceProcessor(model_file=str(published / "tokenizer.model"))
    for before, after in [("the ", " area"), ("", "\n"), ("x  ", "  x")]:
        ids = tokenizer.encode(f"{before}<img>{after}", add_special_tokens=False)
        assert ids == [*model.encode(before), len(model), *model.encode(after)]


def test_the_old_name_of_a_chat_token_is_ordinary_text(published):
    """Or a problem's text could end its turn."""
    tokenizer = build_tokenizer(published)
    special = set(tokenizer.all_special_ids)
    assert not special & set(tokenizer.encode("".join(UNUSED), add_special_tokens=False))
    assert {"<|im_start|>", "<|im_end|>", "<img>", "<IMG_CONTEXT>", "<box>"} <= set(tokenizer.all_special_tokens)


def test_a_saved_tokenizer_reopens_equal(published, tmp_path):
    tokenizer = build_tokenizer(published)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*TEXT.values(), *TEXTS, *CHAT_TOKENS, *BEHIND, *UNUSED, "</s>", "<s>x"]
    assert again(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert again.special_tokens_map == tokenizer.special_tokens_map
    assert set(again.all_special_tokens) == set(tokenizer.all_special_tokens)
    assert (again.padding_side, len(again)) == ("left", len(tokenizer))


def test_settings_may_lie_in_either_of_the_published_files(published, tmp_path):
    """Newer folders list the added tokens in ``tokenizer_config.json``, older ones in ``added_tokens.json``."""
    ids = json.loads((published / "added_tokens.json").read_text())
    settings = json.loads((published / "tokenizer_config.json").read_text())
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings["added_tokens_decoder"] = {str(i): {"content": token, **flags} for token, i in ids.items()}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "tokenizer.model").write_bytes((published / "tokenizer.model").read_bytes())
    mine, other = build_tokenizer(published), build_tokenizer(tmp_path)
    assert mine.get_vocab() == other.get_vocab()
    assert mine.special_tokens_map == other.special_tokens_map


@pytest.mark.parametrize("kind", ["unigram", "char"])
def test_a_model_that_is_no_bpe_is_refused(tmp_path, kind):
    write_tokenizer(tmp_path, train_pieces(model_type=kind, vocab_size=400, hard_vocab_limit=False))
    with pytest.raises(CheckpointError, match="no BPE"):
        build_tokenizer(tmp_path)


def test_a_prefix_together_with_a_piece_that_is_always_whole_is_refused(tmp_path):
    write_tokenizer(tmp_path, train_pieces(add_dummy_prefix=True, user_defined_symbols=[*UNUSED, "[OTHER]"]))
    with pytest.raises(CheckpointError, match="OTHER"):
        build_tokenizer(tmp_path)
