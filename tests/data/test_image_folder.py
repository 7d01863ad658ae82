"""Folders of images: what is found, how it is decoded, what is skipped, memory and disk alike."""

import json
import os
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vae_cli import build, checkpoint, cli, load_run, training
from vae_cli.data import images, memory
from vae_cli.data.image_folder import classes, find
from vae_cli.data.streaming import Streamed, in_threads, printable
from vae_cli.errors import RunFailed, UserError

CPU = torch.device("cpu")
SOURCE = np.random.default_rng(0)


def picture(width: int = 24, height: int = 20, mode: str = "RGB") -> Image.Image:
    noise = SOURCE.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def quarters(size: int = 40) -> Image.Image:
    """Red, green / blue, yellow."""
    image = Image.new("RGB", (size, size), "red")
    half = size // 2
    image.paste((0, 255, 0), (half, 0, size, half))
    image.paste((0, 0, 255), (0, half, half, size))
    image.paste((255, 255, 0), (half, half, size, size))
    return image


QUARTERS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]


def corners(array: np.ndarray) -> list[tuple[int, ...]]:
    """The colours in the middle of the four quarters."""
    a, b = array.shape[1] // 4, 3 * array.shape[1] // 4
    return [tuple(array[:, y, x].tolist()) for y, x in ((a, a), (a, b), (b, a), (b, b))]


def make_folder(folder: Path, count: int, size: int = 12) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        picture(size, size).save(folder / f"{i:04}.png")
    return folder


def odd_folder(folder: Path) -> Path:
    """198 sound images of every kind, a truncated one and a text."""
    folder.mkdir()
    modes = ["RGB", "L", "RGBA", "P", "LA", "1", "CMYK"]
    for i in range(198):
        mode = modes[i % len(modes)]
        suffix = "tif" if mode == "CMYK" else "png"
        picture(16 + i % 9, 16 + i % 5, "L" if mode == "1" else mode).save(
            folder / f"{i:03}.{suffix}"
        )
    deep = SOURCE.integers(0, 65536, (17, 19), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "000.png")
    Image.fromarray(deep).save(folder / "001.png")
    whole = (folder / "002.png").read_bytes()
    (folder / "trunc.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("not an image at all")
    return folder


# ---------------------------------------------------------------------------------------- one image


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "ppm", "gif"])
def test_formats_keep_colours_in_their_places(tmp_path, suffix):
    path = str(tmp_path / f"a.{suffix}")
    lossless = {"lossless": True} if suffix == "webp" else {}
    quarters().save(path, **lossless)
    images.check(path)
    found = corners(images.decode(path, 16, 3))
    assert np.abs(np.subtract(found, QUARTERS)).max() <= 6
    grey = images.decode(path, 16, 1)
    assert grey.shape == (1, 16, 16)
    assert np.abs(np.subtract(corners(grey), [(76,), (150,), (29,), (226,)])).max() <= 6


def test_a_wide_and_a_tall_image_are_cropped_in_the_middle(tmp_path):
    path = str(tmp_path / "a.png")
    wide = Image.new("RGB", (120, 40), "white")
    wide.paste(quarters(), (40, 0))
    wide.save(path)
    assert corners(images.decode(path, 10, 3)) == QUARTERS
    wide.transpose(Image.Transpose.ROTATE_90).save(path)
    turned = corners(images.decode(path, 10, 3))
    assert turned == [QUARTERS[1], QUARTERS[3], QUARTERS[0], QUARTERS[2]]


def test_shrinking_is_antialiased_also_of_a_big_jpeg(tmp_path):
    board = np.kron([[0, 1], [1, 0]], np.ones((1, 1)))
    big = Image.fromarray((np.tile(board, (256, 256)) * 255).astype(np.uint8))
    for name in ("a.png", "a.jpg"):
        big.save(tmp_path / name, **({"quality": 100} if name == "a.jpg" else {}))
        array = images.decode(str(tmp_path / name), 16, 1)
        assert abs(array.mean() - 127.5) < 2
        assert np.ptp(array) <= 4


