"""No reader of untrusted files unpickles them."""

from __future__ import annotations

import io
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tff import parquet
from tff.analyses.engine.replay import replay
from tff.data.dataset import read_bytes as read_image
from tff.data.image_file import decode
from tff.detectors.checkpoint import load
from tff.detectors.safe_load import read
from tff.detectors.timm_models import efficientnet_b0, timm_model
from tff.detectors.torchvision_models import torchvision_model
from tff.published.rankings import read_omega
from tff.safe_text import read_table
from tff.training.from_checkpoint import load_data
from tff.types import Channels


def zipped(path: Path, payload: Any) -> None:
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}, "extra": payload}, path)


def among_weights(path: Path, payload: Any) -> None:
    torch.save({"conv1.weight": torch.zeros(1), "conv1.bias": payload}, path)


def in_the_origin(path: Path, payload: Any) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "tff": {"data": payload}}, path)


def as_a_key(path: Path, payload: Any) -> None:
    torch.save({"state_dict": {payload: torch.zeros(1)}}, path)


def old(path: Path, payload: Any) -> None:
    content = {"model": {"conv1.weight": torch.zeros(1)}, "extra": payload}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def plain(path: Path, payload: Any) -> None:
    path.write_bytes(pickle.dumps({"model": {}, "extra": payload}, protocol=2))


def with_frames(path: Path, payload: Any) -> None:
    path.write_bytes(pickle.dumps({"model": {}, "extra": payload}, protocol=5))


def array(path: Path, payload: Any) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([payload], dtype=object), allow_pickle=True)


def arrays(path: Path, payload: Any) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=True, data=np.array([payload], dtype=object))


def tape(path: Path, payload: Any) -> None:
    """Format of torch 0.1: a tar of pickles."""
    with tarfile.open(path, "w") as file:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(payload)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))


def whole_module(path: Path, payload: Any) -> None:
    module = nn.Linear(1, 1)
    module.extra = payload
    torch.save(module, path)


FORMS = [
    zipped, among_weights, in_the_origin, as_a_key, old, plain, with_frames, array, arrays, tape,
    whole_module,
]  # fmt: skip

DOORS: dict[str, Callable[[Path], Any]] = {
    "load": load,
    "read": read,
    "data": lambda path: load_data(str(path)),
    "torchvision": lambda path: torchvision_model("resnet18", str(path)),
    "timm": lambda path: timm_model("resnet18", str(path)),
    "efficientnet": lambda path: efficientnet_b0(str(path)),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("name", ["evil.ckpt", "evil.safetensors"])
def test_no_form_of_checkpoint_runs_code(form, name, tmp_path, payload, witness):
    path = tmp_path / name
    form(path, payload)
    for door in (load, read):
        with pytest.raises(ValueError, match=rf"^checkpoint {re.escape(str(path))}: ") as caught:
            door(path)
        assert "weights_only=False" not in str(caught.value)  # no advice to disable the protection
    assert not witness.exists()


@pytest.mark.parametrize("door", DOORS)
def test_no_loader_of_weights_runs_code(door, tmp_path, payload, witness):
    path = tmp_path / "evil.pth"
    zipped(path, payload)
    with pytest.raises(ValueError, match=r"evil\.pth: refused, because .* could run code"):
        DOORS[door](path)
    assert not witness.exists()


def test_the_payload_runs_when_unpickled(tmp_path, payload):
    """Otherwise these tests would prove nothing."""
    payload.witness = tmp_path / "shown"
    pickle.loads(pickle.dumps(payload))
    assert payload.witness.exists()


def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "script.pt"
    torch.jit.script(nn.Linear(1, 1)).save(str(path))
    with pytest.raises(ValueError, match=r"script\.pt: is a TorchScript archive.*state_dict"):
        load(path)


OTHERS: dict[str, Callable[[Path], Any]] = {
    "ranking": lambda path: read_omega(path, Channels({"conv1": 1})),
    "table of a report": lambda path: read_table(path, ["generator"]),
    "kept pass": parquet.read,
    "subject": lambda path: replay(path, lambda *_: None),
    "image": lambda path: decode(read_image(str(path)), str(path)),
}


@pytest.mark.parametrize(
    "form", [plain, with_frames, array, arrays], ids=lambda form: form.__name__
)
@pytest.mark.parametrize("door", OTHERS)
def test_other_readers_do_not_unpickle(door, form, tmp_path, payload, witness):
    path = tmp_path / ("subject-0.json" if door == "subject" else "evil.csv")
    form(path, payload)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        OTHERS[door](path)
    assert not witness.exists()


def test_training_does_not_resume_from_a_pickle(tmp_path, payload, witness):
    """Lightning would unpickle a local file by default."""
    import pytorch_lightning as pl
    from torch.utils.data import DataLoader

    from tff.training.fit import fit

    class Module(pl.LightningModule):
        def training_step(self, batch, batch_idx):
            raise AssertionError("it went on")

        def configure_optimizers(self):
            return None

        def train_dataloader(self):
            return DataLoader(torch.zeros(2, 1))

    path = tmp_path / "evil.ckpt"
    zipped(path, payload)
    trainer = pl.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        fit(trainer, Module(), None, str(path))
    assert not witness.exists()


def test_arrow_extension_types_are_not_unpickled(tmp_path, payload, witness):
    """Older versions of Arrow unpickled this extension type."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    field = pa.field("x", pa.int64(), metadata={
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(payload),
    })  # fmt: skip
    table = pa.Table.from_arrays([pa.array([1])], schema=pa.schema([field]))
    pq.write_table(table, tmp_path / "evil.parquet")
    with (tmp_path / "evil.parquet").open("rb") as stream:
        found = parquet.read_columns(parquet.open_parquet(stream), None)
    assert found["x"].to_pylist() == [1]  # read as plain integers
    assert not witness.exists()
