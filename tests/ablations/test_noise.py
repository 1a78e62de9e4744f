"""Random numbers of images, and the two cues that draw them."""

import subprocess
import sys

import pytest
import torch

from tff.ablations.noise import Noise, Phase, image_noise

GRAYS = torch.arange(100, 104).reshape(4, 1, 1, 1).expand(4, 3, 64, 96) / 255
SIZES = [(24, 32), (15, 20), (20, 15), (9, 7), (1, 8), (5, 1), (1, 1), (2, 2)]


def faint(height, width):
    """Structure so faint that nothing is cut off when its phases are scrambled."""
    numbers = torch.Generator().manual_seed(height * width)
    image = torch.rand(2, 3, height, width, generator=numbers, dtype=torch.float64)
    return 0.5 + 0.02 * (image + image.roll(1, -1) - 1)


def test_an_image_has_numbers_of_its_own():
    first = image_noise(GRAYS, (5, 8), seed=0)
    assert first.shape == (4, 5, 8)
    assert first.dtype == GRAYS.dtype
    assert len({tuple(numbers.flatten().tolist()) for numbers in first}) == 4
    assert torch.equal(image_noise(GRAYS[[2, 1]], (5, 8), seed=0), first[[2, 1]])
    assert not torch.equal(image_noise(GRAYS, (5, 8), seed=1), first)
    assert image_noise(GRAYS.double(), (5, 8), seed=0).dtype == torch.float64


def test_a_last_bit_changes_nothing_and_a_level_everything():
    first = image_noise(GRAYS, (6,), seed=0)
    for off in (1 + 2e-7, 1 - 2e-7):
        assert torch.equal(image_noise(GRAYS * off, (6,), seed=0), first)
    other = GRAYS.clone()
    other[0, 2, -1, -1] += 1 / 255
    changed = image_noise(other, (6,), seed=0)
    assert (changed[0] != first[0]).all()
    assert torch.equal(changed[1:], first[1:])


@pytest.mark.slow
def test_another_process_draws_the_same():
    code = (
        "import torch; from tff.ablations.noise import image_noise; torch.manual_seed(5);"
        "print(image_noise(torch.full((1, 3, 4, 4), 0.2), (3,), 7).tolist())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(image_noise(torch.full((1, 3, 4, 4), 0.2), (3,), 7).tolist())


def test_noise_is_normal_white_and_as_strong_as_asked():
    for sigma in (2, 16):
        noise = (Noise(sigma)(GRAYS) - GRAYS) * 255 / sigma
        count = noise[0].numel()
        assert (noise.std(dim=(1, 2, 3)) - 1).abs().max() < 4 / (2 * count) ** 0.5
        assert noise.mean(dim=(1, 2, 3)).abs().max() < 4 / count**0.5
        assert ((noise.abs() < 1).float().mean() - 0.6827).abs() < 0.01
        pairs = [(noise[:, 0], noise[:, 1]), (noise[:, 1], noise[:, 2]), (noise[0], noise[1])]
        pairs += [(noise[..., 1:], noise[..., :-1]), (noise[..., 1:, :], noise[..., :-1, :])]
        for one, other in pairs:
            assert (one * other).mean().abs() < 4 / one.numel() ** 0.5


def test_noise_of_another_strength_is_the_same_draw():
    weak, strong = (Noise(sigma)(GRAYS) - GRAYS for sigma in (2, 4))
    torch.testing.assert_close(strong, 2 * weak, rtol=0, atol=1e-6)
    assert not torch.equal(Noise(2, seed=1)(GRAYS) - GRAYS, weak)
    drawn = image_noise(GRAYS, (3, 64, 96), seed=0)
    torch.testing.assert_close(255 * weak, 2 * drawn, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("strength", [0.3, 0.5, 0.7, 1])
def test_amplitudes_and_relations_of_channels_stay(size, strength):
    image = faint(*size)
    before, after = (torch.fft.fft2(x) for x in (image, Phase(strength)(image)))
    torch.testing.assert_close(after.abs(), before.abs(), rtol=0, atol=1e-9)
    for one, other in ((0, 1), (1, 2)):
        torch.testing.assert_close(
            after[:, one] * after[:, other].conj(),
            before[:, one] * before[:, other].conj(),
            rtol=0, atol=1e-9,
        )  # fmt: skip
    torch.testing.assert_close(after[..., 0, 0], before[..., 0, 0])


@pytest.mark.parametrize("strength", [0, 0.25, 0.5, 1])
def test_angles_are_uniform_as_far_as_the_strength_goes(strength):
    image = faint(48, 64)
    before, after = (torch.fft.rfft2(x)[..., 1:-1] for x in (image, Phase(strength)(image)))
    angle = (after / before).angle().abs() / torch.pi
    assert angle.max() <= strength + 1e-6
    assert abs(angle.mean() - strength / 2) < 0.02
    if strength:
        assert angle.max() > 0.99 * strength
        assert abs(((after / before).angle() > 0).double().mean() - 0.5) < 0.04
    else:
        torch.testing.assert_close(Phase(0)(image), image, rtol=0, atol=1e-12)


def test_structure_is_gone_and_each_image_has_a_scramble_of_its_own():
    image = faint(64, 64)
    result = Phase()(image)
    for before, after in zip(image[:, 0], result[:, 0], strict=True):
        assert torch.corrcoef(torch.stack([before.flatten(), after.flatten()]))[0, 1].abs() < 0.1
    turns = torch.fft.rfft2(result)[:, 0] / torch.fft.rfft2(image)[:, 0]
    assert (turns[0] - turns[1]).abs().mean() > 0.5
    assert not torch.equal(Phase(seed=1)(image), result)


def test_the_finest_checkerboard_may_change_sides():
    """Up-samplers leave it; being its own opposite frequency, it can only change its sign."""
    board = (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8))
    faint_boards = 0.5 + 0.01 * torch.arange(1, 33).reshape(-1, 1, 1, 1) * board / 32
    image = faint_boards.expand(-1, 3, 8, 8)
    same = torch.isclose(Phase()(image), image, atol=1e-5).all((1, 2, 3))
    other = torch.isclose(Phase()(image), 1 - image, atol=1e-5).all((1, 2, 3))
    assert (same | other).all()
    assert 4 <= int(other.sum()) <= 28
    assert torch.isclose(Phase(0.5)(image), image, atol=1e-5).all()
