"""Batches shrink when memory runs out; no image is counted twice or lost."""

import logging

import pytest
import torch
from tests.helpers import tiny

from tff.analyses.engine.passes import SplitWhenOutOfMemory
from tff.detectors.detector import Detector
from tff.types import Batch


def batch(n, start=0):
    index = torch.arange(start, start + n)
    return Batch(torch.rand(n, 3, 4, 4), index % 2, index)


def out_of(kind):
    return {
        "gpu": torch.OutOfMemoryError("CUDA out of memory"),
        "python": MemoryError(),
        "cpu": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        "cuda": RuntimeError("CUDA error: out of memory"),
        "cublas": RuntimeError(
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"
        ),
        "cudnn": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        "cudnn 9": RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    }[kind]


@pytest.mark.parametrize("kind", ["gpu", "python", "cpu", "cuda", "cublas", "cudnn", "cudnn 9"])
@pytest.mark.parametrize("room", [1, 2, 3, 5, 8, 100])
def test_each_image_once_in_order(kind, room, caplog):
    asked = []

    def work(part):
        asked.append(len(part.label))
        if len(part.label) > room:
            raise out_of(kind)
        return part.image.sum((1, 2, 3))

    fitting = SplitWhenOutOfMemory(work, "logits")
    whole = [batch(8), batch(8, 8), batch(3, 16)]
    with caplog.at_level(logging.WARNING):
        found = [pair for one in whole for pair in fitting(one)]
    assert torch.cat([part.index for part, _ in found]).tolist() == list(range(19))
    values = torch.cat([value for _, value in found])
    torch.testing.assert_close(values, torch.cat([one.image.sum((1, 2, 3)) for one in whole]))
    assert all(len(part.label) <= room for part, _ in found)
    # What did not fit is not tried again.
    failed = [size for size in asked if size > room]
    assert len(failed) == len(set(failed))
    assert len(caplog.records) == len(failed)
    assert all("subject.batch_size=" in record.getMessage() for record in caplog.records)


def test_a_single_image_that_does_not_fit_is_an_error():
    def work(part):
        raise out_of("gpu")

    with pytest.raises(torch.OutOfMemoryError):
        list(SplitWhenOutOfMemory(work, "logits")(batch(4)))


@pytest.mark.parametrize("text", ["shapes do not match", "CUDNN_STATUS_EXECUTION_FAILED"])
def test_other_errors_are_not_of_memory(text):
    calls = []

    def work(part):
        calls.append(1)
        raise RuntimeError(text)

    with pytest.raises(RuntimeError, match=text):
        list(SplitWhenOutOfMemory(work, "logits")(batch(4)))
    assert len(calls) == 1


def test_an_analysis_goes_on_in_smaller_batches(tmp_path, monkeypatch):
    root = tiny.tree(tmp_path, images=7, size=24)
    plain = tiny.subject(root, batch_size=16)
    wanted = plain.evaluate(responses=True), plain.relevance, plain.activity
    forward = Detector.forward

    def short(self, image):
        if len(image) > 3:
            raise out_of("gpu")
        return forward(self, image)

    monkeypatch.setattr(Detector, "forward", short)
    subject = tiny.subject(root, batch_size=16)
    found = subject.evaluate(responses=True)
    assert found.logits == pytest.approx(wanted[0].logits, rel=1e-5, abs=1e-5)
    assert found.sample == pytest.approx(wanted[0].sample, rel=1e-5, abs=1e-5)
    assert subject.activity.effect == pytest.approx(wanted[2].effect, rel=1e-4, abs=1e-9)
    top = {"a": plain.ranking[:2]}
    dropped = subject.evaluate_without_channels(top)["a"]
    monkeypatch.undo()
    assert dropped == pytest.approx(plain.evaluate_without_channels(top)["a"], rel=1e-5, abs=1e-5)
