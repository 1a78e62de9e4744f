"""Filters: what they keep is unchanged, what they take is gone, borders show no edge."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

from tff.ablations.frequency import Bandstop, Blur, Highpass, Lowpass, apply_gain

SIZES = [(40, 40), (33, 20), (1, 31), (18, 1)]


def noise(height, width, spread=0.05):
    """Far enough from 0 and 1 that nothing is cut off."""
    numbers = np.random.default_rng(height + width).normal(0.5, spread, (2, 3, height, width))
    return torch.from_numpy(numbers.clip(0.25, 0.75))


def radius(height, width):
    rows, columns = (np.arange(side) / (2 * side) for side in (height, width))
    return np.hypot(rows[:, None], columns)


FILTERS = [
    (Lowpass(0.2), lambda f: f <= 0.2),
    (Highpass(0.2), lambda f: (f > 0.2) | (f == 0)),
    (Bandstop(0.1, 0.3), lambda f: (f <= 0.1) | (f > 0.3)),
    (Lowpass(0.25), lambda f: f <= 0.25),
    (Bandstop(0.1, 0.25), lambda f: (f <= 0.1) | (f > 0.25)),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("cue", "kept"), FILTERS)
def test_frequencies_are_kept_or_gone(cue, kept, size):
    image = noise(*size)
    before, after = (dctn(x.numpy(), axes=(-2, -1), norm="ortho") for x in (image, cue(image)))
    stays = kept(radius(*size))
    assert stays.any()
    assert not stays.all()
    np.testing.assert_allclose(after[..., stays], before[..., stays], atol=1e-10)
    np.testing.assert_allclose(after[..., ~stays], 0, atol=1e-10)


def test_float32_is_as_good_as_float32_can_be():
    image = noise(224, 224)
    for cue, _ in FILTERS:
        torch.testing.assert_close(cue(image.float()).double(), cue(image), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("cue", "gone"),
    [
        (Lowpass(0.2), lambda f: f > 0.22),
        (Highpass(0.2), lambda f: (f > 0.04) & (f < 0.18)),
        (Bandstop(0.1, 0.3), lambda f: (f > 0.12) & (f < 0.28)),
    ],
)
def test_no_energy_in_the_interior_by_a_windowed_fft(cue, gone):
    """Not through the cosine transform: Fourier transform of a part that fades out."""
    side, off = 128, 16
    window = np.outer(*2 * [np.blackman(side)])
    rows, columns = np.fft.fftfreq(side), np.fft.rfftfreq(side)
    where = gone(np.hypot(rows[:, None], columns))
    image = noise(side + 2 * off, side + 2 * off)

    def energy(x):
        part = x.numpy()[..., off : off + side, off : off + side]
        spectrum = np.fft.rfft2((part - 0.5) * window)
        return (np.abs(spectrum[..., where]) ** 2).sum()

    assert energy(cue(image)) < 1e-3 * energy(image)


def test_mean_of_each_channel_stays():
    image = noise(30, 21) + torch.tensor([-0.2, 0.0, 0.2])[:, None, None]
    for cue in (Lowpass(), Highpass(), Bandstop(), Blur()):
        torch.testing.assert_close(
            cue(image).mean((-2, -1)), image.mean((-2, -1)), rtol=0, atol=1e-10
        )


def test_defaults_divide_the_spectrum():
    image = noise(48, 36)
    taken = sum(image - cue(image) for cue in (Lowpass(), Highpass(), Bandstop()))
    expected = image - image.mean((-2, -1), keepdim=True)
    torch.testing.assert_close(taken, expected, rtol=0, atol=1e-10)


def test_opposite_borders_do_not_meet():
    ramp = torch.linspace(0.2, 0.8, 64).double().expand(1, 3, 64, 64)
    assert (Lowpass(0.1)(ramp) - ramp).abs().max() < 0.01
    spectrum = torch.fft.fft2(ramp)
    outside = torch.from_numpy(np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(64)])) > 0.1)
    periodic = torch.fft.ifft2(spectrum.masked_fill(outside, 0)).real
    assert (periodic - ramp).abs().max() > 0.1  # what would be seen otherwise


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sigma", [1.2, 3, 10])
def test_blur_is_that_of_scipy(size, sigma):
    image = noise(*size, spread=0.3)
    expected = gaussian_filter(image.numpy(), (0, 0, sigma, sigma), truncate=8)
    off = 2 * np.exp(-2 * (np.pi * sigma / 2) ** 2) + 1e-12  # SciPy samples the Gaussian, aliased
    torch.testing.assert_close(Blur(sigma)(image), torch.from_numpy(expected), rtol=0, atol=off)


def test_blur_of_a_wave():
    at = torch.arange(50).double() + 0.5
    wave = 0.4 * torch.cos(np.pi * at * 20 / 50)  # 0.2 cycles per pixel
    image = (0.5 + wave).expand(1, 3, 9, 50)
    gain = np.exp(-2 * (np.pi * 1.5 * 0.2) ** 2)
    torch.testing.assert_close(Blur(1.5)(image), (0.5 + gain * wave).expand(1, 3, 9, 50))


def test_each_gain_is_asked_for_each_frequency():
    asked = []
    image = noise(6, 5)
    same = apply_gain(image, lambda f: asked.append(f) or torch.ones_like(f))
    torch.testing.assert_close(same, image, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(asked[0].numpy(), radius(6, 5))