def test_transparency_is_on_white_also_in_palettes(tmp_path):
    half = quarters().convert("RGBA")
    alpha = Image.new("L", half.size, 255)
    alpha.paste(0, (0, 0, 20, 40))
    half.putalpha(alpha)
    half.save(tmp_path / "a.png")
    white = (255, 255, 255)
    expected = [white, QUARTERS[1], white, QUARTERS[3]]
    assert corners(images.decode(str(tmp_path / "a.png"), 16, 3)) == expected
    palette = quarters().convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    assert corners(images.decode(str(tmp_path / "p.png"), 16, 3)) == [white, *QUARTERS[1:]]
    half.convert("LA").save(tmp_path / "la.png")
    assert corners(images.decode(str(tmp_path / "la.png"), 16, 1))[0] == (255,)


@pytest.mark.parametrize(
    ("values", "suffix"),
    [
        (np.linspace(0, 65535, 32).astype(np.uint16), "png"),
        (np.linspace(0, 65535, 32).astype(np.uint16), "tif"),
        (np.linspace(0, 65535, 32).astype(np.int32), "tif"),
        (np.linspace(0, 1, 32).astype(np.float32), "tif"),
        (np.linspace(0, 255, 32).astype(np.float32), "tif"),
    ],
)
def test_more_than_eight_bits_become_256_levels(tmp_path, values, suffix):
    path = str(tmp_path / f"a.{suffix}")
    Image.fromarray(values[None].repeat(32, 0)).save(path)
    images.check(path)
    row = images.decode(path, 32, 1)[0, 0]
    assert np.abs(row - np.linspace(0, 255, 32)).max() <= 1


def test_a_photo_is_turned_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = str(tmp_path / "a.png")
    quarters().transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    assert corners(images.decode(path, 16, 3)) == QUARTERS


def test_the_first_frame_of_several(tmp_path):
    path = str(tmp_path / "a.gif")
    quarters().save(path, save_all=True, append_images=[Image.new("RGB", (40, 40))])
    assert corners(images.decode(path, 16, 3)) == QUARTERS


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "ppm", "gif"])
def test_a_truncated_file_of_any_format_is_found_before_it_is_used(tmp_path, suffix):
    whole = tmp_path / f"a.{suffix}"
    picture(64, 64).save(whole)
    content = whole.read_bytes()
    for share in (0.9, 0.5, 0.1):
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(images.Damaged):
            images.check(str(cut))


