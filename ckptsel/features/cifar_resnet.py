"""ResNet-18 for 32x32 images, registered with timm.

The residual blocks are timm's. The stem is one 3x3 convolution without max-pooling, as is usual for
CIFAR: ImageNet's 7x7 stem with pooling would leave 8x8 pixels before the first block. timm's own
`ResNet` fixes the stem at 64 channels, so narrow networks need this class.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition" (basic blocks, 2-2-2-2).
"""

from typing import Any

from timm.layers import create_classifier
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock
from torch import Tensor, nn

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)


class CifarResNet(nn.Module):
    """A four-stage residual network with timm's interface (`forward_features`, `forward_head`).

    width: channels of the first stage; each later stage has twice as many.
    stem_stride: 1 keeps 32x32 pixels for the first stage, 2 halves them (a quarter of the work).
    """

    def __init__(
        self,
        layers: tuple[int, ...] = (2, 2, 2, 2),
        width: int = 64,
        stem_stride: int = 1,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.conv1 = nn.Conv2d(in_chans, width, 3, stride=stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU(inplace=True)
        channels = width
        for stage, n_blocks in enumerate(layers):
            out_channels = width * 2**stage
            blocks = []
            for i in range(n_blocks):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(_basic_block(channels, out_channels, stride))
                channels = out_channels
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.n_stages = len(layers)
        self.num_features = self.head_hidden_size = channels
        self.global_pool, self.fc = create_classifier(channels, num_classes, pool_type=global_pool)
        self.drop_rate = drop_rate
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str = "avg") -> None:
        self.num_classes = num_classes
        self.global_pool, self.fc = create_classifier(
            self.num_features, num_classes, pool_type=global_pool
        )

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        for stage in range(1, self.n_stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(x)
        if self.drop_rate:
            x = nn.functional.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _basic_block(in_channels: int, out_channels: int, stride: int) -> BasicBlock:
    downsample = None
    if stride != 1 or in_channels != out_channels:
        downsample = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )
    return BasicBlock(in_channels, out_channels, stride=stride, downsample=downsample)


_CFG = {
    "url": "",
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "pool_size": (4, 4),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": CIFAR10_MEAN,
    "std": CIFAR10_STD,
    "first_conv": "conv1",
    "classifier": "fc",
}

default_cfgs = generate_default_cfgs(
    {
        "cifar_resnet18.untrained": _CFG,
        "cifar_resnet18_w16_s2.untrained": _CFG,
        "cifar_resnet18_w32_s2.untrained": _CFG,
    }
)


@register_model
def cifar_resnet18(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-18 with a 3x3 stem of stride 1 (11.2 M parameters, 512 features)."""
    return build_model_with_cfg(CifarResNet, "cifar_resnet18", pretrained, **kwargs)


@register_model
def cifar_resnet18_w16_s2(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-18 of base width 16 with a 3x3 stem of stride 2 (0.7 M parameters, 128 features)."""
    arguments = {"width": 16, "stem_stride": 2, **kwargs}
    return build_model_with_cfg(CifarResNet, "cifar_resnet18_w16_s2", pretrained, **arguments)


@register_model
def cifar_resnet18_w32_s2(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """The same of base width 32 (2.8 M parameters, 256 features)."""
    arguments = {"width": 32, "stem_stride": 2, **kwargs}
    return build_model_with_cfg(CifarResNet, "cifar_resnet18_w32_s2", pretrained, **arguments)
