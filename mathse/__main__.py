"""``mathse VERB``, also ``python -m mathse VERB``: finds the verb's module and runs it, nothing else is loaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from mathse import __version__
from mathse.commands.mistakes import guarded
from mathse.commands.subcommands import ALIASES, SUBCOMMANDS, module_of


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):

        def show_help() -> int:
            print("usage: mathse VERB ...\n")
            print("\n".join(f"  {verb:<13} {purpose}" for verb, (_, purpose) in SUBCOMMANDS.items()))
            return 0 if arguments else 2

        return guarded(show_help)
    verb, *rest = arguments
    if verb in ("-V", "--version"):
        print(f"mathse {__version__}")
        return 0
    verb = ALIASES.get(verb, verb)
    if verb not in SUBCOMMANDS:
        near = get_close_matches(verb, SUBCOMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"error: no such verb: {verb}; there are {', '.join(SUBCOMMANDS)}{hint}", file=sys.stderr)
        return 2
    run: Callable[[Sequence[str]], int] = module_of(verb).main
    return guarded(lambda: run(rest))


def command() -> int:
    """The console command ``mathse``: like ``python -m``, it finds a user's own modules in the current folder."""
    if not sys.flags.safe_path:
        sys.path.append(os.getcwd())  # last, so that no folder of theirs hides a library
    return main()


if __name__ == "__main__":
    sys.exit(main())
