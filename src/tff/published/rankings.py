"""Rankings of channels: the published ones, and files in the published format and in ours."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from tff.detectors.detector import Detector
from tff.detectors.state_dicts import translate_efficientnet
from tff.foreign_files import read_file
from tff.published.tables import FOLDER
from tff.types import Channels, Floats

_LIMIT = 1 << 27  # bytes of a file


class _Known(NamedTuple):
    """An architecture with a published ranking, and what identifies it besides its feature maps."""

    name: str
    title: str
    parameters: int  # with one logit; squeeze-excite in a ResNet would add some
    eps: float  # of BatchNorm: timm's other EfficientNet-B0 has 1e-5, and other padding


_ARCHITECTURES = (
    _Known("resnet50", "ResNet-50", 23_510_081, 1e-5),
    _Known("efficientnet_b0", "EfficientNet-B0", 4_008_829, 1e-3),
)
#: Name -> usual spelling.
TITLES = {known.name: known.title for known in _ARCHITECTURES}


def recognize_architecture(detector: Detector) -> str | None:
    """`resnet50` or `efficientnet_b0` (as the authors trained it), None for any other network.

    Recognized by names and widths of the feature maps, number of parameters, and BatchNorm's eps.
    """
    parameters = sum(parameter.numel() for parameter in detector.network.parameters())
    eps = {m.eps for m in detector.network.modules() if isinstance(m, nn.BatchNorm2d)}
    for known in _ARCHITECTURES:
        if parameters == known.parameters and eps == {known.eps}:
            widths = load_ranking(known.name)["layer"].value_counts().to_dict()
            return known.name if dict(detector.channels.widths) == widths else None
    return None


@cache
def load_ranking(name: str) -> pd.DataFrame:
    """The authors' ranking on generated images: `layer` (our name), `channel`, `omega` (float64).

    One row per channel in the order of their file, best first.
    """
    table = pd.read_parquet(FOLDER / f"omega_{name}.parquet")
    layers = table["layer"].astype(str)
    if name == "efficientnet_b0":
        layers = translate_layers(layers, layers.map(layers.value_counts()))
    return table.assign(layer=layers)


def translate_layers(layers: pd.Series[str], widths: pd.Series[int]) -> pd.Series[str]:
    """Names of efficientnet_pytorch's convolutions -> timm's.

    timm numbers blocks within stages, and a stage is a run of blocks of equal width, so the
    convolutions of all blocks are needed.

    Args:
        layers: name of the layer, per row, in any order.
        widths: number of channels of that layer.
    """
    theirs = dict(zip(layers, widths, strict=True))
    # As checkpoints are translated.
    weights = {f"{layer}.weight": torch.zeros(int(width)) for layer, width in theirs.items()}
    ours = (name.removesuffix(".weight") for name in translate_efficientnet(weights))
    return layers.map(dict(zip(theirs, ours, strict=True)))


_KEY = r"^(?P<layer>.+)\.#(?P<channel>\d+)\(T=(?P<width>\d+)\)$"
_EXPECTED = (
    "expected the columns layer,channel,omega (ranking.csv of a report) or key,mean_relevance "
    "with keys such as layer1.0.conv1.#63(T=64)"
)


def published_omega(name: str, channels: Channels) -> Floats:
    """The authors' omega on generated images, (n_channels,) in the order of our channels.

    `name` is an architecture, see `recognize_architecture`; the channels are of a detector of it.
    """
    return _in_order(load_ranking(name), channels, Path(f"published ranking of {name}"))


def to_published_format(omega: Floats, channels: Channels) -> pd.DataFrame:
    """Omega (n_channels,) in the authors' format, largest first, ties in network order.

    Columns are `key`, such as `layer1.0.conv1.#63(T=64)`, and `mean_relevance`.
    """
    table = channels.table()
    width = table["layer"].map(channels.widths)
    keys = table["layer"] + ".#" + table["channel"].astype(str) + "(T=" + width.astype(str) + ")"
    order = np.argsort(-omega, kind="stable")
    return pd.DataFrame({"key": keys, "mean_relevance": omega}).iloc[order].reset_index(drop=True)


def read_omega(path: Path | str, channels: Channels) -> Floats:
    """Omega from a file, (n_channels,) in the order of our channels.

    Args:
        path: CSV file in either format, rows in any order.
        channels: numbering; the file must rank all of them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format, or other channels; the message names the line.
    """
    path = Path(path)
    try:
        # Bytes, since pandas would decompress files whose names end with `.zip` or `.gz`.
        content = BytesIO(read_file(path, _LIMIT))
        table = pd.read_csv(content, dtype=str, keep_default_na=False)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"ranking {path}: no such file; {_EXPECTED}") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"ranking {path}: not a CSV file ({error}); {_EXPECTED}") from error
    if {"layer", "channel", "omega"} <= set(table):
        ours = table[["layer", "channel", "omega"]]
    elif {"key", "mean_relevance"} <= set(table):
        ours = table["key"].str.extract(_KEY).assign(omega=table["mean_relevance"])
        odd = ours["layer"].isna()
        _refuse(odd, path, table["key"], "key {}: expected LAYER.#CHANNEL(T=WIDTH)")
    else:
        found = ", ".join(map(str, table)) or "nothing"
        raise ValueError(f"ranking {path}: has the columns {found}; {_EXPECTED}")
    wrong = ~ours["channel"].str.fullmatch(r"\d{1,9}")
    _refuse(wrong, path, ours["channel"], "channel {}: expected a whole number from 0")
    omega = pd.to_numeric(ours["omega"], errors="coerce").astype(np.float64)
    wrong = ~omega.between(0, np.finfo(np.float64).max)  # neither NaN nor infinite
    _refuse(wrong, path, ours["omega"], "omega {}: expected a finite number, 0 or more")
    table = ours.assign(channel=ours["channel"].astype(np.int64), omega=omega)
    if "_conv_stem" in set(table["layer"]):  # efficientnet_pytorch's names
        count = table["layer"].map(table["layer"].value_counts())
        widths = table["width"].astype(np.int64) if "width" in table else count
        table["layer"] = translate_layers(table["layer"], widths)
    return _in_order(table, channels, path)


def _in_order(table: pd.DataFrame, channels: Channels, path: Path) -> Floats:
    """Omega in the order of the channels; the table must have each of them once."""
    widths = table["layer"].map(channels.widths).astype(np.float64)  # NaN: unknown
    names = ", ".join([*channels.layers[:3], "...", channels.layers[-1]])
    unknown = widths.isna()
    _refuse(unknown, path, table["layer"], f"unknown layer {{}}; the network has {names}")
    if "width" in table:
        shown = table["layer"] + " of width " + table["width"]
        differs = table["width"] != widths.astype(int).astype(str)
        _refuse(differs, path, shown, "{}: the layer has another width")
    named = table["layer"] + " #" + table["channel"].astype(str)
    _refuse(table["channel"] >= widths, path, named, "{}: the layer has fewer channels")
    _refuse(table.duplicated(["layer", "channel"]), path, named, "{} is listed twice")
    if len(table) != len(channels):
        raise ValueError(
            f"ranking {path}: has {len(table):,} of the network's {len(channels):,} channels; "
            "rankings can be compared only if both rank all channels"
        )
    omega = np.empty(len(channels))
    starts = table["layer"].map(channels.starts).to_numpy(np.int64)
    omega[starts + table["channel"].to_numpy(np.int64)] = table["omega"].to_numpy(np.float64)
    return omega


def _refuse(wrong: pd.Series[bool], path: Path, values: pd.Series[str], message: str) -> None:
    """Raise an error for the first wrong row; line 1 is the header."""
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        problem = message.format(repr(str(values.iloc[row])))
        raise ValueError(f"ranking {path}, line {row + 2}: {problem}")
