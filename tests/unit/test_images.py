"""Image stores: equal pixels from folders, zips and shards, in every process; damage told in one line."""

import io
import multiprocessing
import pickle
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image

from gen4det.core.errors import InputError
from gen4det.data.images import OPEN_ARCHIVES, ImageStore, ShardWriter, encode_image, image_name
from patience import patience


def picture(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def refusal(call, *args) -> str:
    with pytest.raises(InputError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def shards(tmp_path):
    """A folder with one loose image and two shards of three images each."""
    for shard in range(2):
        with ShardWriter(tmp_path / f"{shard:05d}.zip") as writer:
            for index in range(3):
                writer.add(f"{index:012d}.png", encode_image(picture(10 * shard + index), "png"))
    (tmp_path / "train2017").mkdir()
    (tmp_path / "train2017" / "9.jpg").write_bytes(encode_image(picture(99), "jpeg"))
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_same_pixels_from_folder_zip_and_shard(shards):
    expected = picture(11)
    (shards / "loose.png").write_bytes(encode_image(expected, "png"))
    assert np.array_equal(ImageStore(shards).image("loose.png"), expected)
    assert np.array_equal(ImageStore(shards).image("00001.zip/000000000001.png"), expected)
    assert np.array_equal(ImageStore(shards / "00001.zip").image("000000000001.png"), expected)


def test_names_exist_and_sizes(shards):
    store = ImageStore(shards)
    assert store.names() == sorted(
        [f"{shard:05d}.zip/{index:012d}.png" for shard in range(2) for index in range(3)]
        + ["train2017/9.jpg"]
    )
    assert ImageStore(shards / "00000.zip").names() == [f"{index:012d}.png" for index in range(3)]
    for name in store.names():
        assert store.exists(name)
        assert store.size(name) == (32, 24)
        assert store.read(name)
    for name in ("nothing.png", "00000.zip/nothing.png", "00009.zip/000000000000.png", "train2017"):
        assert not store.exists(name)
        assert "no such" in refusal(store.read, name)


def test_image_is_an_own_writable_array(shards):
    image = ImageStore(shards).image("train2017/9.jpg")
    image[:] = 0
    assert image.dtype == np.uint8 and image.flags.owndata


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_of_telephones_come_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture(1, 24, 32)).save(tmp_path / "a.jpg", exif=exif)
    store = ImageStore(tmp_path)
    height, width = store.image("a.jpg").shape[:2]
    assert store.size("a.jpg") == (width, height)
    assert (width, height) == ((24, 32) if orientation >= 5 else (32, 24))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "LA"])
def test_every_eight_bit_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(picture(1)).convert(mode).save(path)
    image = ImageStore(tmp_path).image(path.name)
    assert image.shape == (24, 32, 3) and image.dtype == np.uint8


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_images_are_refused_rather_than_clipped(tmp_path, suffix, channels):
    """Grey and colour alike: of colours Pillow would keep the upper 8 bits, which 12-bit data do not have."""
    shape = (8, 8, 3)[: 3 if channels == 3 else 2]
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), np.full(shape, 4000, dtype=np.uint16))
    message = refusal(ImageStore(tmp_path).image, f"a.{suffix}")
    assert "more than 8 bits per channel, grey or colour; convert it to 8, " in message
    assert "the setting sixteen_bit of the data set what is white" in message


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("white", [4095, 65535])
def test_sixteen_bits_are_scaled_by_one_rule(tmp_path, suffix, channels, white):
    """12-bit data in 16 bits and the full range, in grey, colour and with transparency."""
    values = np.random.default_rng(channels).integers(0, white + 1, (16, 24, 4), dtype=np.uint16)
    values[0, :2] = [[0] * 4, [white] * 4]
    stored = values[..., 0] if channels == 1 else values[..., :channels]
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), stored)
    colours = values[..., [0, 0, 0] if channels == 1 else [2, 1, 0]]  # OpenCV writes blue first
    image = pickle.loads(pickle.dumps(ImageStore(tmp_path, white=white))).image(f"a.{suffix}")
    expected = np.floor(colours / white * 255 + 0.5)
    assert image.dtype == np.uint8 and image.shape == (16, 24, 3)
    assert np.array_equal(image, expected) and image[0, 0].tolist() == [0] * 3
    assert image[0, 1].tolist() == [255] * 3
    if white == 65535:  # what is above white is white
        assert ImageStore(tmp_path, white=4095).image(f"a.{suffix}")[colours >= 4095].min() == 255


