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
    iterated,
    judge,
    judge_calibrate,
    phf_evaluate,
    phf_suite,
    plant,
    pretrain,
    red_team,
    reward_model,
    rlhf,
    sample,
    score,
    scorer_check,
    signalling,
    text_game,
    theorem,
    walk,
)
from amenable.recipes.settings import Recipe

STUDIES = (
    ilf.RECIPE, evaluate.RECIPE, code_model.RECIPE, fdpg.RECIPE, frontier.RECIPE, sample.RECIPE,
    reward_model.RECIPE, dpo.RECIPE, judge.RECIPE, judge_calibrate.RECIPE, compare.RECIPE,
    rlhf.RLHF, rlhf.RLAIF, rlhf.DIRECT_RLAIF, rlhf.BEST_OF_N, rlhf.STUDY,
    pretrain.RECIPE, phf_suite.RECIPE, phf_evaluate.RECIPE, red_team.RECIPE, score.RECIPE,
    plant.RECIPE, scorer_check.RECIPE,
    signalling.RECIPE, theorem.RECIPE, text_game.RECIPE, walk.RECIPE, iterated.RECIPE,
)  # fmt: skip
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in STUDIES}
