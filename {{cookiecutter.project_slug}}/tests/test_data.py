"""The split is explicit, repeatable and checked."""

import io
import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image, ImageCms

from lab.project import LabError

from {{ cookiecutter.__package }} import data, images, plots, splitting


def test_every_split_has_its_fraction_of_every_class(digits):
    counts = data.read_manifest(digits)["counts"]
    for label, in_train in counts["train"].items():
        of_class = sum(counts[split][label] for split in data.SPLITS)
        assert counts["val"][label] == counts["test"][label] == round(0.2 * of_class)
        assert in_train == of_class - 2 * counts["val"][label]


def test_the_same_seed_draws_the_same_split_and_another_seed_another_one():
    samples = data.load_digits()
    draw = [list(splitting.draw_split(samples, seed, 0.2, 0.2)) for seed in (0, 0, 1)]
    assert draw[0] == draw[1] != draw[2]


def test_writing_twice_changes_nothing(digits, folders):
    before = {path: path.stat().st_mtime_ns for path in folders.rglob("*.png")}
    data.write_dataset(
        digits, "the first 300 digits", data.load_digits()[:300], seed=0, val=0.2, test=0.2
    )
    assert {path: path.stat().st_mtime_ns for path in folders.rglob("*.png")} == before


def test_another_split_is_not_written_over_the_first(digits):
    with pytest.raises(LabError, match="not of this split"):
        data.write_dataset(digits, "again", data.load_digits()[:300], seed=1, val=0.2, test=0.2)
    assert data.verify(digits) == []


def test_a_file_with_other_content_is_not_overwritten(digits):
    mine = next((data.folder(digits) / "train").glob("*/*.png"))
    mine.write_bytes(b"mine")
    with pytest.raises(LabError, match=f"{mine.name} exists with other content"):
        data.write_dataset(digits, "again", data.load_digits()[:300], seed=0, val=0.2, test=0.2)
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("images", "val", "test", "said"),
    [
        (300, 0, 0.2, "use two fractions above 0 with a sum below 1"),
        (300, 0.2, -0.1, "use two fractions above 0 with a sum below 1"),
        (300, 0.5, 0.5, "use two fractions above 0 with a sum below 1"),
        (12, 0.2, 0.2, "class 0 has only 2 images: none is left for train"),
        (1, 0.2, 0.2, "needs two classes or more, and there are 1"),
    ],
)
def test_a_split_with_an_empty_part_or_a_single_class_is_refused(images, val, test, said):
    with pytest.raises(LabError, match=said):
        data.write_dataset("none", "few", data.load_digits()[:images], seed=0, val=val, test=test)
    assert not data.folder("none").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_damaged_manifest_is_named(digits, text):
    (data.folder(digits) / "manifest.json").write_text(text)
    with pytest.raises(LabError, match="manifest.json cannot be read"):
        data.verify(digits)
    (data.folder(digits) / "manifest.json").write_text('{"classes": [], "files": {}}')
    with pytest.raises(LabError, match="no images in val"):
        data.ImageSplit(digits, "val", 8, 1)


def test_verify_finds_changed_missing_and_foreign_files_and_leakage(digits):
    place = data.folder(digits)
    first, second, third = list(data.read_manifest(digits)["files"])[:3]
    (place / first).write_bytes(b"changed")
    (place / second).unlink()
    foreign = place / "train" / "0" / "copy.png"
    shutil.copy(place / third, foreign)
    assert data.verify(digits) == [
        f"missing   {second}",
        "foreign   train/0/copy.png",
        f"changed   {first}",
        f"unreadable {first}: is not a BMP, JPEG, PNG, TIFF or WEBP image",
        f"leakage   the same image in {third} and train/0/copy.png",
    ]


def test_a_split_gives_images_from_0_to_1_and_class_indices(digits):
    split = data.ImageSplit(digits, "val", size=8, channels=3)
    image, label = split[0]
    assert image.shape == (3, 8, 8)
    assert 0 <= image.min() < image.max() <= 1
    assert split.classes[label] == split.paths[0].split("/")[1]


def test_a_split_is_read_from_the_disk_once_if_it_fits_into_memory(digits, monkeypatch):
    small = data.ImageSplit(digits, "val", size=8, channels=1)
    monkeypatch.setattr(data, "CACHE_LIMIT", 0)
    large = data.ImageSplit(digits, "val", size=8, channels=1)
    first = small[0][0]
    assert (large[0][0] == first).all()
    (small.folder / small.paths[0]).unlink()
    assert (small[0][0] == first).all()
    with pytest.raises(LabError, match="No such file"):
        large[0]


def test_an_image_is_as_a_viewer_displays_it():
    orientation = Image.Exif()
    orientation[0x0112] = 6  # the camera was held upright: the left side is the top
    left = np.array([[255, 0], [255, 0]], np.uint8)
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    for image, exif, expected in (
        (clear, b"", [[255, 255], [255, 255]]),
        (Image.fromarray(left), orientation, [[255, 255], [0, 0]]),
        (Image.fromarray(left), b"no EXIF", left.tolist()),
    ):
        content = io.BytesIO()
        image.save(content, "png", exif=exif)
        assert np.asarray(images.decode(content).convert("L")).tolist() == expected


def test_training_and_figures_show_the_same_image(digits):
    split = data.ImageSplit(digits, "train", size=8, channels=3)
    drawn = plots.plot_samples(digits, "train", columns=1).axes[0].images[0].get_array()
    assert any((image.transpose(1, 2, 0) * 255 == drawn).all() for image, _ in split)


def noise(*seed, size=(12, 16, 3)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, size, np.uint8))


@pytest.fixture
def source(folders):
    """A folder with two classes of twenty noisy images each."""
    for label in ("elm", "oak"):
        for number in range(20):
            path = folders / "source" / label / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise(number, ord(label[0])).save(path)
    return folders / "source"