def test_white_says_nothing_about_images_of_eight_bits(tmp_path):
    Image.fromarray(picture(1)).save(tmp_path / "a.png")
    assert np.array_equal(ImageStore(tmp_path, white=4095).image("a.png"), picture(1))


def test_turned_images_of_sixteen_bits_are_refused(tmp_path):
    values = np.arange(6, dtype=np.uint16).reshape(2, 3) * 13107
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values).save(tmp_path / "a.tiff", exif=exif)
    message = refusal(ImageStore(tmp_path, white=65535).image, "a.tiff")
    assert message == f"{tmp_path / 'a.tiff'}: 16 bits, with a turned orientation; store it upright"


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"avif"])
def test_photographs_of_telephones_are_named(tmp_path, brand):
    (tmp_path / "a.jpg").write_bytes(b"\x00\x00\x00\x18ftyp" + brand + bytes(40))
    message = refusal(ImageStore(tmp_path).image, "a.jpg")
    if "damaged" not in message:  # a Pillow that reads AVIF finds out that this is none
        assert message == f"{tmp_path / 'a.jpg'}: HEIC or AVIF, which is not read; convert it to JPEG or PNG"


def test_large_photographs_are_sound(tmp_path):
    Image.new("1", (20_000, 10_000)).save(tmp_path / "aerial.png")
    assert ImageStore(tmp_path).size("aerial.png") == (20_000, 10_000)


@pytest.mark.parametrize("format", ["png", "jpeg"])
@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.95])
def test_truncated_image_is_refused(tmp_path, format, fraction):
    content = encode_image(picture(1, 240, 320), format)
    (tmp_path / "cut").write_bytes(content[: int(len(content) * fraction)])
    message = refusal(ImageStore(tmp_path).image, "cut")
    assert message.startswith(f"{tmp_path / 'cut'}: damaged image")


def test_what_is_not_an_image_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"<html>quota exceeded</html>")
    (tmp_path / "empty.jpg").touch()
    for name in ("a.jpg", "empty.jpg"):
        assert refusal(ImageStore(tmp_path).image, name) == f"{tmp_path / name}: not an image"
        assert refusal(ImageStore(tmp_path).size, name) == f"{tmp_path / name}: not an image"


def test_missing_root_is_refused(tmp_path):
    assert str(tmp_path / "nowhere") in refusal(ImageStore, tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "", "a/../../b.png"])
def test_names_cannot_leave_the_store(tmp_path, name):
    (tmp_path.parent / "secret.png").write_bytes(encode_image(picture(1), "png"))
    assert "not a path below" in refusal(ImageStore(tmp_path).read, name)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.999])
def test_shard_cut_short_is_refused(shards, fraction):
    path = shards / "00000.zip"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    message = refusal(ImageStore(shards).image, "00000.zip/000000000000.png")
    assert message.startswith(f"{path}: truncated, or not a zip archive")
    assert message == refusal(ImageStore(shards).names)


def test_flipped_bit_in_a_shard_is_noticed(shards):
    path = shards / "00000.zip"
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 100] ^= 1
    path.write_bytes(content)
    assert "CRC" in refusal(ImageStore(shards).read, "00000.zip/000000000000.png")


def test_deflated_zips_of_others_can_be_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sub/a.png", encode_image(picture(1), "png"))
    store = ImageStore(tmp_path / "photos.zip")
    assert np.array_equal(store.image("sub/a.png"), picture(1))
    assert store.size("sub/a.png") == (32, 24)


def test_more_shards_than_open_files(tmp_path):
    for shard in range(OPEN_ARCHIVES + 5):
        with ShardWriter(tmp_path / f"{shard:05d}.zip") as writer:
            writer.add("a.png", encode_image(picture(shard, 4, 4), "png"))
    store = ImageStore(tmp_path)
    for _ in range(2):
        for shard in range(OPEN_ARCHIVES + 5):
            assert np.array_equal(store.image(f"{shard:05d}.zip/a.png"), picture(shard, 4, 4))
    assert len(store._archives) == OPEN_ARCHIVES


def _sums(store: ImageStore, names: list[str], times: int) -> list[int]:
    return [int(store.image(name).sum()) for _ in range(times) for name in names]


