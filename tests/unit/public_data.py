"""Small archives in the layouts of LVIS and PASCAL VOC, and what tests of downloads share."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gen4det.core.errors import InputError
from gen4det.data.images import encode_image
from gen4det.data.voc import CATEGORIES


def refusal(call, *args, **options) -> str:
    with pytest.raises(InputError) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = 0 if isinstance(content, tarfile.TarInfo) else len(content)
            archive.addfile(member, None if isinstance(content, tarfile.TarInfo) else io.BytesIO(content))
    return stream.getvalue()


def jpeg(seed: int) -> bytes:
    return encode_image(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8), "jpeg")


def lvis_file(images: list[str]) -> bytes:
    """LVIS v1: no file names, only URLs; the last annotation has no height, as real files happen to have."""
    polygon = [[2, 2, 12, 2, 12, 7, 2, 7]]
    data = {
        "images": [
            {"id": index, "coco_url": f"http://images.cocodataset.org/{name}", "width": 40, "height": 30,
             "neg_category_ids": [], "not_exhaustive_category_ids": []}
            for index, name in enumerate(images)
        ],
        "annotations": [
            {"id": index, "image_id": index, "category_id": 1, "bbox": [2, 2, 10, 5], "area": 50,
             "segmentation": polygon}
            for index in range(len(images))
        ],
        "categories": [{"id": 1, "name": "cup", "frequency": "r", "image_count": 2, "instance_count": 2}],
    }  # fmt: skip
    data["annotations"].append(data["annotations"][0] | {"id": 99, "bbox": [2, 2, 10, 0]})
    return json.dumps(data).encode()


VOC_XML = """<annotation><size><width>40</width><height>30</height><depth>3</depth></size>
<object><name>dog</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>
<object><name>person</name><difficult>1</difficult>
<bndbox><xmin>5.0</xmin><ymin>6</ymin><xmax>5</xmax><ymax>9</ymax></bndbox>
<part><name>head</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>5</xmax><ymax>6</ymax></bndbox></part></object>
</annotation>"""


def voc_archive(year: str, image_set: str, all_categories: bool) -> bytes:
    root = f"VOCdevkit/VOC{year}"
    members = {f"{root}/ImageSets/Main/{image_set}.txt": b"000001\n000007\n"}
    for name in ("000001", "000007"):
        text = VOC_XML
        if all_categories:
            dog = VOC_XML[VOC_XML.index("<object>") : VOC_XML.index("</object>") + len("</object>")]
            others = [dog.replace("dog", category) for category in CATEGORIES]
            text = text.replace("</annotation>", "".join(others) + "</annotation>")
        members[f"{root}/Annotations/{name}.xml"] = text.encode()
        members[f"{root}/JPEGImages/{name}.jpg"] = jpeg(int(year + name))
    return tarred(members)