def split(source, name="trees", *options):
    """The exit code of the split command."""
    return data.main(["split", str(source), "--dataset", name, *options])


def test_a_folder_of_class_folders_is_split_and_what_is_left_out_is_named(source, capsys):
    with Image.open(source / "oak/00.png") as image:
        image.save(source / "oak/zz.bmp")  # the same pixels in another file
    for name in ("oak/labels", "oak/notes.txt", "moving/1.gif", "moving/2.GIF", "oak/.hidden.png"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).touch()
    assert split(source) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "left out: 2 .gif, 1 .png, 1 .txt, 1 without a suffix, 1 copies of other images,"
        " all of class moving"
    )
    assert said[-1] == "settings that fit: with dataset=trees image_size=12 channels=3"
    assert len(data.read_manifest("trees")["files"]) == 40
    assert data.verify("trees") == []


def test_every_file_that_cannot_be_used_is_named_in_one_pass(source, capsys):
    oak = source / "oak"
    (oak / "half.png").write_bytes((oak / "00.png").read_bytes()[:200])
    (oak / "none.jpg").write_bytes(b"")
    (oak / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    os.mkfifo(oak / "pipe.png")
    (oak / "endless.png").symlink_to("/dev/zero")
    Image.fromarray(np.full((4, 4), 4096, np.uint16)).save(oak / "deep.png")
    Image.new("1", (8193, 8193)).save(oak / "bomb.png")
    noise(1).save(oak / "pages.tif", save_all=True, append_images=[noise(2)])
    noise(1).save(oak / "moving.webp", save_all=True, append_images=[noise(2)])
    bad = ("half.png", "none.jpg", "script.png", "pipe.png", "endless.png", "deep.png", "pages.tif")
    with Image.open(oak / "01.png") as image:
        image.save(source / "elm/twin.bmp")
    assert split(source) == 1
    said = capsys.readouterr().err
    for name in (*bad, "moving.webp", "bomb.png", "script.png is not a BMP,"):
        assert f"{oak / name} " in said
    assert f"{oak / '01.png'} shows the same image as {source / 'elm/twin.bmp'}" in said
    assert not data.folder("trees").exists()


def convert(image, mode):
    if mode != "LAB":  # only a color management module makes it
        return image.convert(mode)
    profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
    return ImageCms.profileToProfile(image, *profiles, outputMode="LAB")


def test_every_mode_that_split_takes_can_be_trained_on(source):
    for number, mode in enumerate(("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB")):
        suffix = "tif" if mode in ("CMYK", "YCbCr", "LAB") else "png"
        convert(noise(number), mode).save(source / f"oak/{mode}.{suffix}")
    phone = source / "oak/phone.jpg"  # with a second, small image behind the first
    noise(8).save(phone, "MPO", save_all=True, append_images=[noise(9)])
    assert split(source) == 0
    for channels in (1, 3):
        for name in data.SPLITS:
            for image, _ in data.ImageSplit("trees", name, 8, channels):
                assert image.shape == (channels, 8, 8)


def test_names_that_differ_in_spelling_only_are_one_class_or_refused(source, capsys):
    for form in ("NFC", "NFD"):
        folder = source / unicodedata.normalize(form, "Kr\u00f6te")
        folder.mkdir()
        for number in range(3):
            noise(number, ord(form[2])).save(folder / f"{form}{number}.png")
    assert split(source) == 0
    assert data.read_manifest("trees")["classes"] == ["Kr\u00f6te", "elm", "oak"]
    (source / "oak/00.png").rename(source / "oak/A.png")
    (source / "oak/01.png").rename(source / "oak/a.png")
    (source / "oak/02.png").rename(source / "oak/what?.png")
    assert split(source, "again") == 1
    said = capsys.readouterr().err
    assert f"{source / 'oak/A.png'} and {source / 'oak/a.png'}" in said
    assert "what?.png" in said


def test_an_image_stays_in_its_split_when_others_are_added(source):
    assert split(source, "may") == 0
    before = data.map_pixels("may")
    noise(1000).save(source / "oak/one.png")
    assert split(source, "grown") == 0
    grown = data.map_pixels("grown")
    assert not [p for p in before if before[p] == "test" and grown[p] == "train"]
    for label in ("elm", "oak"):
        for number in range(30):
            noise(number, 2000 + ord(label[0])).save(source / label / f"new{number}.png")
    assert split(source, "june", "--like", "may") == 0
    june = data.map_pixels("june")
    assert {pixels: june[pixels] for pixels in before} == before
    counts = data.read_manifest("june")["counts"]
    assert counts["test"] == counts["val"] == {"elm": 10, "oak": 10}


def test_verify_finds_an_image_that_was_saved_once_more_in_another_split(source):
    assert split(source) == 0
    top = data.folder("trees")
    files = data.read_manifest("trees")["files"]
    train, test = (next(p for p in files if p.startswith(f"{n}/oak")) for n in ("train", "test"))
    leak = (top / test).with_name("again.tif")
    with Image.open(top / train) as image:
        image.save(leak)
    (line,) = [line for line in data.verify("trees") if line.startswith("leakage")]
    assert train in line and "again.tif" in line


def test_settings_that_lose_what_the_images_show_are_warned_of(source, digits, capsys):
    assert split(source) == 0
    for settings, warns in (((12, 3), False), ((8, 3), True), ((12, 1), True), ((32, 3), False)):
        capsys.readouterr()
        data.warn_of_lost_detail("trees", *settings)
        assert ("image_size=12 channels=3" in capsys.readouterr().err) is warns
    data.warn_of_lost_detail(digits, 8, 1)
    assert not capsys.readouterr().err
