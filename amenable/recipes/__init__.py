"""The studies that `amenable run NAME` runs, one file each."""

from __future__ import annotations

from amenable.recipes import (
    code_model,
    compare,
    dpo,
    evaluate,
    fdpg,
    frontier,
    ilf,
    judge,
    judge_calibrate,
    phf_suite,
    pretrain,
    reward_model,
    rlhf,
    sample,
    score,
)
from amenable.recipes.settings import Recipe

STUDIES = (
    ilf.RECIPE, evaluate.RECIPE, code_model.RECIPE, fdpg.RECIPE, frontier.RECIPE, sample.RECIPE,
    reward_model.RECIPE, dpo.RECIPE, judge.RECIPE, judge_calibrate.RECIPE, compare.RECIPE,
    rlhf.RLHF, rlhf.RLAIF, rlhf.DIRECT_RLAIF, rlhf.BEST_OF_N, rlhf.STUDY,
    pretrain.RECIPE, phf_suite.RECIPE, score.RECIPE,
)  # fmt: skip
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in STUDIES}
