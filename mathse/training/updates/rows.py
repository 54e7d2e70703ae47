"""``evolution.update=sft``: fine-tuning on the accepted paths of D_SFT, as in the paper (Eq. 1)."""

from __future__ import annotations


class SFTUpdate:
    data = "rows"
