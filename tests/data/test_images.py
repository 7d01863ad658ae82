"""Folders of images: what is found, how it is decoded, what is skipped, memory and disk alike."""

import multiprocessing
import shutil
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from vae_cli.console import RunFailed, UserError
from vae_cli.data import dataset, images
from vae_cli.data.images import Images, as_bytes, classes, find, square

SOURCE = np.random.default_rng(0)
QUARTERS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
WHITE = (255, 255, 255)


def quarters() -> Image.Image:
    """Red, green / blue, yellow."""
    return Image.fromarray(
        np.array(QUARTERS, np.uint8).reshape(2, 2, 3).repeat(20, 0).repeat(20, 1)
    )


def corners(path: Path, channels: int = 3) -> list[tuple[int, ...]]:
    """The colours in the middle of the four quarters."""
    x = square(str(path), 16, channels)
    assert (x.shape, x.dtype) == ((channels, 16, 16), torch.uint8)
    return [tuple(x[:, row, column].tolist()) for row in (4, 12) for column in (4, 12)]


def make_folder(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise = SOURCE.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i:04}.png")
    return folder


@pytest.mark.parametrize(
    "suffix", ["png", "jpg", "jfif", "jpe", "jfi", "bmp", "tif", "webp", "ppm", "gif"]
)
def test_formats_keep_colours_and_whatever_is_damaged_is_named(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    how = {"webp": {"lossless": True}, "jfi": {"format": "JPEG"}}
    quarters().save(path, **how.get(suffix, {}))
    assert np.abs(np.subtract(corners(path), QUARTERS)).max() <= 6
    assert np.abs(np.subtract(corners(path, 1), [(76,), (150,), (29,), (226,)])).max() <= 6
    content = np.frombuffer(path.read_bytes(), np.uint8)
    path.write_bytes(content[: len(content) // 2].tobytes())
    with pytest.raises(RunFailed, match=f"^{path} cannot be decoded: .+$"):
        square(str(path), 8, 3)
    for _ in range(40):
        broken = content.copy()
        where = SOURCE.integers(0, min(len(content), 200), 3)
        broken[where] = SOURCE.integers(0, 256, 3)
        path.write_bytes(broken.tobytes())
        with suppress(RunFailed):
            assert square(str(path), 8, 3).shape == (3, 8, 8)


def test_an_image_is_cropped_in_the_middle_and_turned_as_its_exif_says(tmp_path):
    wide = Image.new("RGB", (120, 40), "white")
    wide.paste(quarters(), (40, 0))
    wide.save(tmp_path / "a.png")
    assert corners(tmp_path / "a.png") == QUARTERS
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = quarters().transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "a.jpg", exif=exif, quality=100)
    assert np.abs(np.subtract(corners(tmp_path / "a.jpg"), QUARTERS)).max() <= 6


def test_shrinking_is_antialiased(tmp_path):
    board = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (256, 256))
    Image.fromarray(board).save(tmp_path / "a.jpg", quality=100)
    assert (square(str(tmp_path / "a.jpg"), 16, 1) - 127.5).abs().max() < 4


def test_transparency_is_on_white_also_in_palettes_and_gifs_show_their_first_frame(tmp_path):
    half = quarters().convert("RGBA")
    half.paste((0, 0, 0, 0), (0, 0, 20, 40))
    half.save(tmp_path / "a.png")
    assert corners(tmp_path / "a.png") == [WHITE, QUARTERS[1], WHITE, QUARTERS[3]]
    half.convert("LA").save(tmp_path / "la.png")
    assert corners(tmp_path / "la.png", channels=1)[0] == (255,)
    palette = quarters().convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    assert corners(tmp_path / "p.png") == [WHITE, *QUARTERS[1:]]
    quarters().save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (40, 40))])
    assert corners(tmp_path / "a.gif") == QUARTERS


def test_more_than_eight_bits_become_256_levels(tmp_path):
    kinds = ((65535, np.uint16), (65535, np.int32), (1, np.float32), (255, np.float32))
    for white, dtype in kinds:
        row = np.linspace(0, white, 32).astype(dtype)
        Image.fromarray(row[None].repeat(32, 0)).save(tmp_path / "a.tif")
        read = as_bytes(square(str(tmp_path / "a.tif"), 32, 1), 1, white)[0, 0].numpy()
        assert np.abs(read - np.linspace(0, 255, 32)).max() <= 1


def test_what_is_found_is_sorted_and_hidden_files_are_not(tmp_path):
    for name in ("b/2.PNG", "b/10.jpeg", "a.png", ".git/y.png", "c/no.txt", "ä ö/[é].png"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).touch()
    make_folder(tmp_path / "elsewhere", 1)
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    expected = ["a.png", "b/10.jpeg", "b/2.PNG", "link/0000.png", "ä ö/[é].png"]
    assert find(tmp_path / "root") == expected
    assert classes(expected) == (None, ())
    assert classes(["cat/a.png", "cat/x/b.png"]) == (None, ())


