"""The tiny backbone's tokenizer: the synthetic task's words are single tokens, all other text falls back to bytes.

A byte-level BPE without merges: a piece that is in the vocabulary is one token, any other piece its UTF-8 bytes. So
LaTeX, Chinese and emoji round-trip, only at more tokens. Digits are always single tokens.
"""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, END, USER, ASSISTANT = "<|endoftext|>", "<|im_end|>", "<|user|>", "<|assistant|>"
VISION_START, VISION_END, IMAGE, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
SPECIAL = (PAD, END, USER, ASSISTANT, VISION_START, VISION_END, IMAGE, VIDEO)

# Phrases that are one token: the answer marker and the scaffolding of the ORM's JSON.
PHRASES = (
    "The answer to this problem is ",
    "Check each step.",
    "The correct answer is ",
    '{"error_analysis": "',
    '", "error_analysis": "',
    '", "error_step": ',
    ', "error_step": ',
    '"Step ',
    "null",
    ', "error_analysis": "',
    ', "status": "',
    '", "status": "',
    '{"status": "',
    '{"solution": "',
    '"}',
    '"',
    "}",
    "CORRECT",
    "WRONG",
    "\\n",
)
MARKS = tuple(f" {mark}{end}" for mark in ("ok", "no") for end in (" ", "")) + ("| ",)
OPERATORS = tuple(f"{a}{op}{b}" for op in "*+=-/" for a in (" ", "") for b in (" ", ""))
PUNCTUATION = tuple(f"{p}{end}" for p in ".,:;?!" for end in (" ", "\n"))
WORDS = [
    "What",
    "is",
    "the",
    "sum",
    "of",
    "three",
    "digits",
    "first",
    "digit",
    "times",
    "second",
    "plus",
    "third",
    "largest",
    "minus",
    "smallest",
    "Step",
    "The",
    "are",
    "answer",
    "to",
    "this",
    "problem",
    "and",
    "form",
    "no",
    "ok",
    "correct",
    "wrong",
]
VOCABULARY = (
    *PHRASES,
    *MARKS,
    *OPERATORS,
    *PUNCTUATION,
    *(w + end for w in WORDS for end in ("", " ")),
)


def _literal(phrase: str) -> str:
    """The phrase as a pattern of the tokenizers library, with newlines as they are."""
    return "".join(c if c.isalnum() or c in " \n" else "\\" + c for c in phrase)


# How a text is cut, the first alternative that fits: whole phrases, marks, operators, single digits, words with the
# space behind them, punctuation, and whatever else there is.
_PIECE = "|".join(
    [
        *map(_literal, sorted(PHRASES, key=len, reverse=True)),
        r" (?:ok|no)(?![A-Za-z]) ?",
        r"\| ",
        r" ?[*+=\-/] ?",
        r"\d",
        r"[A-Za-z]+ ?",
        r"[.,:;?!][ \n]?",
        r"\s+",
        r"[^\sA-Za-z\d]+",
    ]
)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    f"{{% if part['type'] == 'image' %}}{VISION_START}{IMAGE}{VISION_END}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    f"{{% if message['role'] == 'assistant' %}}{END}{{% endif %}}{{% endfor %}}"
    f"{{% if add_generation_prompt %}}{ASSISTANT}{{% endif %}}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, always the same: 8 special tokens, 256 bytes, then the vocabulary of the synthetic task."""
    # ids: special tokens, then the 256 bytes, then the vocabulary, each in a fixed order
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = dict.fromkeys([*SPECIAL, *alphabet])
    pieces.update(dict.fromkeys(byte_level.pre_tokenize_str(word)[0][0] for word in VOCABULARY))
    vocab = {piece: i for i, piece in enumerate(pieces)}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_PIECE), behavior="isolated"), byte_level])
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        padding_side="left",
        model_max_length=2048,
        extra_special_tokens={
            "image_token": IMAGE,
            "video_token": VIDEO,
            "vision_start": VISION_START,
            "vision_end": VISION_END,
            "user": USER,
            "assistant": ASSISTANT,
        },
    )
