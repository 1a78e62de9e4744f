"""Cost of FF-RS against a plain forward pass and against zennit, and its memory, in one run.

python benchmarks/relevance.py [--network resnet50] [--size 224] [--batch 4] [--repeats 9]

Ratios are medians of rounds in which all are timed in turn, so that a noisy machine slows each of
them alike. The last line shows peak memory after few and many images, in a process each.
"""

import argparse
import multiprocessing
import resource
import time
from statistics import median

import torch
import torchvision

from tff.relevance.lrp import LRP
from tff.statistics.ffrs import FFRS


def network(name):
    torch.manual_seed(0)
    net = torchvision.models.get_model(name, num_classes=1).eval()
    # As in a trained network, no two BatchNorms are alike; the time does not depend on the values.
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)
    return net.to(memory_format=torch.channels_last)


def zennit_shares(net):
    """The same rules in zennit, one number a channel and image; None where it is not installed."""
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


def timed(run, *arguments):
    start = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - start


def peak(name, size, batch, images, queue):
    """Peak memory in MB of FF-RS over so many images."""
    torch.set_num_threads(2)
    lrp, metric = LRP(network(name)), FFRS()
    for _ in range(images // batch):
        metric.update(lrp.explain(torch.rand(batch, 3, size, size)).shares)
    queue.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--images", type=int, nargs=2, default=(40, 400), help="for memory")
    args = parser.parse_args()
    torch.set_num_threads(2)

    net = network(args.network)
    images = torch.randn(args.batch, 3, args.size, args.size)
    images = images.to(memory_format=torch.channels_last)
    lrp, zennit = LRP(net), zennit_shares(net)

    @torch.inference_mode()
    def forward():
        net(images)

    runs = {"plain forward": forward, "tff": lambda: lrp.explain(images)}
    if zennit:
        runs["zennit"] = lambda: zennit(images)
        ours, theirs = lrp.explain(images).shares.mean(0), zennit(images).mean(0)
        distance = (ours - theirs).norm() / theirs.norm()
        print(f"omega, tff against zennit: relative L2 distance {distance:.1e}")
    for run in runs.values():
        run()
    rounds = [{name: timed(run) for name, run in runs.items()} for _ in range(args.repeats)]
    print(f"{args.network}, {args.size} px, fp32, batch {args.batch}, 2 threads")
    for name in runs:
        ratio = median(r[name] / r["plain forward"] for r in rounds)
        per_image = 1000 * median(r[name] for r in rounds) / args.batch
        print(f"{name:14} {ratio:5.2f} x plain forward  {per_image:7.1f} ms an image")
    if zennit:
        print(f"zennit / tff   {median(r['zennit'] / r['tff'] for r in rounds):5.2f}")

    context = multiprocessing.get_context("spawn")
    peaks = []
    for count in args.images:
        queue = context.Queue()
        process = context.Process(
            target=peak, args=(args.network, args.size, args.batch, count, queue)
        )
        process.start()
        peaks.append(queue.get())
        process.join()
    few, many = args.images
    print(f"peak memory: {peaks[0]:.0f} MB for {few} images, {peaks[1]:.0f} MB for {many}; "
          f"ratio {peaks[1] / peaks[0]:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
