"""Memory of FF-RS: does it grow with the number of images, and how does it compare to training?

python benchmarks/memory.py [--network resnet50] [--size 224] [--batch 8] [--images 50 1000]

Each figure is the peak memory of a separate process, minus its memory before the first batch.
"""

import multiprocessing
import resource

import torch
from common import network, option_parser

from tff.relevance.lrp import LRP
from tff.startup import prepare_process
from tff.statistics.ffrs import FFRS


def peak_now():
    """Peak memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ffrs(net, size, batch, images):
    """Peak memory of FF-RS over this number of images, in MB."""
    lrp, metric = LRP(net), FFRS()
    before = peak_now()
    for start in range(0, images, batch):
        metric.update(lrp.explain(torch.rand(min(batch, images - start), 3, size, size)).shares)
    return peak_now() - before


def training(net, size, batch, images):
    """Peak memory of the forward pass of a training step, in MB: it keeps all activations."""
    net.train()
    before = peak_now()
    for _ in range(2):
        image = torch.rand(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
        net(image).sum()
    return peak_now() - before


def run(what, name, size, batch, images, queue):
    torch.set_num_threads(2)
    queue.put(what(network(name, size), size, batch, images))


def measure(*arguments):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=run, args=(*arguments, queue))
    process.start()
    peak = queue.get()
    process.join()
    return peak


def main():
    parser = option_parser(__doc__, network="resnet50", size=224, batch=8, images=[50, 1000])
    args = parser.parse_args()
    few, many = args.images
    at_few, at_many = (
        measure(ffrs, args.network, args.size, args.batch, count) for count in (few, many)
    )
    step = measure(training, args.network, args.size, args.batch, args.batch)
    print(f"{args.network}, {args.size} px, fp32, batch {args.batch}, 2 threads")
    print(f"FF-RS of {few} images: {at_few:.0f} MB, of {many}: {at_many:.0f} MB; "
          f"ratio {at_many / at_few:.2f}")  # fmt: skip
    print(f"forward pass of a training step: {step:.0f} MB; FF-RS / training {at_many / step:.2f}")


if __name__ == "__main__":
    prepare_process()
    main()
