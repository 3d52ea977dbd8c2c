"""`ckptsel pick`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ckptsel.cli.checks import say_own_code
from ckptsel.cli.command import command
from ckptsel.common.outlets import exact, json_text, stdout_encoding
from ckptsel.common.streams import put, say
from ckptsel.errors import InputError
from ckptsel.settings.kinds import OwnModelOption, Repository, RunArgument, Text
from ckptsel.settings.option import Given, Option, OptionError, Options

if TYPE_CHECKING:
    from ckptsel.results.ranking import Row


@dataclass(frozen=True)
class PickOptions(Options):
    """The options of `ckptsel pick`."""

    run: RunArgument
    to: Annotated[
        Path | None, Option("Write its backbone, and how it is read, to this safetensors file.")
    ] = None
    checkpoint: Annotated[Text | None, Option("Another than the best, by its name or path.")] = None
    model_card: Annotated[
        Path | None, Option("Write a model card to this Markdown file, its picture beside it.")
    ] = None
    push_to_hub: Annotated[
        Repository | None,
        Option(
            "Push weights and card to ORG/NAME on the Hugging Face hub, made where it is not there."
        ),
    ] = None
    public: Annotated[bool, Option("With --push-to-hub: one that is made is public.")] = False
    model: OwnModelOption = None
    format: Annotated[
        Literal["path", "json"],
        Option("path, or json: all that is known of it.", ("--format", "-f")),
    ] = "path"

    def check_together(self) -> None:
        if self.to is not None and self.to.suffix != ".safetensors":
            raise OptionError(
                f"{{0}} is {self.to}: what is written is a safetensors file, so its name must end in "
                ".safetensors.",
                "to",
            )
        if self.public and self.push_to_hub is None:
            raise OptionError("{0} is for {1}.", "public", "push_to_hub")


@command(PickOptions)
def pick(given: Given) -> None:
    """Print the path of the best checkpoint, and with --to export its weights and how they are read.

    A path that a shell could take for another is refused; --format json gives any.

    Example: ckptsel pick ranking/ --to best.safetensors
    """
    options = given.make(PickOptions)
    say_own_code(options.model, given)
    _run(options)


def _run(options: PickOptions) -> None:
    """Everything that computes and writes."""
    import dataclasses

    from ckptsel.results.files import read_ranking

    if options.push_to_hub is not None:
        from ckptsel.export.hub import check_hub

        check_hub()
    ranking, arrays = read_ranking(options.run)
    row = ranking.find(options.checkpoint or ranking.best)
    if options.format == "path":
        text = _path_text(row, options.to)
    else:
        text = json_text(dataclasses.asdict(row))
    if options.to is not None:
        from ckptsel.export.backbone import export

        export(ranking, row, options.to, options.model)
        say(f"{row.name} written to {options.to}")
    if options.model_card is not None:
        from ckptsel.export.publish import write_card

        write_card(options.model_card, ranking, row, arrays, options.to)
        say(f"card of {row.name} written to {options.model_card}")
    if options.push_to_hub is not None:
        from ckptsel.export.publish import publish

        repo = options.push_to_hub
        where = publish(repo, ranking, row, arrays, options.model, options.public)
        say(f"{row.name} pushed to {repo}: {where}")
    if row.status == "failed":
        say(f"warning: {row.name} could not be used: {row.reason}")
    if ranking.why_not is not None:
        say(f"warning: {ranking.why_not}")
    if row.layer != "last" and ranking.goal == "fe":
        say(f"read it at {row.layer}, not at its last layer: ckptsel.load_extractor does")
    put(text)


def _path_text(row: "Row", to: Path | None) -> str:
    """The line that names the file: the checkpoint's, of an average the one that was written."""
    if row.average_of and to is None:
        raise InputError(
            f"{row.name} is an average, which lies in no file: write it to one with --to FILE."
        )
    path = str(to) if row.average_of else row.path
    instead = "Rename the file and rank again, or read it with --format json."
    return exact(path, "the path", instead, stdout_encoding()) + "\n"
