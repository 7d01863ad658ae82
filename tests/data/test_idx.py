import struct
from pathlib import Path

import numpy as np
import pytest

from vae_cli.data.idx import read_idx


def idx(*shape: int, body: bytes, magic: bytes = b"\0\0\x08") -> bytes:
    return magic + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + body


@pytest.mark.parametrize("shape", [(6,), (3, 2), (1, 2, 3)])
def test_bytes_come_back_in_their_shape(tmp_path: Path, shape: tuple[int, ...]):
    (tmp_path / "a").write_bytes(idx(*shape, body=bytes(range(250, 256))))
    values = read_idx(tmp_path / "a")
    assert values.dtype == np.uint8
    assert values.flags.writeable  # torch.from_numpy warns of others
    np.testing.assert_array_equal(values, np.arange(250, 256).reshape(shape))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "starts with nothing"),
        (b"\0\0\x08", "not an idx file"),
        (b"\x1f\x8b\x08\x00" + bytes(20), "starts with 1f8b0800"),
        (idx(2, body=b"ab", magic=b"\0\0\x0d"), "not an idx file of bytes"),
        (idx(2, body=b"ab", magic=b"\1\0\x08"), "not an idx file"),
        (idx(body=b"a"), "declares 0 axes"),
        (b"\0\0\x08\xff" + bytes(4 * 255), "declares 255 axes"),
        (b"\0\0\x08\x03" + bytes(8), "ends within the header"),
        (idx(0, 2**32 - 1, body=b""), "empty axis"),
        (idx(3, 2, body=b"12345"), r"17 bytes long, its header \(3, 2\) says 18"),
        (idx(3, 2, body=b"1234567"), r"19 bytes long, its header \(3, 2\) says 18"),
        # 2**128 bytes: neither allocated nor wrapped around to a small number
        (idx(*[2**32 - 1] * 4, body=b"x"), "21 bytes long, its header"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: bytes, problem: str):
    (tmp_path / "train-labels").write_bytes(content)
    with pytest.raises(ValueError, match=problem) as caught:
        read_idx(tmp_path / "train-labels")
    assert str(tmp_path / "train-labels") in str(caught.value)
