"""`ckptsel extract`."""

from ckptsel.cli.checks import check_device, say_own_code
from ckptsel.cli.command import command
from ckptsel.common.streams import say
from ckptsel.settings.extract import ExtractSettings
from ckptsel.settings.option import Given


@command(ExtractSettings)
def extract(given: Given) -> None:
    """Write features of new images, by the best candidate of a ranking or an exported network.

    Example: ckptsel extract ranking/ --data new_images/ --to features.parquet
    """
    settings = given.make(ExtractSettings)
    check_device(settings.device, given)
    say_own_code(settings.model, given)
    _run(settings)


def _run(settings: ExtractSettings) -> None:
    """Everything that computes and writes."""
    from ckptsel.export.features import extract as extract_features

    found = extract_features(settings)
    n_images, n_features = found.features.shape
    candidate, layer = found.about["candidate"], found.about["layer"]
    if not settings.quiet:
        say(
            f"{n_images} images x {n_features} features, {candidate} read at {layer}: {settings.to}"
        )