def test_a_stray_image_beside_the_folders_of_classes_is_said(tmp_path, load, capsys):
    assert classes(["cat/1.png", "dog/1.png", "cover.png", "x.png"]) == (None, ())
    line = "no labels, because of 2 images outside of folders, such as cover.png"
    assert line in capsys.readouterr().err
    for part in ("train/cat", "train/dog", "test/cat", "test/dog"):
        make_folder(tmp_path / part, 3)
    (tmp_path / "stray.png").write_bytes((tmp_path / "test/cat/0000.png").read_bytes())
    data = load("image_folder", path=str(tmp_path), size=4)  # left out, it leaves the labels alone
    assert data.class_names == ("cat", "dog")
    assert "left out 1 image beside train/" in capsys.readouterr().err


def test_files_that_are_no_image_are_counted_unless_they_often_lie_beside(tmp_path, capsys):
    make_folder(tmp_path, 2)
    names = ["a.heic", "b.HEIC", "c.raw", "photo", "l.txt", "m.json", ".DS_Store", "Thumbs.db"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "folder.heic").mkdir()
    assert find(tmp_path) == ["0000.png", "0001.png"]
    assert capsys.readouterr().err == "ignored 4 files (.heic, .raw, none)\n"


@pytest.mark.skipif("avif" not in features.get_supported(), reason="Pillow without AVIF")
def test_avif_is_read_where_pillow_can(tmp_path):
    quarters().save(tmp_path / "a.avif", quality=100)
    assert find(tmp_path) == ["a.avif"]
    assert np.abs(np.subtract(corners(tmp_path / "a.avif"), QUARTERS)).max() <= 6


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(("largest", "white"), [(1.001, 1), (200.0, 255), (60000.0, 65535)])
def test_the_white_of_floats_is_one_for_the_folder(
    load, tmp_path, capsys, in_memory, largest, white
):
    levels = {"a": 0.5, "b": largest, "c": 0.2 * white, "d": 1.0}
    for name, level in levels.items():
        Image.fromarray(np.full((8, 8), level, np.float32)).save(tmp_path / f"{name}.tif")
    Image.new("L", (8, 8), 77).save(tmp_path / "e.png")  # 8 bits are what they are
    settings = {"path": str(tmp_path), "size": 8, "in_memory": in_memory, "channels": 3}
    data = load("image_folder", **settings, test_size=1, val_size=1)
    read = torch.cat([part.head(9) for part in (data.train, data.val, data.test)])
    assert read.shape == (5, 3, 8, 8)
    expected = [round(255 * min(level / white, 1)) for level in levels.values()]
    assert sorted(read.float().mean((1, 2, 3)).tolist()) == sorted([*expected, 77])
    said = f"up to {np.float32(largest):g}: {white} is white in all"
    assert said in capsys.readouterr().err
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "f.tif")
    load("image_folder", **settings)
    assert "f.tif cannot be decoded: it holds NaN" in capsys.readouterr().err


