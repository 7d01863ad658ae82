"""Folders of images: what is found, how it is decoded, what is skipped, memory and disk alike."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vae_cli.console import RunFailed, UserError
from vae_cli.data import dataset, images
from vae_cli.data.images import Images, classes, decode, find

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
    x = decode(str(path), 16, channels)
    assert (x.shape, x.dtype) == ((channels, 16, 16), torch.uint8)
    return [tuple(x[:, row, column].tolist()) for row in (4, 12) for column in (4, 12)]


def make_folder(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise = SOURCE.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i:04}.png")
    return folder


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "ppm", "gif"])
def test_formats_keep_colours_and_whatever_is_damaged_is_named(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    quarters().save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert np.abs(np.subtract(corners(path), QUARTERS)).max() <= 6
    assert np.abs(np.subtract(corners(path, 1), [(76,), (150,), (29,), (226,)])).max() <= 6
    content = np.frombuffer(path.read_bytes(), np.uint8)
    path.write_bytes(content[: len(content) // 2].tobytes())
    with pytest.raises(RunFailed, match=f"^{path} cannot be decoded: .+$"):
        decode(str(path), 8, 3)
    for _ in range(40):
        broken = content.copy()
        where = SOURCE.integers(0, min(len(content), 200), 3)
        broken[where] = SOURCE.integers(0, 256, 3)
        path.write_bytes(broken.tobytes())
        with suppress(RunFailed):
            assert decode(str(path), 8, 3).shape == (3, 8, 8)


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
    assert (decode(str(tmp_path / "a.jpg"), 16, 1) - 127.5).abs().max() < 4


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
    for white, dtype in ((65535, np.uint16), (65535, np.int32), (1, np.float32), (255, np.float32)):
        row = np.linspace(0, white, 32).astype(dtype)
        Image.fromarray(row[None].repeat(32, 0)).save(tmp_path / "a.tif")
        read = decode(str(tmp_path / "a.tif"), 32, 1)[0, 0].numpy()
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
        images, "decode", lambda name, *how: looked.append(name) or decode(name, *how)
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
