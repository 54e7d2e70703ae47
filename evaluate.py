"""Score a model, or a file of its answers, from a checkout: ``python evaluate.py checkpoint=DIR [KEY=VALUE ...]``.

An installed MathSE has the same as ``mathse evaluate``; what it writes: mathse/commands/evaluate.py.
"""

from mathse.commands.evaluate import main

if __name__ == "__main__":
    main()
