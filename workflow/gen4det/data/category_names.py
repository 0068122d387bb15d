"""Names of categories as data sets spell them: "traffic light", "traffic_light", "Traffic Light" are one."""

import re

VOC_WORDS = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""What PASCAL VOC calls otherwise than COCO; the other 14 of its categories have the same names."""


def same_word(name: str) -> str:
    """A name without what data sets write differently: capitals, _, - or blanks, and VOC's words."""
    plain = re.sub(r"[\s_-]+", " ", name.casefold()).strip()
    return VOC_WORDS.get(plain, plain)
