"""Which recipes there are, and finding one by its name and preset."""

from ckptsel.errors import UsageError, did_you_mean
from ckptsel.reproduce import cifar10_mnist, cifar10_ssl, imagenet
from ckptsel.reproduce.recipes import Recipe


def list_recipes() -> list[Recipe]:
    """All recipes at all sizes."""
    return [*cifar10_mnist.PRESETS, *cifar10_ssl.PRESETS, *imagenet.PRESETS]


def find_recipe(name: str, preset: str) -> Recipe:
    """The recipe of that name and preset. Raises UsageError naming the known ones."""
    recipes = list_recipes()
    names = sorted({recipe.name for recipe in recipes})
    if name not in names:
        raise UsageError(
            f"unknown recipe {name!r}. Known: {', '.join(names)}." + did_you_mean(name, names)
        )
    presets = {recipe.preset: recipe for recipe in recipes if recipe.name == name}
    if preset not in presets:
        raise UsageError(
            f"recipe {name} has no preset {preset!r}. Known: {', '.join(presets)}."
            + did_you_mean(preset, presets)
        )
    return presets[preset]
