"""The tiny backbone's tokenizer: words of the synthetic task are single tokens, all other text is bytes.

A byte-level BPE without merges: a piece in the vocabulary is one token, any other piece is its UTF-8 bytes. So LaTeX,
Chinese and emoji survive a round trip, with more tokens. Digits are always single tokens.
"""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, END, USER, ASSISTANT = "<|endoftext|>", "<|im_end|>", "<|user|>", "<|assistant|>"
VISION_START, VISION_END, IMAGE, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
SPECIAL = (PAD, END, USER, ASSISTANT, VISION_START, VISION_END, IMAGE, VIDEO)

# Phrases that are single tokens: the answer marker and the fixed parts of the ORM's JSON.
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
MARKS = (" ok ", " ok", " no ", " no", "| ")
# Each operator with and without a space before and after it, and each punctuation mark with a space or a line break.
# The order of the vocabulary decides token ids.
OPERATORS: list[str] = []
for _operator in "*+=-/":
    OPERATORS += [f" {_operator} ", f" {_operator}", f"{_operator} ", _operator]
PUNCTUATION: list[str] = []
for _sign in ".,:;?!":
    PUNCTUATION += [f"{_sign} ", f"{_sign}\n"]
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
VOCABULARY = [*PHRASES, *MARKS, *OPERATORS, *PUNCTUATION]
for _word in WORDS:
    VOCABULARY += [_word, f"{_word} "]


def _escape(phrase: str) -> str:
    """Return the phrase as a pattern of the tokenizers library. Newlines stay."""
    return "".join(c if c.isalnum() or c in " \n" else "\\" + c for c in phrase)


# A text is split at the first alternative that matches: whole phrases, marks, operators, single digits, words with the
# space after them, punctuation, and everything else.
_PIECE = "|".join(
    [
        *map(_escape, sorted(PHRASES, key=len, reverse=True)),
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
    """Return the tokenizer. It is always the same."""
    # Ids: 8 special tokens, then the 256 bytes, then the vocabulary of the synthetic task, each in a fixed order.
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
