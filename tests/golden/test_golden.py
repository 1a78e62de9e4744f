"""The engine and the interventions against the authors' released code."""

from __future__ import annotations

import numpy as np
import torch
from tests.helpers import golden_formula as formula
from tests.helpers.golden_cases import difference, distance

from tff.detectors.hooks import drop_channels, record_responses


def test_network_is_the_one_of_the_file(case):
    assert formula.checksum(case.network) == case.meta["weights_crc32"]


def test_double_precision(case):
    found, n = case.double, case.meta["n"]
    assert difference(found.logit[:n], case.file["logits"][:, 0]) <= 1e-11
    assert difference(found.shares[:n], case.golden("P")) <= 1e-10
    assert difference(found.shares[:n].mean(0), case.golden("P").mean(0)) <= 1e-10
    if "pixel0" in case.file:
        assert distance(found.pixels[0], case.file["pixel0"]) <= 1e-10


def test_other_sign(case):
    assert difference(case.double.shares[-1], case.golden("P_minus0")) <= 1e-10
    assert difference(case.double.shares[-1], case.double.shares[0].numpy()) > 1e-3
    torch.testing.assert_close(case.double.pixels[-1], -case.double.pixels[0])


def test_dead_layer_has_no_relevance(case):
    dead = np.isnan(case.file["P"])
    assert dead.any() == (case.name == "dead_layer")
    assert (case.double.shares[: case.meta["n"]].numpy()[dead] == 0).all()


def test_dropped_channels(case):
    detector, images = case.detector, case.images.double()
    with torch.no_grad(), drop_channels(detector, case.masked):
        logits = detector(images)
    assert difference(logits, case.file["logits_mask"][:, 0]) <= 1e-11
    with torch.no_grad():
        assert difference(detector(images), case.file["logits"][:, 0]) <= 1e-11


def test_recorded_maxima(case):
    detector, image = case.detector, case.images[:1].double()
    channels = torch.randperm(len(detector.channels), generator=torch.manual_seed(0))
    with torch.no_grad(), record_responses(detector, channels) as responses:
        logit = detector(image)[0]
    assert difference(logit, case.file["logits"][0, 0]) <= 1e-11
    assert difference(responses.select(channels)[0], case.file["maxact0"][channels]) <= 1e-11


def test_single_precision(case):
    found, n, golden = case.explain(torch.float32), case.meta["n"], case.golden("P")
    shares, omega = found.shares[:n].numpy(), golden.mean(0)
    mean = shares.astype(np.float64).mean(0)
    assert difference(found.logit[:n], case.file["logits"][:, 0]) <= 1e-4
    assert difference(shares, golden) <= 1e-3
    assert difference(mean, omega) <= 5e-5
    assert distance(mean, omega) <= 2e-4
    top = omega.argsort()[::-1][:114]
    assert (np.abs(mean - omega)[top] / omega[top]).max() <= 2e-4
    ends = np.cumsum(case.file["channels"])[:-1]
    layers = zip(np.split(shares, ends, axis=1), np.split(golden, ends, axis=1), strict=True)
    errors = np.concatenate([distance(a, b, axis=1) for a, b in layers])
    assert np.median(errors) <= 1e-5
    assert np.quantile(errors, 0.99) <= 1e-3
    if "pixel0" in case.file:
        assert distance(found.pixels[0], case.file["pixel0"]) <= 1e-3
