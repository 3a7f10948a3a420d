"""The split is explicit, repeatable and checked."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from lab.project import LabError

from {{ cookiecutter.__package }} import data, plots


def test_every_split_has_its_fraction_of_every_class(digits):
    counts = data.read_manifest(digits)["counts"]
    for label, in_train in counts["train"].items():
        of_class = sum(counts[split][label] for split in data.SPLITS)
        assert counts["val"][label] == counts["test"][label] == round(0.2 * of_class)
        assert in_train == of_class - 2 * counts["val"][label]


def test_the_same_seed_draws_the_same_split_and_another_seed_another_one():
    samples = data.load_digits()
    draw = [list(data.draw_split(samples, seed, 0.2, 0.2)) for seed in (0, 0, 1)]
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
        data.write_dataset(
            "none", "too few", data.load_digits()[:images], seed=0, val=val, test=test
        )
    assert not data.folder("none").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_damaged_manifest_is_named(digits, text):
    (data.folder(digits) / "manifest.json").write_text(text)
    with pytest.raises(LabError, match="manifest.json cannot be read"):
        data.verify(digits)


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
        f"leakage   the same content in {third} and train/0/copy.png",
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
    left = Image.fromarray(np.array([[255, 0], [255, 0]], np.uint8))
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    images = {"clear": (clear, b""), "turned": (left, orientation), "whole": (left, b"no EXIF")}
    samples = []
    for label, (image, exif) in images.items():
        content = io.BytesIO()
        image.save(content, "png", exif=exif)
        samples += [data.Sample(label, f"{number}.png", content.getvalue) for number in range(3)]
    data.write_dataset("shown", "made by hand", samples, seed=0, val=0.2, test=0.2)
    images = [image[0].tolist() for image, _ in data.ImageSplit("shown", "train", 2, channels=1)]
    assert images == [[[1, 1], [1, 1]], [[1, 1], [0, 0]], [[1, 0], [1, 0]]]
    drawn = [
        axis.images[0].get_array() for axis in plots.plot_samples("shown", "train", columns=1).axes
    ]
    assert [(pixels[..., 0] / 255).tolist() for pixels in drawn] == images


@pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
def test_no_name_of_a_dataset_leads_elsewhere(name):
    with pytest.raises(LabError, match="is not a valid name of a dataset"):
        data.folder(name)


def test_a_folder_of_class_folders_is_split_and_what_is_left_out_is_named(digits, folders, capsys):
    source = folders / "source"
    for split in data.SPLITS:
        shutil.copytree(data.folder(digits) / split, source, dirs_exist_ok=True)
    shutil.copy(next((source / "0").iterdir()), source / "0" / "copy.png")
    for name in ("0/labels", "0/notes.txt", "moving/1.gif", "moving/2.GIF"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).touch()
    assert data.main(["split", str(source), "--dataset", "mine"]) == 0
    assert capsys.readouterr().out.startswith(
        "left out: 2 .gif, 1 .txt, 1 without a suffix, 1 copies of other images,"
        " all of class moving\n"
    )
    assert len(data.read_manifest("mine")["files"]) == 300
    assert data.verify("mine") == []


def test_images_that_cannot_be_used_as_they_are_are_refused(tmp_path):
    place = tmp_path / "class"
    place.mkdir()
    (place / ".hidden.png").write_text("no image")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    Image.fromarray(pixels).save(place / "whole.jpg")
    (found,) = data.find_images(tmp_path)
    assert found.name == "whole.jpg"
    (place / "half.jpg").write_bytes((place / "whole.jpg").read_bytes()[:500])
    with pytest.raises(LabError, match=r"half.jpg is damaged"):
        data.find_images(tmp_path)
    (place / "half.jpg").write_bytes(b"")
    with pytest.raises(LabError, match=r"half.jpg is not an image:"):
        data.find_images(tmp_path)
    (place / "half.jpg").unlink()
    deep = place / "deep.png"
    Image.fromarray(pixels.astype(np.uint16) * 256).save(deep)
    with pytest.raises(LabError, match="more than 8 bits"):
        data.find_images(tmp_path)
    deep.unlink()
    (tmp_path / "other").mkdir()
    shutil.copy(place / "whole.jpg", tmp_path / "other" / "copy.jpg")
    with pytest.raises(LabError, match=r"copy.jpg are the same image in two classes"):
        data.find_images(tmp_path)
