"""The process that ``mathse.models.trial`` starts: it uses a tokenizer or a chat template within limits, and ends.

It runs as a file, so that it imports two small packages and neither torch nor transformers. Its output is not used.
Standard input is JSON: ``tokenizer`` (a path) or ``template`` (its text), ``seconds``, ``bytes``.
"""

import json
import resource
import string
import sys

PICTURE = [{"type": "image"}, {"type": "text", "text": "How many sides?"}]
TURNS = [
    {"role": "user", "content": "How many sides?"},
    {"role": "assistant", "content": "Step 1: three. The answer is 3."},
]
CONVERSATIONS = [
    TURNS[:1],
    [{"role": "user", "content": PICTURE}],
    [{"role": "system", "content": "Be brief."}, *TURNS, TURNS[0]],
    [*TURNS, *TURNS, *TURNS, {"role": "user", "content": PICTURE}],
]
TEXTS = [
    "How many sides has the polygon of 12.5 cm? \\frac{1}{2} 面积是多少？\n\n  Step 1: 3 + 4 = 7.",
    500 * "a1 ",
]
for sign in string.printable:
    TEXTS += [2 * sign + 200 * sign + end for end in ("", "!", "\n")]


def use_tokenizer(path: str) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(path)
    for text in TEXTS:
        tokenizer.encode(text)


def render(template: str) -> None:
    import jinja2
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(  # transformers' own options
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.globals |= {"raise_exception": str, "strftime_now": str}
    wrong = (jinja2.TemplateError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
    for conversation in CONVERSATIONS:
        try:  # an error in the template occurs again where it is used, and is reported there
            environment.from_string(template).render(
                messages=conversation, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
            )
        except wrong:
            continue


if __name__ == "__main__":
    task = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_CPU, (task["seconds"], task["seconds"]))
    resource.setrlimit(resource.RLIMIT_AS, (task["bytes"], task["bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if "tokenizer" in task:
        use_tokenizer(task["tokenizer"])
    else:
        render(task["template"])
