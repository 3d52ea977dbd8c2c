"""F, F_m and F_r of every layer of a finished run whose checkpoints and target are there: the table of
docs/layers.md, and its figure.

    python -m tools.layer_components RUN --seed 0 --target mnist-1000 --out FOLDER

The run itself is left as it is; FOLDER gets `raw/`, `figures/` and `layers.md`.
"""

import argparse
from pathlib import Path

from ckptsel.common.devices import default_device
from ckptsel.common.files import read_json, write_text
from ckptsel.common.streams import put
from ckptsel.reproduce.examine import Place
from ckptsel.reproduce.figures import draw_figures
from ckptsel.reproduce.layer_trends import LAYERS_NAME, describe_layers
from ckptsel.reproduce.layers import read_layers
from ckptsel.reproduce.registry import find_recipe
from ckptsel.reproduce.results import load_results, save_results
from ckptsel.settings.rank import RankSettings


def main() -> None:
    """Prints `layers.md`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", default="mnist-1000")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache-dir")
    given = parser.parse_args()
    made = read_json(given.run / "manifest.json")["recipe"]
    recipe = find_recipe(made["name"], made["preset"])
    results = load_results(given.run)
    place = Place(
        recipe,
        next(target for target in recipe.targets if target.name == given.target),
        given.seed,
        given.run / f"seed{given.seed}/checkpoints",
        str(given.run / "targets" / given.target),
        RankSettings(
            model=recipe.pretraining.model,
            device=default_device(),
            duplicates="keep",
            cache_dir=given.cache_dir,
        ),
        given.out / f"seed{given.seed}" / given.target,
        quiet=False,
    )
    read_layers(place, results)
    save_results(results, given.out)
    draw_figures(results, given.out)
    text = describe_layers(results)
    write_text(given.out / LAYERS_NAME, text)
    put(text)


if __name__ == "__main__":
    main()
