"""Compare our FF-RS with zennit's and the authors' on the same network and images.

python benchmarks/authors.py CHECKOUT [--size 224] [--batch 4] [--repeats 5]

CHECKOUT is a clone of github.com/sutd-visual-computing-group/transferable-forensic-features, whose
ResNet code runs unchanged, with its relevance read by hooks. Numbers are compared in float64, where
rounding cannot hide a difference, and in float32, which is timed.

A BatchNorm fused into its convolution stays in their network (and in zennit's) with its eps, and
divides by sqrt(1 + eps) once more; ours is fused exactly. "exact" is theirs without this factor.
"""

import contextlib
import copy
import io
import sys
from pathlib import Path

import torch
from common import median_ratio, network, noise, option_parser, time_in_turn
from relevance import zennit_shares

from tff.relevance.lrp import LRP
from tff.startup import prepare_process

# The options of `get_wrapped_resnet50(key="beta0")` in their `rank_fmaps_ud_r50.py`.
OPTIONS = {
    "conv2d_ignorebias": True,
    "eltwise_eps": 1e-6,
    "linear_eps": 1e-6,
    "pooling_eps": 1e-6,
    "use_zbeta": True,
}
METHODS = {
    "nn.ReLU": "relu_wrapper_fct",
    "nn.BatchNorm2d": "relu_wrapper_fct",
    "nn.Conv2d": "conv2d_beta0_wrapper_fct",
    "nn.Linear": "linearlayer_eps_wrapper_fct",
    "nn.AdaptiveAvgPool2d": "adaptiveavgpool2d_wrapper_fct",
    "nn.MaxPool2d": "maxpool2d_wrapper_fct",
    "sum_stacked2": "eltwisesum_stacked2_eps_wrapper_fct",
}


def authors_shares(checkout, net, exact=False):
    """Function that computes shares (B, C) with their network, built from ours.

    Args:
        exact: make the fused BatchNorms the identity.
    """
    sys.path.insert(0, str(Path(checkout) / "src"))
    from lrp import resnet_lrp_general, resnet_wrapper

    methods = {name: getattr(resnet_lrp_general, method) for name, method in METHODS.items()}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints each layer
        wrapped = resnet_wrapper.resnet50_canonized(num_classes=1)
        wrapped.copyfromresnet(copy.deepcopy(net), lrp_params=OPTIONS, lrp_layer2method=methods)
    wrapped.eval().to(next(net.parameters()).dtype)
    for module in wrapped.modules():
        if exact and isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 0.0
    found = {}
    # Their own filter of names; a wrapped convolution holds another in `.module`.
    names = [
        name
        for name, _ in wrapped.named_modules()
        if ("conv" in name or "downsample.0" in name) and "module" not in name
    ]

    def keep(name):
        def hook(_module, _inputs, outputs):
            relevance = outputs[0]
            positive = relevance.clamp(min=0).sum((2, 3))
            found[name] = positive / relevance.abs().sum((1, 2, 3))[:, None]

        return hook

    for name in names:
        wrapped.get_submodule(name).register_full_backward_hook(keep(name))

    def shares(images):
        with contextlib.redirect_stdout(io.StringIO()):
            wrapped(images.clone().requires_grad_()).sum().backward()
        return torch.cat([found[name] for name in LRP(net).channels.layers], 1)

    return shares


def ours_of(net):
    lrp = LRP(net)
    return lambda images: lrp.explain(images).shares


def main():
    parser = option_parser(__doc__, size=224, batch=4, repeats=5)
    parser.add_argument("checkout")
    args = parser.parse_args()
    torch.set_num_threads(2)
    single = network("resnet50", args.size)
    images = noise(args.batch, args.size)

    omega = {}
    for dtype in (torch.float64, torch.float32):
        net = copy.deepcopy(single).to(dtype)
        engines = {
            "tff": ours_of(net),
            "authors": authors_shares(args.checkout, net),
            "authors, exact": authors_shares(args.checkout, net, exact=True),
            "zennit": zennit_shares(net),
        }
        batch = images.to(dtype)
        for name, shares in engines.items():
            if shares is not None:
                omega[name, dtype] = shares(batch).mean(0).double()
    ours = omega["tff", torch.float64]
    top = set(ours.topk(114).indices.tolist())
    print("omega against tff in float64: relative L2 distance, largest difference, top 114 alike")
    for (name, dtype), values in omega.items():
        distance = (values - ours).norm() / ours.norm()
        largest = (values - ours).abs().max()
        same = len(top & set(values.topk(114).indices.tolist()))
        print(f"{name:15} {dtype!s:14} {distance:.1e} {largest:.1e} {same}")

    @torch.inference_mode()
    def forward(batch):
        single(batch)

    runs = {"plain forward": forward, **{n: e for n, e in engines.items() if e is not None}}
    seconds = time_in_turn(runs, [images], args.repeats)
    print(f"resnet50, {args.size} px, float32, batch {args.batch}, 2 threads")
    for name, times in seconds.items():
        ratio = median_ratio(times, seconds["plain forward"])
        print(f"{name:15} {ratio:6.2f} x plain forward")


if __name__ == "__main__":
    prepare_process()
    main()