def test_damaged_files_have_short_reasons(tmp_path):
    def why(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(images.Damaged) as caught:
            images.check(str(tmp_path / name))
        return str(caught.value)

    quarters().save(tmp_path / "good.png")
    content = (tmp_path / "good.png").read_bytes()
    assert why("zero.png", b"") == "empty"
    assert why("text.png", b"hello") == "not an image"
    assert why("cut.png", content[:-30]) == "truncated"
    assert why("postscript.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == (
        "not an image"
    )
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    assert why("flipped.png", bytes(flipped))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    for name in ("pipe.png", "gone.png"):
        with pytest.raises(images.Damaged, match="no regular file"):
            images.check(str(tmp_path / name))


@pytest.mark.parametrize("side", [9_600, 14_000])
def test_an_image_bomb_is_refused_by_its_header(tmp_path, side):
    path = str(tmp_path / "bomb.png")
    Image.new("1", (side, side)).save(path)
    for strict in (True, False):
        with warnings.catch_warnings():
            warnings.simplefilter("error" if strict else "ignore")
            with pytest.raises(images.Damaged, match="too many"):
                images.check(path)


def test_no_damaged_byte_stops_us(tmp_path):
    """Whatever a decoder raises on a broken file becomes a Damaged."""
    source = np.random.default_rng(1)
    for suffix in ("png", "jpg", "bmp", "tif", "webp", "ppm", "gif"):
        whole = tmp_path / f"a.{suffix}"
        picture(20, 20).save(whole)
        content = np.frombuffer(whole.read_bytes(), np.uint8)
        path = str(tmp_path / f"b.{suffix}")
        for _ in range(60):
            broken = content.copy()
            where = source.integers(0, min(len(content), 200), 3)
            broken[where] = source.integers(0, 256, 3)
            Path(path).write_bytes(broken.tobytes())
            with suppress(images.Damaged):
                images.check(path)
                assert images.decode(path, 8, 3).shape == (3, 8, 8)


# --------------------------------------------------------------------------------------- the folder


def test_what_is_found_is_sorted_and_hidden_files_are_not(tmp_path):
    for name in (
        "b/2.PNG",
        "b/10.jpeg",
        "a.png",
        ".x.png",
        ".git/y.png",
        "c/notes.txt",
        "ä ö/é.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "b" / "again").symlink_to(tmp_path)  # a loop
    assert find(tmp_path) == ["a.png", "b/10.jpeg", "b/2.PNG", "ä ö/é.png"]


def test_a_linked_folder_is_followed(tmp_path):
    make_folder(tmp_path / "elsewhere", 2)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    assert find(tmp_path / "root") == ["link/0000.png", "link/0001.png"]


def test_labels_come_from_at_least_two_subfolders():
    labels, names = classes(["cat/a.png", "cat/x/b.png", "dog/a.png"])
    assert labels is not None
    assert (labels.tolist(), names) == ([0, 0, 1], ("cat", "dog"))
    assert classes(["cat/a.png", "cat/x/b.png"]) == (None, ())
    assert classes(["a.png", "cat/b.png", "dog/c.png"]) == (None, ())


def folder_config(make_config, folder: Path, *more: str):
    quoted = str(folder).replace("'", "\\'")
    return make_config(
        "dataset=image_folder", f"dataset.path='{quoted}'", "dataset.size=12", "batch_size=8", *more
    )


def test_splits_are_fixed_disjoint_and_keep_labels(make_config, tmp_path):
    for name in ("a", "b"):
        make_folder(tmp_path / "x y" / name, 30)
    config = folder_config(make_config, tmp_path / "x y", "dataset.test_size=7")
    data = build.data(config)
    assert data.val is not None
    assert [len(s) for s in (data.train, data.val, data.test)] == [48, 5, 7]
    assert data.class_names == ("a", "b")
    parts = [data.train, data.val, data.test]
    files = [name for split in parts for name in split.x.files]
    assert len(set(files)) == 60
    for split in parts:
        assert split.labels is not None
        in_b = [Path(name).parent.name == "b" for name in split.x.files]
        assert split.labels.bool().tolist() == in_b
    assert build.data(config).test.x.files == data.test.x.files


def test_the_streamed_split_gives_what_the_tensor_gives(make_config, tmp_path):
    folder = make_folder(tmp_path / "f", 90)
    kept = build.data(folder_config(make_config, folder)).to(CPU)
    data = build.data(folder_config(make_config, folder, "dataset.in_memory=false"))
    moved = data.to(CPU)
    assert isinstance(kept.train.x, torch.Tensor)
    assert isinstance(moved.train.x, Streamed)
    whole, streamed = kept.train, moved.train
    assert kept.shape == data.shape == (3, 12, 12)
    assert streamed.x.shape == whole.x.shape
    assert streamed.x.dtype == whole.x.dtype
    assert streamed.x[:5].equal(whole.x[:5])
    assert streamed.x[:0].shape == (0, 3, 12, 12)
    assert streamed.head(3).equal(whole.head(3))
    some = torch.tensor([7, 3, 3, 0])
    assert streamed.x[some].equal(whole.x[some])
    assert streamed.take(some).head(9).equal(whole.take(some).x)
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(1))
    assert len(order) > 64  # so worker processes are used
    state = torch.get_rng_state()
    for given in (order, None):
        both = zip(streamed.batches(given, 32), whole.batches(given, 32), strict=True)
        assert all(one.equal(other) for one, other in both)
    assert torch.get_rng_state().equal(state)
    assert data.value_range() == (0, 1)
    source = torch.Generator()
    prepared = moved.prepare(moved.train.take(some).x, source)
    assert prepared.equal(kept.prepare(whole.x[some], source))


def trained(config, folder: Path) -> list[dict[str, float]]:
    training.train(config, folder)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.startswith("perf/")} for line in lines
    ]


