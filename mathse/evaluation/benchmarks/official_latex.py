"""The LaTeX parser of MATH-Vision's script: latex2sympy2 1.9.1 on antlr4 4.9, from the wheel in third_party/.

Only the scoring process (``worker``) imports it: the wheel has top-level modules named ``gen`` and ``tests``, writes to
standard output at every parse, and may never finish with a model's text.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from mathse.errors import ConfigError
from mathse.evaluation.benchmarks.arithmetic import Number, number_of

NAME = "latex2sympy2 1.9.1"
WHEEL = Path(__file__).with_name("third_party") / "latex2sympy2-1.9.1-py3-none-any.whl"
SHA256 = "44f24d263d235164a91173167a30d449f4360e3f0a59239ce6b843c50a41c601"
RUNTIME = "4.9."  # antlr 4.7 to 4.9 read the parser's tables; 4.10 changed the format, Hydra needs 4.9
REMEDY = "install it with: pip install 'antlr4-python3-runtime==4.9.*' sympy"
# The parser keeps assignments such as x=5 in a global dictionary, and overwrites that dictionary at the first "d"
# before a letter ("friday"); afterwards assignments and most letters are errors. Real outputs have such a "d" in their
# first hundred rows. No verdict may depend on earlier rows, so the parser is always in the state after the overwrite.
_OVERWRITTEN = object()
# Parsed at the start, so that building the parser's tables does not count as the first answer's time.
_WARM_UP = (r"\frac{1}{2}", r"2\sqrt{3}", r"-3.5", r"4\pi+1", "2^{10}", "12cm", r"\frac{3\sqrt{2}}{4}-1", "(1", "ab")


def check() -> None:
    """Raise ConfigError, with the command that fixes it, if the official parser cannot work."""
    try:
        runtime = metadata.version("antlr4-python3-runtime")
        metadata.version("sympy")
    except metadata.PackageNotFoundError as error:
        raise ConfigError(f"MATH-Vision is scored with {NAME}, which needs {error.name}; {REMEDY}") from None
    if not runtime.startswith(RUNTIME):
        raise ConfigError(
            f"MATH-Vision is scored with {NAME}, which runs on antlr4 {RUNTIME}*, and {runtime} is installed; {REMEDY}"
        )
    if not WHEEL.is_file() or hashlib.sha256(WHEEL.read_bytes()).hexdigest() != SHA256:
        raise ConfigError(f"MATH-Vision is scored with {NAME}, and {WHEEL} is missing or altered; install MathSE anew")


def parser_versions() -> str:
    """Return the parser and the versions of its libraries, for the protocol."""
    return f"{NAME} on antlr4 {metadata.version('antlr4-python3-runtime')}, sympy {metadata.version('sympy')}"


def load() -> Callable[[str], Number | None]:
    """Return ``value(text)`` -> round(value, 2) or None. Call it in a separate process with standard output closed."""
    check()
    sys.path.insert(0, str(WHEEL))
    parser: Any = importlib.import_module("latex2sympy2")

    def value(text: str) -> Number | None:
        parser.var = _OVERWRITTEN
        try:
            return number_of(str(parser.latex2sympy(text)))
        except Exception:  # noqa: BLE001  (a third party's parser of model text: as in the official script, any failure makes answers unequal)
            return None

    for text in _WARM_UP:
        value(text)
    return value
