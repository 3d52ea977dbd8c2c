"""What a ranking says of its data, its network and its settings: the keys that readers rely on.

Other keys are kept as they are. Files of other versions may lack those that are not required.
"""

from typing import Annotated

from pydantic import ConfigDict, Field, with_config
from typing_extensions import NotRequired, TypedDict

Number = Annotated[int, Field(ge=0, le=10**12)]
Share = Annotated[float, Field(ge=0, le=1)]

OPEN = ConfigDict(extra="allow", allow_inf_nan=False)


@with_config(OPEN)
class LargestClass(TypedDict):
    """The class that most held-out images are of.

    name: of the class.
    share: of the held-out images, 0 to 1.
    """

    name: str
    share: Share


@with_config(OPEN)
class EvaluationAbout(TypedDict):
    """How the target was split.

    method: in words.
    n_train: images that are fitted on; under cross-validation, all.
    n_eval: images that are held out; under cross-validation, all, each once a repeat.
    n_folds: parts of a cross-validation.
    n_repeats: how often the images were drawn into parts anew.
    """

    method: str
    n_train: Number
    n_eval: Number
    n_folds: NotRequired[Number]
    n_repeats: NotRequired[Number]


@with_config(OPEN)
class DuplicatesAbout(TypedDict):
    """Images that are fitted on and held out: how many, and some of them.

    n: images that were found and left out.
    """

    n: Number


@with_config(OPEN)
class TargetAbout(TypedDict):
    """The labelled data.

    data: as it was given: a folder, a file or a name.
    kind: what reads it.
    splits: names of the splits that were read.
    n_classes: number of classes.
    class_names: in the order of the labels.
    largest_class: what a guess without looking reaches.
    evaluation: which images are fitted and which held out.
    duplicates: images that are in both parts; None where they were not looked for.
    fingerprint: a digest of images and labels.
    """

    data: str
    kind: NotRequired[str]
    splits: list[str]
    n_classes: Number
    class_names: NotRequired[list[str]]
    largest_class: NotRequired[LargestClass]
    evaluation: EvaluationAbout
    duplicates: NotRequired[DuplicatesAbout | None]
    fingerprint: str


@with_config(OPEN)
class PreprocessingAbout(TypedDict):
    """How images become inputs; other encoders record other things.

    input_size: channels, height, width.
    interpolation: the filter of resizing.
    crop_pct: the share of the resized image's side that is kept, 0 to 1.
    """

    input_size: NotRequired[Annotated[list[Number], Field(min_length=1, max_length=10)]]
    interpolation: NotRequired[str]
    crop_pct: NotRequired[Share]


@with_config(OPEN)
class StageAbout(TypedDict):
    """A module whose output was read.

    name: of the module.
    shape: of its output for one image.
    grid: maps were averaged on grid x grid.
    n_prefix: tokens before the patches; the first is read, and the mean of the patches.
    channels_last: whether maps have their channels last.
    """

    name: str
    shape: list[Number]
    grid: Number
    n_prefix: Number
    channels_last: bool


@with_config(OPEN)
class ModelAbout(TypedDict):
    """The network.

    name: of timm's, or `module:function`.
    layer: where it is read.
    layers: names of all layers that were read, in the network's order.
    stages: for each of these that is a stage, how its output became features.
    preprocessing: how images are prepared for it.
    """

    name: str
    layer: NotRequired[str]
    layers: NotRequired[list[str]]
    stages: NotRequired[list[StageAbout]]
    preprocessing: PreprocessingAbout


@with_config(OPEN)
class SettingsAbout(TypedDict):
    """Every option of `ckptsel rank`, as it was used; these are read again.

    checkpoints: the folder.
    weights: which of several sets of weights.
    device: that ran it.
    precision: of the forward pass.
    energy: share of the energy that the main component holds.
    n_resamples: draws behind P(best) and the tie set.
    pool: how positions become one vector; None as the network does it.
    image_size: pixels a side; None as the network's configuration has it.
    """

    checkpoints: str
    weights: str
    device: str
    precision: NotRequired[str]
    energy: Annotated[float, Field(gt=0, lt=1)]
    n_resamples: NotRequired[Number]
    pool: NotRequired[str | None]
    image_size: NotRequired[Number | None]


@with_config(OPEN)
class Details(TypedDict):
    """What a score records besides its value.

    C: strengths chosen, one a fold.
    scaling: scalings chosen, one a fold.
    n_unconverged: folds whose fit was still moving after its last step; left out where none was.
    at_chance: whether the score does not beat the share of the largest class.
    largest_class: the share of the largest class, which is right without looking.
    """

    C: NotRequired[list[float]]
    scaling: NotRequired[list[str]]
    n_unconverged: NotRequired[Number]
    at_chance: NotRequired[bool]
    largest_class: NotRequired[Share]
