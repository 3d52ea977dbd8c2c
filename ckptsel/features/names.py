"""Which network a name stands for.

A name may stand in several registries (`resnet18` in timm's and torchvision's, with other tensors in
the case of others), and people's code calls networks by names of its own (DINO's `vit_tiny`). The
tensors of the checkpoints decide: the first network that they fit.
"""

import contextlib
import difflib
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import timm

from ckptsel.errors import ModelError, listed
from ckptsel.features import (
    hugging_face,
    open_clip_networks,
    own_networks,
    timm_networks,
    torchvision_networks,
)
from ckptsel.features.matching import Tensors, fits
from ckptsel.features.network import Network, Recorded, Request, expected_tensors, skeleton

Build = Callable[[str, Request], Network]

BUILDERS: dict[str, Build] = {
    "torchvision": torchvision_networks.build,
    "hf": hugging_face.build,
    "open_clip": open_clip_networks.build,
}
"""By what stands before the colon, as in `ckptsel.settings.kinds.LIBRARIES`."""

FAMILY = re.compile(r"(?:mae_)?(vit|deit)_(tiny|small|base|large|huge)(?:_patch(\d+))?(?:_dec\w+)?")
"""What DINO and MAE call their networks; timm's names end in the size of images."""

COMMON = {
    "layer1.0.conv1.weight": (
        *("resnet18", "resnet50", "resnet34", "resnet101", "wide_resnet50_2"),
        *("cifar_resnet18", "cifar_resnet18_w16_s2"),
    ),
    "blocks.0.attn.qkv.weight": (
        *("vit_small_patch16_224", "vit_base_patch16_224", "vit_tiny_patch16_224"),
        *("vit_large_patch16_224", "vit_small_patch14_dinov2", "vit_base_patch14_dinov2"),
    ),
    "encoder.layers.encoder_layer_0.ln_1.weight": ("vit_b_16", "vit_b_32"),
    "stages.0.blocks.0.conv_dw.weight": ("convnext_tiny", "convnext_base"),
    "layers.0.blocks.0.attn.relative_position_bias_table": ("swin_tiny_patch4_window7_224",),
    "blocks.0.0.conv_dw.weight": ("efficientnet_b0", "mobilenetv3_large_100"),
    "features.denseblock1.denselayer1.conv1.weight": ("densenet121",),
    "features.0.weight": ("vgg16",),
}
"""Networks that are tried on tensors of which nothing says what they are of, by one that they have."""

TEXT = re.compile(r"(embed_tokens|word_embeddings|wte)\.weight$")
"""Names of tensors that networks of text have."""

MAX_TRIED = 8
"""Near names that are built to see whether the tensors fit them."""


def is_registered(name: str) -> bool:
    """Whether a name is one of timm's registry (or of this package's networks in it), torchvision's,
    or of a library that builds networks from its own names.

    Only such a name may come out of a file: `package.module:function` is imported and called, so it
    must be what the user typed; and so must a folder, which is opened.
    """
    kind, colon, rest = name.partition(":")
    if colon:
        return name == "hf:" or (kind in ("torchvision", "open_clip") and ":" not in rest)
    return bool(_known(name, None))


def check_name(name: str) -> None:
    """Raises ModelError naming near names, for what is in no registry and names no module or folder."""
    if ":" not in name and not _is_folder(name) and not is_registered(name):
        raise _unknown(name, Request())


def find_network(name: str, request: Request, typed: bool) -> tuple[str, Network]:
    """(its full name, the network) that a name stands for. Raises ModelError naming near names."""
    kind, colon, rest = name.partition(":")
    if colon and kind in BUILDERS and (typed or is_registered(name)):
        return name, BUILDERS[kind](rest, request)
    if colon and not typed:
        raise ModelError(
            f"{name!r} comes out of a file, and nothing that a file names is run. If it is yours, "
            f"say so with --model {name}."
        )
    if colon:
        return name, own_networks.build(name, request)
    if typed and _is_folder(name):
        return f"hf:{name}", hugging_face.build(name, request)
    return _registered(name, request)


