"""Train a student from a checkout: ``python train.py [GROUP=OPTION ...] [KEY=VALUE ...]``; ``--help`` shows them all.

An installed MathSE has the same as ``mathse train``; what it does: mathse/commands/train.py.
"""

from mathse.commands.train import main

if __name__ == "__main__":
    main()
