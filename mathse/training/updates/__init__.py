"""Updates of the student: which rows it learns from, and their loss.

An update is the class of an option ``evolution.update``. Its attributes are read by the evolution and by the trainer:

    data       "rows": the paths of D_SFT, with the cross-entropy of their tokens;
               "pairs": an accepted and a rejected path of a problem;
               "verdicts": the judged paths of a stage, each with its verdict;
               "groups": the judged paths of a round, problem by problem
    lr_scale   learning rate as a share of ``sft.optimizer.lr``; 1 where a class has none
    epochs     passes over the rows; 1 where a class has none
    online     of "groups": an ``OnlineSettings`` (online.py). Each optimiser step then samples its own groups from the
               student of that step; None, or no such attribute: the groups are the paths of the round

and its methods by the trainer, on each micro-batch:

    pairs      pair_losses(chosen, rejected, mean_reward) -> (pairs,)
    verdicts   verdict_losses(responses, right, divergence) -> (responses,)
    groups     advantages(rewards, judged) -> (groups, samples), once;
               token_losses(tokens, advantages) -> (responses, tokens);
               ``aggregation`` averages them over a batch ("tokens" where a class has none), and ``needs_old`` says
               that ``tokens.old`` is read: the log-probabilities before the first step
"""
