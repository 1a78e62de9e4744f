"""Cost of FF-RS against a plain forward pass, and against a peer, in one run.

python benchmarks/relevance.py [--network resnet50] [--size 224] [--batch 4] [--compile] [--bf16]

The peer is zennit for ResNets, and lxt for timm's vision transformers, where they are installed.

Ratios are medians over rounds in which all engines are timed in turn, so that noise on the machine
affects all of them alike. `--compile` and `--bf16` add these engines; compiling takes minutes.
`--network timm.tf_efficientnet_b0` is the paper's EfficientNet, and
`--network timm.vit_small_patch16_224` a transformer, under the rules epsilon and gamma.
"""

import copy
from statistics import median
from types import MethodType

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


def lxt_shares(net):
    """CP-LRP of a timm transformer by lxt (epsilon), (images, units); None if not installed."""
    try:
        from lxt.efficient.patches import layer_norm_forward
        from lxt.efficient.rules import identity_rule_implicit, stop_gradient
    except ImportError:
        return None
    net = copy.deepcopy(net).requires_grad_(False)
    for module in net.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.forward = MethodType(layer_norm_forward, module)
        elif isinstance(module, torch.nn.GELU):
            plain = MethodType(torch.nn.GELU.forward, module)
            module.forward = lambda x, plain=plain: identity_rule_implicit(plain, x)
        elif hasattr(module, "qkv"):
            module.q_norm = module.k_norm = torch.nn.Identity()
            module.q_norm.forward = stop_gradient
    units = [(f"blocks.{i}.{name}", heads) for i, block in enumerate(net.blocks)
             for name, heads in (("attn.proj", block.attn.num_heads), ("mlp.fc1", 0))]  # fmt: skip

    def shares(images):
        values, parts = {}, []

        def keep(name, tensor):
            tensor.retain_grad()
            values[name] = tensor

        hooks = []
        for name, heads in units:
            module = net.get_submodule(name)
            if heads:
                hooks.append(module.register_forward_pre_hook(lambda _m, x, n=name: keep(n, x[0])))
            else:
                hooks.append(module.register_forward_hook(lambda _m, _x, y, n=name: keep(n, y)))
        net(images.clone().requires_grad_()).sum().backward()
        for hook in hooks:
            hook.remove()
        for name, heads in units:
            relevance = values[name].detach() * values[name].grad
            positive = relevance.clamp(min=0).sum(1)
            if heads:
                positive = positive.unflatten(1, (heads, -1)).sum(2)
            parts.append(positive / relevance.abs().sum((1, 2))[:, None])
        return torch.cat(parts, 1)

    return shares


def main():
    defaults = {"network": "resnet50", "size": 224, "batch": 4, "repeats": 9}
    args = option_parser(__doc__, **defaults, compile=False, bf16=False).parse_args()
    torch.set_num_threads(2)

    net = network(args.network, args.size)
    images = noise(args.batch, args.size)
    transformer = ".vit_" in args.network
    lrp = LRP(net)
    peer, make_peer = ("lxt", lxt_shares) if transformer else ("zennit", zennit_shares)
    theirs = make_peer(net) if transformer or args.network.startswith("resnet") else None

    @torch.inference_mode()
    def forward(images):
        net(images)

    runs = {"plain forward": forward, "tff": lrp.explain}
    for precision in ("fp32", "bf16") if args.bf16 else ("fp32",):
        for compiled in (False, True) if args.compile else (False,):
            if (precision, compiled) != ("fp32", False):
                name = f"tff {precision}{' compiled' if compiled else ''}"
                runs[name] = LRP(net, precision=precision, compile=compiled).explain
    if transformer:
        runs["tff gamma"] = LRP(net, rule="gamma").explain
    if theirs:
        runs[peer] = theirs
        ours, known = lrp.explain(images).shares.mean(0), theirs(images).mean(0)
        if transformer:  # lxt has no rule for the convolution that makes tokens
            ours = ours[-len(known) :]
        distance = (ours - known).norm() / known.norm()
        print(f"omega, tff against {peer}: relative L2 distance {distance:.1e}")
    for run in runs.values():
        run(images)
        run(images)  # the first call may compile
    seconds = time_in_turn(runs, [images], args.repeats)
    print(f"{args.network}, {args.size} px, fp32, batch {args.batch}, 2 threads")
    for name, times in seconds.items():
        ratio = median_ratio(times, seconds["plain forward"])
        per_image = 1000 * median(times) / args.batch
        print(f"{name:18} {ratio:5.2f} x plain forward  {per_image:7.1f} ms per image")
    if theirs:
        print(f"{peer} / tff{'':12} {median_ratio(seconds[peer], seconds['tff']):5.2f}")


if __name__ == "__main__":
    prepare_process()
    main()