def test_streaming_trains_and_resumes_exactly_as_memory_does(make_config, tmp_path):
    folder = make_folder(tmp_path / "f", 40)
    small = ("model.channels=[4]", "model.latent_dim=2", "figures=none", "epochs=2")
    memory_run = trained(folder_config(make_config, folder, *small), tmp_path / "memory")
    small = (*small, "dataset.in_memory=false", "dataset.binarize=dynamic")
    kept = folder_config(make_config, folder, *small, "dataset.in_memory=true")
    assert trained(kept, tmp_path / "kept") != memory_run  # binarised
    streamed = trained(folder_config(make_config, folder, *small), tmp_path / "streamed")
    assert streamed == trained(kept, tmp_path / "kept again")
    parts = tmp_path / "parts"
    trained(folder_config(make_config, folder, *small, "epochs=1"), parts)
    going_on = folder_config(make_config, folder, *small, f"resume='{parts}'")
    assert trained(going_on, parts) == streamed
    one, other = (
        checkpoint.load_weights(tmp_path / name / "model.safetensors")[0]
        for name in ("streamed", "parts")
    )
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


def test_six_big_colour_images_come_out_at_their_size(make_config, tmp_path):
    folder = make_folder(tmp_path / "f", 6, size=300)
    config = folder_config(
        make_config,
        folder,
        "dataset.size=256",
        "batch_size=2",
        "epochs=1",
        "figures=none",
        "model.channels=[4,8,8,8]",
    )
    assert (config.model.name, config.model.latent_dim) == ("conv_vae", 128)
    training.train(config, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert run.sample(1, seed=0).shape == (1, 3, 256, 256)


def test_the_command_line_wins_over_what_the_dataset_picks(make_config):
    config = make_config("dataset=image_folder", "dataset.path=a", "model=mlp_vae")
    assert (config.model.name, config.model.hidden_sizes) == ("mlp_vae", [512])
    config = make_config("model=ae", "model.latent_dim=3", "dataset=image_folder", "dataset.path=a")
    assert (config.model.name, config.model.latent_dim) == ("ae", 3)


def test_a_file_that_breaks_later_is_replaced_and_named_once(make_config, tmp_path, capsys):
    folder = make_folder(tmp_path / "f", 30)
    data = build.data(folder_config(make_config, folder, "dataset.in_memory=false")).to(CPU)
    before = data.train.x[:]
    broken = Path(data.train.x.files[-1])
    broken.write_bytes(b"")
    for _ in range(2):
        after = data.train.x[:]
    assert after[:-1].equal(before[:-1])
    assert after[-1].equal(before[0])  # the next, from the start again
    assert capsys.readouterr().err.count(f"{broken} cannot be decoded (empty): the next") == 1
    assert data.train.x.whole().equal(after)
    for name in data.train.x.files:
        Path(name).unlink()
    with pytest.raises(RunFailed, match="none of 25 images can be decoded any more"):
        data.train.x[:2]


def test_memory_decides_where_images_are_kept(make_config, tmp_path, monkeypatch, capsys):
    folder = make_folder(tmp_path / "f", 12)
    monkeypatch.setattr(memory, "free", lambda device: 3 * 12 * 12 * 12)
    wide = ("batch_size=2",)
    data = build.data(folder_config(make_config, folder, *wide)).to(CPU)
    assert isinstance(data.train.x, Streamed)
    assert "stay on the disk" in capsys.readouterr().err
    forced = folder_config(make_config, folder, *wide, "dataset.in_memory=true")
    assert isinstance(build.data(forced).to(CPU).train.x, torch.Tensor)
    assert "12 images of 3x12x12 (5.1 KiB) are kept in memory" in capsys.readouterr().err
    monkeypatch.setattr(memory, "free", lambda device: 1000)
    with pytest.raises(UserError, match=r"dataset.in_memory=true: 12 images .* do not fit"):
        build.data(forced).to(CPU)


def test_free_memory_is_told():
    assert 1 << 20 < memory.allowed(CPU) < 1 << 50
    assert memory.human(100) == "0.1 KiB"
    assert memory.human(5 * 2**30) == "5.0 GiB"
    assert memory.human(2.5 * 2**60) == "2,560.0 PiB"


def test_names_are_printable_and_threads_keep_order():
    assert printable("a\nb\udcff.png") == "a\ufffdb\ufffd.png"
    assert in_threads(lambda i: i * i, range(50), "x") == [i * i for i in range(50)]
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda i: 1 // i, range(5), "x")


def test_many_damaged_files_are_named_briefly(make_config, tmp_path, capsys, caplog):
    folder = make_folder(tmp_path / "f", 12)
    for i in range(15):
        (folder / f"bad{i:02}.png").touch()
    build.data(folder_config(make_config, folder, "batch_size=2"))
    err = capsys.readouterr().err
    assert "skipped 15 of 27 files: bad00.png (empty), bad01.png (empty)" in err
    assert "bad09.png (empty), … and 5 more" in err
    assert "bad14.png (empty)" in caplog.text


# -------------------------------------------------------------------------------- the real command


def test_two_hundred_odd_images_train_and_the_damaged_are_named(vae_train, tmp_path):
    odd_folder(tmp_path / "päth with spaces")
    done = vae_train(
        "dataset=image_folder",
        f"dataset.path='{tmp_path}/päth with spaces'",
        "model.channels=[4,8]",
        "dataset.size=16",
        "epochs=1",
        "figures=none",
        "hydra.run.dir=run",
    )
    assert done.returncode == 0, done.stderr
    skipped = "skipped 2 of 200 files: text.png (not an image), trunc.png (truncated)"
    assert skipped in done.stderr
    assert skipped in (tmp_path / "run" / "train.log").read_text()
    assert "162 training + 17 validation + 19 test examples of shape 3x16x16" in done.stderr


SETTINGS = [
    ("", "dataset.path: must have a value"),
    ("dataset.path=null", "dataset.path=null: must have a value"),
    ("dataset.path=a dataset.size=1", "dataset.size=1: must be >= 2"),
    ("dataset.path=a dataset.size=[2,3]", "dataset.size=[2,3]: "),
    ("dataset.path=a dataset.channels=2", "dataset.channels=2: must be 1 (grey) or 3 (RGB)"),
    ("dataset.path=a dataset.channels=4", "dataset.channels=4: must be <= 3"),
    ("dataset.path=a dataset.test_size=0", "dataset.test_size=0: must be >= 1"),
    ("dataset.path=a dataset.in_memory=maybe", "must be auto, true or false"),
    ("dataset.path=a dataset.binarize=yes", "dataset.binarize=yes: must be"),
    ("dataset.path=a dataset.pth=x", "dataset.pth=x: no such setting (did you mean path?)"),
]


@pytest.mark.parametrize(("line", "expected"), SETTINGS, ids=[line for line, _ in SETTINGS])
def test_a_wrong_setting_is_one_clear_line(tmp_path, monkeypatch, capsys, line, expected):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["dataset=image_folder", *line.split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith("vae-train: ")
    assert expected in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "settings", "expected"),
    [
        ("nowhere", (), r"dataset.path=.*nowhere: no such folder"),
        ("file.png", (), r"file.png: not a folder"),
        ("empty", (), r"there are no images \(.bmp"),
        ("bad", (), "0 of 4 files in it are sound images and at least 3 are needed"),
        ("good", ("dataset.test_size=12",), "must be less than the 12 examples"),
        ("good", ("dataset.val_size=11",), "must be less than the 11 training"),
        ("good", ("batch_size=11",), "batch_size=11: must be at most the 10 training examples"),
    ],
)
def test_a_folder_that_does_not_do_is_explained(make_config, tmp_path, place, settings, expected):
    (tmp_path / "empty").mkdir()
    picture().save(tmp_path / "file.png")
    (tmp_path / "bad").mkdir()
    for i in range(4):
        (tmp_path / "bad" / f"{i}.png").touch()
    make_folder(tmp_path / "good", 12)
    with pytest.raises(UserError, match=expected):
        build.data(folder_config(make_config, tmp_path / place, *settings))


def test_the_real_command_ends_with_2_and_leaves_no_folder(vae_train, tmp_path):
    done = vae_train("dataset=image_folder", "dataset.path=/nowhere/x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "vae-train: dataset.path=/nowhere/x: no such folder\n"
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
