"""``mathse SUBCOMMAND``, also ``python -m mathse SUBCOMMAND``: import the subcommand's module and run it.

Nothing else is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from mathse import __version__
from mathse.commands.mistakes import run_guarded
from mathse.commands.subcommands import ALIASES, SUBCOMMANDS, import_subcommand


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):

        def show_help() -> int:
            print("usage: mathse SUBCOMMAND ...\n")
            print("\n".join(f"  {name:<13} {purpose}" for name, (_, purpose) in SUBCOMMANDS.items()))
            return 0 if arguments else 2

        return run_guarded(show_help)
    subcommand, *rest = arguments
    if subcommand in ("-V", "--version"):
        print(f"mathse {__version__}")
        return 0
    subcommand = ALIASES.get(subcommand, subcommand)
    if subcommand not in SUBCOMMANDS:
        near = get_close_matches(subcommand, SUBCOMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"error: no such subcommand: {subcommand}; there are {', '.join(SUBCOMMANDS)}{hint}", file=sys.stderr)
        return 2
    run: Callable[[Sequence[str]], int] = import_subcommand(subcommand).main
    return run_guarded(lambda: run(rest))


def command() -> int:
    """The console command ``mathse``: like ``python -m``, it imports a user's own modules from the current folder."""
    if not sys.flags.safe_path:
        sys.path.append(os.getcwd())  # last, so that no folder of the user hides a library
    return main()


if __name__ == "__main__":
    sys.exit(main())
