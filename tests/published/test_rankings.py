import numpy as np
import pandas as pd
import pytest

from tff.published.rankings import published_omega, read_omega, to_published_format
from tff.published.tables import FOLDER
from tff.types import Channels

CHANNELS = Channels({"conv1": 3, "layer1.0.conv1": 4})
OMEGA = np.array([0.1, 0.30000000000000004, 0.0, 1e-9, 0.25, 0.0, 0.7])


def ours():
    return CHANNELS.table().assign(omega=OMEGA)


def written(tmp_path, table):
    path = tmp_path / "other.csv"
    table.to_csv(path, index=False)
    return path


def test_both_formats_in_any_order(tmp_path):
    for table in (ours(), to_published_format(OMEGA, CHANNELS)):
        mixed = table.sample(frac=1, random_state=3)
        np.testing.assert_array_equal(read_omega(written(tmp_path, mixed), CHANNELS), OMEGA)


def test_more_columns_do_no_harm(tmp_path):
    table = ours().assign(rank=1, weights="=x, y", images=3)
    np.testing.assert_array_equal(read_omega(written(tmp_path, table), CHANNELS), OMEGA)


def test_authors_file_in_their_names(tmp_path):
    from tff.detectors.timm_models import efficientnet_b0

    channels = efficientnet_b0(False).channels
    theirs = pd.read_parquet(FOLDER / "omega_efficientnet_b0.parquet")
    widths = theirs["layer"].map(theirs["layer"].value_counts())
    keys = theirs["layer"] + ".#" + theirs["channel"].astype(str) + "(T=" + widths.astype(str) + ")"
    table = pd.DataFrame({"key": keys, "mean_relevance": theirs["omega"]})
    read = read_omega(written(tmp_path, table), channels)
    np.testing.assert_array_equal(read, published_omega("efficientnet_b0", channels))
    with pytest.raises(ValueError, match=r"has 21,007 of the network's 21,008 channels"):
        read_omega(written(tmp_path, table.iloc[1:]), channels)
    # The paper's strongest channel: number 2 of the first depthwise convolution.
    assert int(read.argmax()) == channels.flat_index("blocks.0.0.conv_dw", 2)
    assert read.max() == theirs["omega"].max() == theirs["omega"].iloc[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="omega"), "columns layer, channel; expected the columns layer"),
        (lambda t: t.iloc[:0], "has 0 of the network's 7"),
        (lambda t: t.iloc[1:], "has 6 of the network's 7 channels"),
        (lambda t: pd.concat([t, t.tail(1)]), r"line 9: 'layer1.0.conv1 #3' is listed twice"),
        (lambda t: t.assign(omega=t["omega"].where(t.index != 2)), "line 4: omega '': expected"),
        (lambda t: t.assign(omega=t["omega"].where(t.index != 2, -1.0)), "line 4: omega '-1.0'"),
        (lambda t: t.assign(omega=t["omega"].where(t.index != 1, np.inf)), "line 3: omega 'inf'"),
        (lambda t: t.assign(omega="x"), "line 2: omega 'x': expected a finite number"),
        (lambda t: t.assign(channel=t["channel"] + 0.5), "line 2: channel '0.5': expected a whole"),
        (lambda t: t.assign(channel=t["channel"] + 3), "line 2: 'conv1 #3': the layer has fewer"),
        (lambda t: t.replace("conv1", "conv9"), "line 2: unknown layer 'conv9'; the network has"),
    ],
)
def test_odd_files_are_refused(tmp_path, change, message):
    path = written(tmp_path, change(ours()))
    with pytest.raises(ValueError, match=message) as error:
        read_omega(path, CHANNELS)
    assert str(path) in str(error.value)


def test_odd_keys_are_refused(tmp_path):
    table = to_published_format(OMEGA, CHANNELS)
    table.loc[4, "key"] = "conv1#2"
    with pytest.raises(ValueError, match=r"line 6: key 'conv1#2': expected LAYER.#CHANNEL"):
        read_omega(written(tmp_path, table), CHANNELS)


def test_a_key_of_another_width_is_refused(tmp_path):
    table = to_published_format(OMEGA, CHANNELS)
    table["key"] = table["key"].str.replace("T=4", "T=5")
    with pytest.raises(ValueError, match=r"line 2: .*: the layer has another width"):
        read_omega(written(tmp_path, table), CHANNELS)


def test_what_is_no_table(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.csv: no such file; expected"):
        read_omega(tmp_path / "nowhere.csv", CHANNELS)
    for content in (b"", b"\xff\xfe\x00\x01", b"a,b\n1,2\n1,2,3\n"):
        (tmp_path / "odd.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"odd.csv: (not a CSV file|has the columns)"):
            read_omega(tmp_path / "odd.csv", CHANNELS)
    (tmp_path / "short.csv").write_text("layer,channel,omega\nconv1,0,0.1\nconv1\n")
    with pytest.raises(ValueError, match="line 3: channel"):
        read_omega(tmp_path / "short.csv", CHANNELS)
