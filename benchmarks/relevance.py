"""Cost of FF-RS against a plain forward pass, and against zennit for ResNets, in one run.

python benchmarks/relevance.py [--network resnet50] [--size 224] [--batch 4] [--compile] [--bf16]

Ratios are medians over rounds in which all engines are timed in turn, so that noise on the machine
affects all of them alike. `--compile` and `--bf16` add these engines; compiling takes minutes.
`--network timm.tf_efficientnet_b0` is the paper's EfficientNet.
"""

from statistics import median

import torch
from common import median_ratio, network, noise, option_parser, time_in_turn

from tff.relevance.lrp import LRP
from tff.startup import prepare_process


def zennit_shares(net):
    """The same rules in zennit, shares as (images, channels); None if zennit is not installed."""
    try:
        from zennit.attribution import Gradient
        from zennit.composites import LayerMapComposite
        from zennit.layer import Sum
        from zennit.rules import Epsilon, Norm, Pass, ZPlus
        from zennit.torchvision import ResNetCanonizer
        from zennit.types import Activation, AvgPool, BatchNorm, Convolution, Linear
    except ImportError:
        return None
    rules = [
        (Sum, Norm()),  # without a rule for the sums omega would be wrong by 41 %
        (Activation, Pass()),
        (BatchNorm, Pass()),
        (AvgPool, Norm()),
        (Convolution, ZPlus(zero_params="bias")),
        (Linear, Epsilon(1e-6)),
    ]
    composite = LayerMapComposite(rules, canonizers=[ResNetCanonizer()])

    def shares(images):
        found = {}
        with Gradient(net, composite) as attributor:
            hooks = []
            for name, module in net.named_modules():
                if isinstance(module, torch.nn.Conv2d):

                    def keep(_module, _inputs, outputs, name=name):
                        relevance = outputs[0]
                        positive = relevance.clamp(min=0).sum((2, 3))
                        found[name] = positive / relevance.abs().sum((1, 2, 3))[:, None]

                    hooks.append(module.register_full_backward_hook(keep))
            attributor(images.clone().requires_grad_(), torch.ones(len(images), 1))
            for hook in hooks:
                hook.remove()
        return torch.cat([found[n] for n, m in net.named_modules() if n in found], 1)

    return shares


def main():
    defaults = {"network": "resnet50", "size": 224, "batch": 4, "repeats": 9}
    args = option_parser(__doc__, **defaults, compile=False, bf16=False).parse_args()
    torch.set_num_threads(2)

    net = network(args.network, args.size)
    images = noise(args.batch, args.size)
    lrp = LRP(net)
    zennit = zennit_shares(net) if args.network.startswith("resnet") else None

    @torch.inference_mode()
    def forward(images):
        net(images)

    runs = {"plain forward": forward, "tff": lrp.explain}
    for precision in ("fp32", "bf16") if args.bf16 else ("fp32",):
        for compiled in (False, True) if args.compile else (False,):
            if (precision, compiled) != ("fp32", False):
                name = f"tff {precision}{' compiled' if compiled else ''}"
                runs[name] = LRP(net, precision=precision, compile=compiled).explain
    if zennit:
        runs["zennit"] = zennit
        ours, theirs = lrp.explain(images).shares.mean(0), zennit(images).mean(0)
        distance = (ours - theirs).norm() / theirs.norm()
        print(f"omega, tff against zennit: relative L2 distance {distance:.1e}")
    for run in runs.values():
        run(images)
        run(images)  # the first call may compile
    seconds = time_in_turn(runs, [images], args.repeats)
    print(f"{args.network}, {args.size} px, fp32, batch {args.batch}, 2 threads")
    for name, times in seconds.items():
        ratio = median_ratio(times, seconds["plain forward"])
        per_image = 1000 * median(times) / args.batch
        print(f"{name:18} {ratio:5.2f} x plain forward  {per_image:7.1f} ms per image")
    if zennit:
        print(f"zennit / tff       {median_ratio(seconds['zennit'], seconds['tff']):5.2f}")


if __name__ == "__main__":
    prepare_process()
    main()
