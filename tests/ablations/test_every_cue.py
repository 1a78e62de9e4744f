"""What holds for each cue, found by its YAML."""

import dataclasses
import functools
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from tff.data.synthetic.photographs import load_embedded

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "ablation").iterdir())
SIZES = [(1, 1), (1, 2), (2, 1), (1, 9), (7, 1), (2, 2), (5, 3), (8, 16), (33, 20)]
ROUNDING = 1e-6  # 255 times less than a level, and more than float32 loses


@functools.cache
def made(name, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose("analyze", [f"ablation={name}", "ckpt=x", *overrides]).ablation)


@pytest.fixture(scope="module")
def photographs():
    """(3, 3, 48, 56) from the middle of three photographs."""
    chosen = [p for split in load_embedded().values() for p in split][:3]
    crops = []
    for photograph in chosen:
        top, left = (side // 2 for side in photograph.pixels.shape[:2])
        crops.append(torch.from_numpy(photograph.pixels[top : top + 48, left : left + 56].copy()))
    return torch.stack(crops).permute(0, 3, 1, 2).contiguous() / 255


@pytest.mark.parametrize("name", NAMES)
def test_yaml_names_each_option_with_its_default(name):
    cue = made(name)
    text = (CONF / "ablation" / f"{name}.yaml").read_text()
    keys = {line.split(":")[0] for line in text.splitlines()}
    assert keys == {"_target_"} | {field.name for field in dataclasses.fields(cue)}
    assert cue == type(cue)()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_and_range(name, dtype):
    cue = made(name)
    numbers = torch.Generator().manual_seed(0)
    for height, width in SIZES:
        image = torch.randint(0, 256, (7, 3, height, width), generator=numbers).to(dtype) / 255
        image[1], image[2] = 0, 1
        image[3:5] = image[3:5].round()  # corners of the cube of colors
        image[5, 0], image[5, 1:] = 1, 0
        result = cue(image)
        assert result.shape == image.shape
        assert result.dtype == dtype
        assert result.device == image.device
        assert result.isfinite().all()
        assert result.min() >= 0
        assert result.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_the_same_in_any_company(name, photographs):
    cue = made(name)
    together = cue(photographs)
    for index, image in enumerate(photographs):
        torch.testing.assert_close(cue(image[None])[0], together[index], rtol=0, atol=ROUNDING)
    again = cue(photographs[[2, 0, 0, 1, 2]])
    torch.testing.assert_close(again, together[[2, 0, 0, 1, 2]], rtol=0, atol=ROUNDING)
    channels_last = photographs.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(cue(channels_last), together, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(
        cue(photographs.double()), together.double(), rtol=0, atol=10 * ROUNDING
    )


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_to_chance(name, photographs):
    cue = made(name)
    torch.manual_seed(0)
    first, state = cue(photographs), torch.random.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(cue(photographs), first)
    torch.manual_seed(0)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", NAMES)
def test_image_is_untouched_and_something_is_taken(name, photographs):
    kept = photographs.clone()
    result = made(name)(photographs)
    assert torch.equal(photographs, kept)
    assert ((result - kept).abs().amax(dim=(1, 2, 3)) > 1 / 255).all()


@pytest.mark.parametrize("name", NAMES)
def test_works_where_passes_call_it(name, photographs):
    with torch.inference_mode():
        image = photographs.contiguous(memory_format=torch.channels_last)
        result = made(name)(image)
    torch.testing.assert_close(result.clone(), made(name)(photographs), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", NAMES)
def test_equal_cues_share_a_pass_and_others_do_not(name):
    cue = made(name)
    again = made.__wrapped__(name)
    assert again is not cue
    assert {cue: 1}[again] == 1
    for field in dataclasses.fields(cue):
        value = getattr(cue, field.name)
        if not isinstance(value, str):
            other = value + 1 if field.name in ("quality", "seed") else value / 2
            assert dataclasses.replace(cue, **{field.name: other}) != cue
    with pytest.raises(dataclasses.FrozenInstanceError):
        cue.cue = "other"


def test_each_cue_has_a_name_of_its_own():
    cues = [made(name).cue for name in NAMES]
    assert len(set(cues)) == len(cues)
    for cue in cues:
        assert 1 <= len(cue.split()) <= 3, cue
        assert not cue.startswith(("the ", "a ", "no ")), cue


def test_options_can_be_given_on_the_command_line():
    assert made("jpeg", "ablation.subsampling=4:2:2", "ablation.quality=9").subsampling == "4:2:2"
    assert made("hue", "ablation.mode=turn", "ablation.angle=-90").angle == -90
