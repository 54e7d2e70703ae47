"""The paper's numbers (MathSE, AAAI 2026) as printed, for comparison with ours. Percent; None for a dash.

Slips of the paper that arithmetic shows are kept, and listed in ``SLIPS``. Our computations use no number of this file.
"""

from __future__ import annotations

from collections.abc import Mapping

Cells = tuple[float | None, ...]

TABLE_1_HEAD = ("MathVL-test",)
TABLE_1: Mapping[str, Cells] = {
    "GPT-4o": (51.05,),
    "Claude 3.5 Sonnet": (46.84,),
    "Gemini-1.5-pro": (52.03,),
    "QVQ-72B": (52.25,),
    "Qwen2.5-VL-7B": (50.50,),
    "CogVLM2 base": (30.85,),
    "CogVLM2 + distilled, 100K": (55.35,),
    "CogVLM2 + self-evolving, 240K": (62.35,),
    "CogVLM2 + reflection, 280K": (64.70,),
    "Qwen2-VL-7B base": (40.60,),
    "Qwen2-VL-7B + distilled, 100K": (48.80,),
    "Qwen2-VL-7B + self-evolving, 240K": (55.15,),
    "Qwen2-VL-7B + reflection, 280K": (57.00,),
    "InternVL2.5-8B base": (33.20,),
    "InternVL2.5-8B + distilled, 100K": (58.45,),
    "InternVL2.5-8B + self-evolving, 240K": (64.45,),
    "InternVL2.5-8B + reflection, 280K": (65.13,),
}

TABLE_2_HEAD = ("GPS", "MathVista", "MathVerse", "MathVision", "average")
TABLE_2: Mapping[str, Cells] = {
    "GPT-4V": (50.50, 49.90, 50.80, 22.76, 43.49),
    "GPT-4o": (64.71, 63.80, 56.65, 30.39, 53.89),
    "Claude 3 Opus": (52.91, 50.50, 31.77, 27.13, 40.58),
    "Claude 3.5 Sonnet": (64.42, 67.70, 48.98, 37.99, 54.77),
    "Gemini-1.5 Pro": (53.85, 63.90, 51.08, 19.24, 47.02),
    "Gemini-2.0 Flash": (None, 73.10, 47.80, 41.30, None),
    "GLM-4V-9B": (46.12, 46.70, 35.66, 15.31, 35.95),
    "InternLM-XC2": (63.00, 57.60, 24.40, 14.54, 39.89),
    "ShareGPT4V-G-7B": (32.69, 45.07, 16.24, 12.86, 26.72),
    "ShareGPT4V-G-13B": (43.27, 49.14, 16.37, 14.45, 30.81),
    "G-LLaVA-7B": (53.40, 28.46, 12.70, 12.07, 26.66),
    "G-LLaVA-13B": (56.70, 35.84, 14.59, 13.27, 30.10),
    "Qwen2.5-VL-7B": (None, 68.20, 31.50, 25.10, None),
    "MAVIS-7B": (64.10, None, 28.40, None, None),
    "URSA-8B": (79.30, 59.80, 45.70, 32.60, 54.35),
    "Math-LLaVA-13B": (57.70, 46.60, 20.10, 15.69, 34.51),
    "MultiMath-7B": (66.80, 50.00, 26.90, None, None),
    "CogVLM2 base": (39.61, 40.85, 25.76, 13.20, 29.86),
    "MathSE-CogVLM2": (70.67, 53.90, 38.83, 19.67, 45.77),
    "Qwen2-VL-7B base": (43.75, 59.40, 35.53, 16.92, 37.94),
    "MathSE-Qwen": (69.71, 60.60, 45.36, 25.22, 50.22),
    "InternVL2.5-8B base": (59.13, 58.40, 35.66, 17.11, 42.58),
    "MathSE-InternVL": (74.52, 61.60, 43.65, 22.70, 50.62),
}

TABLE_5_HEAD = ("positive", "negative", "overall")  # ORM-2K: 1,000 right and 1,000 wrong paths
TABLE_5: Mapping[str, Cells] = {
    "ORM, verdict only, 60K": (85.40, 99.90, 92.65),
    "ORM, verdict, step and analysis, 60K": (94.20, 100.00, 97.10),
}

SIZES = {"mathvista": 1000, "mathverse": 3940, "mathvision": 3040, "mathvl_test": 2000}  # problems behind a cell

ERROR_TYPES = ("reasoning", "knowledge", "calculation", "question", "vision")
FIGURE_4: Mapping[str, tuple[float, ...]] = {  # read from the drawing; shares of the wrong answers on MathVL-test
    "MathSE-CogVLM2": (63.1, 1.7, 9.4, 21.6, 4.1),
    "MathSE-Qwen": (68.2, 1.1, 7.7, 22.5, 0.6),
    "MathSE-InternVL": (65.3, 1.0, 6.3, 27.0, 0.4),
}

SLIPS = {
    "Table 1": "65.13 of InternVL2.5-8B is no whole number of 2,000 problems.",
    "Table 2": (
        "The averages of Qwen2-VL-7B base and Math-LLaVA-13B do not follow from their rows, whose means are 38.90 and "
        "35.02. The closed models' rows equal an earlier paper's of the same lab. Which split of MathVision was used "
        "is not said."
    ),
    "Figure 4": "The text beside the drawing swaps knowledge and calculation. Who assigned the types is not said.",
}