def _answer(queue, store: ImageStore, names: list[str], times: int) -> None:
    queue.put(_sums(store, names, times))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_the_same_pixels_at_the_same_time(tmp_path, method):
    """Of a DataLoader: forked they inherit the store with its archive open, spawned they unpickle it."""
    names = [f"{index}.png" for index in range(20)]
    with ShardWriter(tmp_path / "a.zip") as writer:
        for index, name in enumerate(names):
            writer.add(name, encode_image(picture(index, 64, 64), "png"))
    store = ImageStore(tmp_path / "a.zip")
    expected = _sums(store, names, 5)  # opens the archive before the workers start
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [context.Process(target=_answer, args=(queue, store, names, 5), daemon=True) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert _sums(store, names, 5) == expected
    assert all(queue.get(timeout=patience(120)) == expected for _ in workers)
    for worker in workers:
        worker.join(patience(60))
        assert worker.exitcode == 0


def test_pickled_store_holds_no_open_file(shards):
    store = ImageStore(shards)
    store.read("00000.zip/000000000000.png")
    copy = pickle.loads(pickle.dumps(store))
    assert not copy._archives
    assert copy.read("00000.zip/000000000000.png") == store.read("00000.zip/000000000000.png")


# --- writing --------------------------------------------------------------------------------------


def write_shard(path, names=("b.png", "a.png")):
    with ShardWriter(path) as writer:
        for name in names:
            writer.add(name, name.encode() * 50)
    return path.read_bytes()


def test_equal_contents_give_equal_shards(tmp_path):
    assert write_shard(tmp_path / "one.zip") == write_shard(tmp_path / "other" / "two.zip")
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == ["b.png", "a.png"]
        assert all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())


def test_shard_appears_only_when_complete(tmp_path):
    with pytest.raises(RuntimeError, match="killed"), ShardWriter(tmp_path / "a.zip") as writer:
        writer.add("a.png", b"x")
        assert not (tmp_path / "a.zip").exists()
        raise RuntimeError("killed")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "", "a//b.png", "a\\b.png", "./a.png"])
def test_shard_refuses_names_that_leave_it(tmp_path, name):
    with pytest.raises(ValueError), ShardWriter(tmp_path / "a.zip") as writer:
        writer.add(name, b"x")


def test_shard_refuses_a_name_twice(tmp_path):
    with pytest.raises(ValueError, match="twice"):
        write_shard(tmp_path / "a.zip", ["a.png", "a.png"])


def test_full_disk_leaves_no_shard(tiny_disk):
    noise = np.random.default_rng(0).bytes(60_000)
    with pytest.raises(InputError) as error, ShardWriter(tiny_disk / "00000.zip") as writer:
        for index in range(10):
            writer.add(f"{index}.png", noise)
    assert str(error.value) == f"{tiny_disk / '00000.zip'}: No space left on device; nothing was written"
    assert list(tiny_disk.iterdir()) == []


def test_full_disk_leaves_the_earlier_shard_alone(tiny_disk):
    before = write_shard(tiny_disk / "00000.zip")
    with pytest.raises(InputError), ShardWriter(tiny_disk / "00000.zip") as writer:
        writer.add("a.png", bytes(400_000))
    assert (tiny_disk / "00000.zip").read_bytes() == before


def test_encoding(tmp_path):
    image = picture(3)
    assert np.array_equal(np.array(Image.open(io.BytesIO(encode_image(image, "png")))), image)
    smooth = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 64, 3)).copy()
    decoded = np.array(Image.open(io.BytesIO(encode_image(smooth, "jpeg"))))
    assert np.abs(decoded.astype(int) - smooth).max() <= 4
    assert encode_image(image, "jpeg") == encode_image(image, "jpeg")
    for bad in (image.astype(float), image[..., 0], image[..., :2]):
        with pytest.raises(ValueError):
            encode_image(bad, "png")
    with pytest.raises(ValueError, match="gif"):
        encode_image(image, "gif")


# --- names ----------------------------------------------------------------------------------------


def test_lvis_records_are_found_by_their_url():
    url = "http://images.cocodataset.org/train2017/000000000009.jpg"
    assert image_name({"id": 9, "coco_url": url}) == "train2017/000000000009.jpg"
    assert image_name({"id": 9, "coco_url": url, "file_name": "9.jpg"}) == "9.jpg"
    assert "image 9" in refusal(image_name, {"id": 9})


def test_real_photographs(shared_dir):
    root = shared_dir / "data" / "coco-mini"
    store = ImageStore(root)
    names = store.names()
    assert len(names) == 200 and names[0] == "train2017/000000000009.jpg"
    assert store.image(names[0]).shape == (480, 640, 3)
    assert store.size(names[0]) == (640, 480)
