"""References of a methods paragraph: as BibTeX, and as a line to read."""

from collections.abc import Iterable, Mapping

from gen4det.evaluation.page_settings import Reference

OTHERS = "others"
"""Stands for authors that are not named, in BibTeX too."""
_SPECIAL = {"&": "\\&", "%": "\\%", "#": "\\#", "_": "\\_", "$": "\\$"}


def to_bibtex(references: Mapping[str, Reference], keys: Iterable[str]) -> str:
    """Entries of these keys, each once, in their order.

    Words of a title with capitals beyond their first letter keep them. Letters are UTF-8.
    """
    return "\n".join(_entry(key, references[key]) for key in dict.fromkeys(keys))


def _entry(key: str, it: Reference) -> str:
    kind = "article" if it.journal else "inproceedings" if it.booktitle else "misc"
    fields = {
        "title": " ".join(map(_protected, it.title.split())),
        "author": " and ".join(it.authors),
        "journal": it.journal,
        "booktitle": it.booktitle,
        "year": str(it.year),
        "eprint": it.arxiv,
        "archiveprefix": "arXiv" if it.arxiv else "",
        "url": it.url,
    }
    lines = [f"  {name} = {{{_escaped(name, text)}}}," for name, text in fields.items() if text]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"]) + "\n"


def _protected(word: str) -> str:
    return f"{{{word}}}" if any(letter.isupper() for letter in word[1:]) else word


def _escaped(name: str, text: str) -> str:
    return text if name == "url" else "".join(_SPECIAL.get(letter, letter) for letter in text)


def in_a_line(it: Reference) -> str:
    """E.g. "Gupta et al. LVIS: ... CVPR 2019. arXiv 1908.03195"."""
    surname = it.authors[0].rpartition(" ")[2]
    who = {1: surname, 2: f"{surname} and {it.authors[-1].rpartition(' ')[2]}"}.get(len(it.authors))
    if who is None or it.authors[-1] == OTHERS:
        who = f"{surname} et al."
    where = " ".join(filter(None, [it.journal or it.booktitle, str(it.year)]))
    return f"{who.removesuffix('.')}. {it.title}. {where}." + (f" arXiv {it.arxiv}." if it.arxiv else "")