def png(path: Path, pixels: bytes, colour: int, clear: bytes) -> None:
    """Write a PNG of 16 bits, 2x2 pixels, with a transparent colour (PNG specification, tRNS)."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, colour, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(2 * (b"\0" + pixels)))
    end = chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"tRNS", clear) + rows + end)


def test_a_transparent_colour_of_16_bits_is_white(tmp_path):
    pixels = struct.pack(">HH", 1000, 40000)  # 40,000 / 257 = 155.6
    png(tmp_path / "a.png", pixels, 0, struct.pack(">H", 1000))
    assert square(str(tmp_path / "a.png"), 2, 1)[0, 0].tolist() == [255, 156]
    colours = struct.pack(">HHHHHH", 1000, 2000, 3000, 40000, 256, 0)
    png(tmp_path / "b.png", colours, 2, struct.pack(">HHH", 1000, 2000, 3000))
    read = square(str(tmp_path / "b.png"), 2, 3)[:, 0].T.tolist()
    assert read == [[255, 255, 255], [156, 1, 0]]


@pytest.mark.parametrize("in_memory", [True, False])
def test_folders_called_train_and_test_are_the_split(load, tmp_path, capsys, in_memory):
    for split, count in (("Train", 6), ("test", 3), ("valid", 2), ("extra", 4)):
        for name in ("cat", "dog"):
            make_folder(tmp_path / split / name, count)
    settings = {"path": str(tmp_path), "size": 4, "in_memory": in_memory}
    data = load("image_folder", **settings)
    assert [len(split) for split in (data.train, data.val, data.test)] == [12, 4, 6]
    assert data.class_names == ("cat", "dog")
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert "left out 8 images" in capsys.readouterr().err
    first = square(str(tmp_path / "test" / "cat" / "0000.png"), 4, 3)
    assert data.test.head(1)[0].equal(first)
    for setting in ("test_size", "val_size"):
        with pytest.raises(UserError, match=rf"dataset\.{setting}=1: .* has a folder for these"):
            load("image_folder", **settings, **{setting: 1})
    shutil.rmtree(tmp_path / "valid")  # then val_size examples of train/
    data = load("image_folder", **settings, val_size=5)
    assert [len(split) for split in (data.train, data.val, data.test)] == [7, 5, 6]
    shutil.rmtree(tmp_path / "test")  # train alone is a class as any other
    assert load("image_folder", **settings).class_names == ("Train", "extra")


@pytest.mark.parametrize("channels", [1, 3])
def test_images_on_the_disk_give_what_the_tensor_gives_until_one_breaks(
    load, tmp_path, channels, monkeypatch
):
    for name in ("a", "b"):
        make_folder(tmp_path / "x y" / name, 30)
        (tmp_path / "x y" / name / "bad.png").write_bytes(b"hello")
    folder = {"path": str(tmp_path / "x y"), "size": 12, "channels": channels}
    kept = load("image_folder", **folder)
    data = load("image_folder", **folder, in_memory=False).to(torch.device("cpu"))
    assert (kept.shape, kept.class_names) == ((channels, 12, 12), ("a", "b"))
    assert (data.shape, data.value_range()) == (kept.shape, (0, 1))
    assert [len(split) for split in (data.train, data.val, data.test)] == [49, 5, 6]
    assert len({name for s in (data.train, data.val, data.test) for name in s.x.files}) == 60
    whole, stored = kept.train, data.train
    assert stored.labels.equal(whole.labels)
    assert stored.labels.bool().tolist() == [Path(f).parent.name == "b" for f in stored.x.files]
    assert stored.head(3).equal(whole.head(3))
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(1))
    state = torch.get_rng_state()
    for sequence in (order, None):
        both = zip(stored.batches(sequence, 32), whole.batches(sequence, 32), strict=True)
        assert all(one.equal(other) for one, other in both)
    assert torch.get_rng_state().equal(state)
    torch.testing.assert_close(data.mean(), kept.mean())
    monkeypatch.setattr(dataset, "MEAN_OF", 20)  # of 49: every third
    mean, examples = data.mean()
    torch.testing.assert_close(mean, whole.x[::3].double().mean(0) / 255, rtol=1e-6, atol=0)
    assert examples == 17
    broken = Path(stored.x.files[3])
    broken.write_bytes(b"")  # after it has been checked
    for use in (lambda: stored.head(5), lambda: list(stored.batches(None, 4))):
        with pytest.raises(RunFailed, match=f"^{broken} cannot be decoded: .+$"):
            use()
    assert not multiprocessing.active_children()  # the loader has ended


def test_memory_decides_where_images_are_kept(load, tmp_path, monkeypatch, capsys):
    folder = {"path": str(make_folder(tmp_path / "f", 12)), "size": 12}
    monkeypatch.setattr(images, "memory", lambda: 3 * 12 * 3 * 12 * 12 - 1)
    assert isinstance(load("image_folder", **folder).train.x, Images)
    assert "12 images stay on the disk" in capsys.readouterr().err
    assert isinstance(load("image_folder", **folder, in_memory=True).train.x, torch.Tensor)


def test_damaged_files_are_named_and_a_folder_without_images_is(load, tmp_path, capsys):
    (tmp_path / "postscript.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    for place in ("", "nowhere"):
        with pytest.raises(UserError, match=rf"dataset\.path={tmp_path / place}: no images"):
            load("image_folder", path=str(tmp_path / place))
    said = capsys.readouterr().err
    assert "skipped 2 of 2 files" in said
    assert "gone.png" in said


def test_files_are_binarised_as_they_are_looked_at_as_images_in_memory_are(
    load, tmp_path, monkeypatch
):
    settings = {"path": str(make_folder(tmp_path, 30)), "size": 8, "test_size": 12, "val_size": 3}
    memory, disk = (
        load("image_folder", **settings, in_memory=kept, binarize="dynamic")
        for kept in (True, False)
    )
    whole, lazy = memory.fixed(memory.test, 0), disk.fixed(disk.test, 0)
    order = torch.tensor([7, 2, 2, 11, 0])
    assert torch.cat(list(lazy.batches(order, 2))).equal(whole.x[order])
    assert torch.cat(list(lazy.batches(None, 5))).equal(whole.x)
    looked: list[str] = []
    monkeypatch.setattr(
        images, "square", lambda name, *how: looked.append(name) or square(name, *how)
    )
    assert lazy.x[3:4].equal(whole.x[3:4])
    assert looked == [disk.test.x.files[3]]  # and no other file


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_digest_of_a_folder_is_that_of_its_names_and_sizes(tmp_path, load, in_memory):
    def digest() -> str:
        return load("image_folder", path=str(tmp_path), size=8, in_memory=in_memory).digest

    make_folder(tmp_path, 20)
    before = digest()
    assert len(before) == 16
    assert digest() == before
    (tmp_path / "0003.png").rename(tmp_path / "again.png")
    assert digest() != before
