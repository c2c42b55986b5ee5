"""The studies that `amenable run NAME` runs, one file each."""

from __future__ import annotations

from amenable.recipes import code_model, evaluate, fdpg, frontier, ilf, sample
from amenable.recipes.settings import Recipe

STUDIES = (ilf.RECIPE, evaluate.RECIPE, code_model.RECIPE, fdpg.RECIPE, frontier.RECIPE, sample.RECIPE)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in STUDIES}
