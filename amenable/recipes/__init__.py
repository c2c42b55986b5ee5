"""The studies that `amenable run NAME` runs, one file each."""

from __future__ import annotations

from amenable.recipes import evaluate, ilf
from amenable.recipes.settings import Recipe

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (ilf.RECIPE, evaluate.RECIPE)}