def _registered(name: str, request: Request) -> tuple[str, Network]:
    known = _known(name, request)
    if not known:
        raise _unknown(name, request)
    first: tuple[str, Network] | None = None
    problem: ModelError | None = None
    for full, build, own in known:
        try:
            found = full, build(own, request)
        except ModelError as error:
            problem = problem or error
            continue
        if not request.tensors or len(known) == 1 or _fits(found[1], request):
            return found
        first = first or found
    if first is None:
        assert problem is not None
        raise problem
    return first


def _is_folder(name: str) -> bool:
    """Whether it names a folder of transformers."""
    return (Path(name) / "config.json").is_file()


def _unknown(name: str, request: Request) -> ModelError:
    return ModelError(
        f"unknown model {name!r}: not a timm name, nor torchvision's, nor package.module:function."
        + suggestions(name, request)
    )


def _fits(network: Network, request: Request) -> bool:
    return fits(expected_tensors(network.module), network.head, request.tensors)


def _known(name: str, request: Request | None) -> list[tuple[str, Build, str]]:
    """(full name, how it is built, its name there) of all networks that a name may be."""
    request = request or Request()
    found: list[tuple[str, Build, str]] = []
    if timm.is_model(name):
        found.append((name, timm_networks.build, name))
    found += [(own, timm_networks.build, own) for own in _of_family(name, request)]
    if name in torchvision_networks.names():
        found.append((f"torchvision:{name}", torchvision_networks.build, name))
    return found


def _of_family(name: str, request: Request) -> list[str]:
    """timm's name of a vision transformer of DINO or MAE: with the size of its patches where timm has
    one of it, else with another, which the file's tensors change."""
    match = FAMILY.fullmatch(name)
    if match is None or timm.is_model(name):
        return []
    told = request.recorded.arguments.get("patch_size", 16)
    patch = _patch_in(request) or match[3] or told
    usual = [f"vit_{match[2]}_patch{p}_224" for p in (patch, 16, 14)]
    return [full for full in usual if timm.is_model(full)][:1]


def _patch_in(request: Request) -> int | None:
    """Pixels a side of a patch, by the first layer of a vision transformer in the file."""
    return next(
        (
            tensor.shape[-1]
            for name, tensor in request.tensors.items()
            if name.endswith("patch_embed.proj.weight") and tensor.ndim == 4
        ),
        None,
    )


def told_by_tensors(tensors: Tensors) -> str:
    """A sentence of what tensors are of, with a space before it; "" where nothing tells."""
    request = Request(recorded=Recorded(read=lambda: dict(tensors)))
    near = [names for key, names in COMMON.items() if any(name.endswith(key) for name in tensors)]
    fitting = [name for name in itertools.chain(*near) if _could_be(name, request)]
    if fitting:
        return f" Their tensors fit {listed(fitting)}."
    is_text = any(TEXT.search(name) for name in tensors)
    return " They look like a network of text; images alone can be ranked on." if is_text else ""


def suggestions(name: str, request: Request) -> str:
    """' Did you mean a, b?' of near names; of those that the tensors fit, where these are known."""
    known = [*timm.list_models(), *torchvision_networks.names()]
    near = difflib.get_close_matches(name, sorted(set(known)), n=MAX_TRIED, cutoff=0.6)
    if request.tensors:
        near = [each for each in near if _could_be(each, request)]
    return f" Did you mean {', '.join(near[:4])}?" if near else ""


def _could_be(name: str, request: Request) -> bool:
    """Whether the tensors fit a network of this name."""
    for _, build, own in _known(name, request):
        with contextlib.suppress(ModelError):
            if _fits(skeleton(lambda: build(own, request)), request):  # noqa: B023
                return True
    return False
