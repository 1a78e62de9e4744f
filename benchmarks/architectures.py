"""LRP through all families of convolutional networks: does it run, and is relevance conserved?

python benchmarks/architectures.py [NAME ...] [--size 96]

For each network: the number of convolutions that are feature maps (the others are inside gates or
compute the logit), the error of the logit of the traced network, the share of the relevance of the
logit that reaches the pixels, and where the rest is lost. Weights are random.
"""

import torch
from common import network, option_parser
from torch import nn

from tff.relevance.lrp import LRP
from tff.startup import prepare_process

TORCHVISION = [
    "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "efficientnet_b0",
    "efficientnet_v2_s", "vgg11", "vgg11_bn", "densenet121", "mobilenet_v2",
    "mobilenet_v3_small", "mobilenet_v3_large", "regnet_y_400mf", "regnet_x_400mf",
    "mnasnet0_5", "shufflenet_v2_x0_5", "squeezenet1_0", "squeezenet1_1", "googlenet",
    "inception_v3", "convnext_tiny", "alexnet",
]  # fmt: skip
TIMM = [
    "resnet50", "tf_efficientnet_b0", "convnext_tiny", "resnet50d", "seresnet50", "regnety_008",
    "mobilenetv3_large_100", "tf_efficientnetv2_s", "densenet121", "xception",
    "res2net50_26w_4s", "skresnet18", "ecaresnet50t", "resnest50d", "nfnet_f0", "resnetv2_50",
    "dla34", "hrnet_w18_small", "ghostnet_100", "repvgg_a0", "cspdarknet53", "mixnet_s",
    "dpn68", "poolformer_s12", "inception_next_tiny", "starnet_s1",
]  # fmt: skip


def main():
    parser = option_parser(__doc__, size=96)
    parser.add_argument("names", nargs="*", default=TORCHVISION + [f"timm.{n}" for n in TIMM])
    args = parser.parse_args()
    header = ("network", "maps", "logit", "arrives", "to biases", "at zero", "negative")
    print("{:28} {:>9} {:>8} {:>9} {:>9} {:>9} {:>9}".format(*header))
    for name in args.names:
        net = network(name, args.size)
        images = torch.randn(2, 3, args.size, args.size)
        lrp = LRP(net)
        found = lrp.explain(images, pixels=True)
        with torch.no_grad():
            logit = net(images)[:, 0]
        error = ((logit - found.logit).abs() / logit.abs()).max()
        arrives = found.pixels.sum((1, 2, 3)).mean()
        _, _, to_bias, at_zero, negative = found.conservation.mean(0).unbind(1)
        convolutions = sum(isinstance(m, nn.Conv2d) for m in net.modules())
        print(
            f"{name:28} {len(lrp.channels.layers):4}/{convolutions:<4} {error:8.0e} {arrives:9.2%} "
            f"{to_bias.sum():9.2%} {at_zero.sum():9.2%} {negative.max():9.0%}"
        )


if __name__ == "__main__":
    prepare_process()
    main()
