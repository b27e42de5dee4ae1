import os

import numpy as np
import pytest

from jaxdiff import files
from jaxdiff.errors import UserError


def save(path, values):
    files.write_whole(path, lambda file: np.savez(file, x=np.arange(values)))


def test_a_file_is_whole_or_as_it_was(tmp_path, room):
    save(tmp_path / "a.npz", 5)
    room(1000)
    for name in ("a.npz", "b.npz"):
        with pytest.raises(OSError, match="File too large"):
            save(tmp_path / name, 5000)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    with np.load(tmp_path / "a.npz") as arrays:
        assert len(arrays["x"]) == 5


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    files.write_whole(tmp_path / "pipe", lambda file: file.write(b"through"))
    assert os.read(reader, 20) == b"through"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_in_the_way_is_refused(tmp_path):
    (tmp_path / ".a.partial").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match=r"is a link to .*victim"):
        save(tmp_path / "a", 5)
    assert not (tmp_path / "victim").exists()


def test_every_changed_byte_of_a_sealed_document_is_seen(tmp_path):
    path = tmp_path / "document.json"
    files.write_sealed(path, {"a": [1, 2], "b": {"c": None}})
    assert files.read_sealed(path) == {"a": [1, 2], "b": {"c": None}}
    content = path.read_bytes()
    for where in range(len(content)):
        changed = bytearray(content)
        changed[where] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ValueError):  # noqa: PT011
            files.read_sealed(path)
