"""Images per second and core: the published augmentation of CNNDetection against ours.

python benchmarks/augment.py [--size 256] [--crop 224] [--images 100] [--rounds 9] [--files 480 640]

The original follows its description: a PIL image, SciPy's filter channel by channel, JPEG by OpenCV
or Pillow, then torchvision's crop, flip, ToTensor and Normalize. Ours returns bytes, which the
device normalises. Decoding is not included. One thread. All are timed in turn in each round, on the
same images; figures are medians over rounds, ratios are medians of the ratios per round. Images are
crops of photographs bundled with scikit-image and scikit-learn; `--files` is the height and width
of those that are resized.
"""

import io
import random
from statistics import median

import albumentations as A
import cv2
import numpy as np
import torch
from common import median_ratio, option_parser, time_in_turn
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage import data
from sklearn.datasets import load_sample_images
from torchvision import transforms

from tff.augmentations.blur import GaussianBlur
from tff.augmentations.color import Grayscale
from tff.augmentations.compose import Pipeline
from tff.augmentations.jpeg import JPEG
from tff.augmentations.resize import Resize
from tff.startup import prepare_process


def crops(count, height, width):
    """Random crops of photographs, (height, width, 3) uint8."""
    photographs = [data.astronaut(), data.coffee(), data.chelsea(), *load_sample_images().images]
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        photo = photographs[number % len(photographs)]
        scale = max(1, height / photo.shape[0], width / photo.shape[1])
        size = [int(np.ceil(s * scale)) for s in photo.shape[1::-1]]
        photo = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC))
        top = rng.integers(photo.shape[0] - height + 1)
        left = rng.integers(photo.shape[1] - width + 1)
        found.append(np.ascontiguousarray(photo[top : top + height, left : left + width]))
    return found


def scipy_blur(image, sigma):
    for c in range(3):
        gaussian_filter(image[:, :, c], output=image[:, :, c], sigma=sigma)
    return image


def cv2_jpeg(image, quality):
    parameters = [int(cv2.IMWRITE_JPEG_QUALITY), quality]
    _done, code = cv2.imencode(".jpg", image[:, :, ::-1], parameters)
    return cv2.imdecode(code, 1)[:, :, ::-1]


def pil_jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="jpeg", quality=quality)
    return np.array(Image.open(file))


class Original:
    """As published: PIL image in, normalised float tensor out."""

    def __init__(self, p, crop):
        self.p, self.random = p, random.Random(0)
        self.rest = transforms.Compose([
            transforms.Lambda(self.degrade),
            transforms.RandomCrop(crop),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ])  # fmt: skip

    def degrade(self, picture):
        image = np.array(picture)
        if self.random.random() < self.p:
            image = scipy_blur(image, self.random.uniform(0, 3))
        if self.random.random() < self.p:
            jpeg = self.random.choice((cv2_jpeg, pil_jpeg))
            image = jpeg(image, self.random.randint(30, 100))
        return Image.fromarray(image)

    def __call__(self, image, picture):
        return self.rest(picture)


class Ours:
    """As in `conf/aug/blur_jpeg.yaml`: array in, uint8 tensor out, seeded for each image."""

    def __init__(self, p, crop, exact):
        self.seed = 0
        self.pipeline = Pipeline([
            Resize(None),
            GaussianBlur((0, 3), exact, p),
            JPEG((30, 100), exact=exact, p=p),
            A.RandomCrop(crop, crop),
            A.HorizontalFlip(p=0.5),
        ])  # fmt: skip

    def __call__(self, image, picture):
        self.seed += 1
        self.pipeline.set_random_seed(self.seed)
        found = self.pipeline(image=image)["image"]
        return torch.from_numpy(np.ascontiguousarray(found.transpose(2, 0, 1)))


def seconds_per_image(original, ours, exact, images, rounds):
    """Seconds per image of the three candidates, one number per round."""

    def over_images(run):
        def loop(images):
            for image in images:
                run(*image)

        return loop

    candidates = {"original": original, "ours": ours, "exact": exact}
    runs = {name: over_images(run) for name, run in candidates.items()}
    time_in_turn(runs, [images[:4]], 1)
    seconds = time_in_turn(runs, [images], rounds)
    return {name: np.array(times) / len(images) for name, times in seconds.items()}


def pipelines(images, crop, rounds):
    print(
        "| blur = JPEG = p | original | ours | ours, exact | ours / original | exact / original |"
    )
    print("|---|---|---|---|---|---|")
    for p in (0, 0.1, 0.5, 1):
        candidates = Original(p, crop), Ours(p, crop, False), Ours(p, crop, True)
        found = seconds_per_image(*candidates, images, rounds)
        columns = [f"{1 / median(times):,.0f}" for times in found.values()]
        columns += [f"{median_ratio(found['original'], found[n]):.2f}" for n in ("ours", "exact")]
        print(f"| {p} | {' | '.join(columns)} |")


def single_transforms(images, large, rounds):
    def resized(image, picture):
        size = (256 * picture.width // picture.height, 256)
        return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))

    def luma(image, picture):
        return np.repeat(np.asarray(picture.convert("L"))[..., None], 3, axis=2)

    def ours(transform):
        return lambda image, picture: transform.apply(image, **transform.get_params())

    height, width = large[0][0].shape[:2]
    rows = [
        (f"blur, sigma {sigma}", images, lambda i, _, s=sigma: scipy_blur(i.copy(), s),
         lambda exact, s=sigma: GaussianBlur((s, s), exact, 1)) for sigma in (0.5, 1.5, 3)
    ] + [
        ("JPEG by OpenCV, quality 65", images, lambda i, _: cv2_jpeg(i, 65),
         lambda exact: JPEG((65, 65), ("cv2",), exact, 1)),
        ("JPEG by Pillow, quality 65", images, lambda i, _: pil_jpeg(i, 65),
         lambda exact: JPEG((65, 65), ("pil",), exact, 1)),
        ("grayscale", images, luma, lambda _exact: Grayscale(1)),
        (f"resize {width}x{height} to 256", large, resized, lambda _exact: Resize(256)),
    ]  # fmt: skip
    print("\n| milliseconds per image | original | ours | ours, exact |\n|---|---|---|---|")
    for name, some, original, transform in rows:
        candidates = original, ours(transform(False)), ours(transform(True))
        found = seconds_per_image(*candidates, some, rounds)
        print(f"| {name} | " + " | ".join(f"{median(t) * 1e3:.2f}" for t in found.values()) + " |")


def main():
    parser = option_parser(__doc__, size=256, crop=224, images=100, rounds=9, files=[480, 640])
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    images = [(i, Image.fromarray(i)) for i in crops(args.images, args.size, args.size)]
    large = [(i, Image.fromarray(i)) for i in crops(8, *args.files)]
    print(f"{args.size}x{args.size} photographs, crop {args.crop}, one thread; images a second")
    pipelines(images, args.crop, args.rounds)
    single_transforms(images, large, args.rounds)


if __name__ == "__main__":
    prepare_process()
    main()
