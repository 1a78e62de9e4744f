"""Effect of lower precision on omega.

python benchmarks/precision.py [--ckpt FILE] [--network resnet50] [--images DIR] [--count 64]

Omega in bf16 against fp32: relative L2 distance, Spearman's rank correlation, and overlap of the
top channels. The detector comes from a checkpoint or has random weights; images come from a folder
(as for `data=folder`) or are noise of 224 px (`--size`). tf32 needs a GPU.
"""

from pathlib import Path

import torch
from common import network, option_parser
from scipy.stats import spearmanr

from tff.data.dataset import load_pixels
from tff.data.manifest import list_images
from tff.detectors.checkpoint import load
from tff.detectors.detector import Detector
from tff.relevance.lrp import LRP
from tff.startup import prepare_process
from tff.statistics.ffrs import FFRS


def pictures(folder, count, size):
    """Batches of images in [0, 1]."""
    if not folder:
        return torch.rand(count, 3, size, size).split(8)
    paths = list_images(Path(folder)).table["path"].tolist()
    chosen = paths[:: max(1, len(paths) // count)][:count]
    return [torch.from_numpy(load_pixels(p)).permute(2, 0, 1)[None].float() / 255 for p in chosen]


def omega(detector, batches, **options):
    """FF-RS of all images, whatever the detector decides."""
    lrp, metric = LRP(detector, **options), FFRS()
    for batch in batches:
        metric.update(lrp.explain(batch.to(next(detector.parameters()).device)).shares)
    return metric.compute().cpu()


def main():
    args = option_parser(
        __doc__, ckpt="", network="resnet50", images="", count=64, size=224
    ).parse_args()
    torch.set_num_threads(2)
    detector = load(args.ckpt) if args.ckpt else Detector(network(args.network, args.size)).eval()
    if torch.cuda.is_available():
        detector = detector.cuda()
    batches = pictures(args.images, args.count, args.size)
    full = omega(detector, batches)
    k = max(1, round(detector.tff_fraction * len(full)))
    for precision in ("tf32", "bf16") if torch.cuda.is_available() else ("bf16",):
        low = omega(detector, batches, precision=precision)
        distance = (low - full).norm() / full.norm()
        common = set(full.topk(k).indices.tolist()) & set(low.topk(k).indices.tolist())
        print(
            f"{precision}: relative L2 {distance:.1e}, Spearman {spearmanr(full, low)[0]:.6f}, "
            f"overlap of the top {k} of {len(full):,}: {len(common) / k:.3f}"
        )


if __name__ == "__main__":
    prepare_process()
    main()
