"""Which characters are letters, numbers and white space to the tokenizers of the book, as a file that a page can read.

python tools/unicode_classes.py       writes llmbook/widgets/static/unicode.js; a few seconds

Unicode grows, and each browser knows another edition of it: to one that is newer than `tokenizers`, more characters are
letters. So tokenizer.js does not ask the browser but this file, and this file has what the tokenizer itself does.
"""

import textwrap
from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

FILE = Path(__file__).parents[1] / "llmbook" / "widgets" / "static" / "unicode.js"
HEAD = f"""\
// Letters, numbers and white space as `tokenizers` {tokenizers.__version__} has them. Made by tools/unicode_classes.py.
// A class is a list of runs: how many code points are skipped before the run, and how many are in it, in base 36.
"""
CHARACTERS = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000)
KINDS = {"LETTERS": "a", "NUMBERS": "1", "SPACES": "\t"}  # and a character of each, which only its like stay with

_cut = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str


def classes() -> dict[str, set[int]]:
    """The code points that the pre-tokenizer takes for each of :data:`KINDS`, and, as ``""``, for none of them.

    It cuts all characters, in their order, where the kind changes; so it is enough to ask for one of each piece.
    """
    text = CHARACTERS.replace(" ", "")  # a blank would stay with what follows it
    found: dict[str, set[int]] = {name: set() for name in (*KINDS, "")}
    found[_kind(" ")].add(ord(" "))
    for _, (start, end) in _cut(text):
        found[_kind(text[start])].update(map(ord, text[start:end]))
    return found


def _kind(character: str) -> str:
    return next((name for name, like in KINDS.items() if len(_cut(f"{like}{character}")) == 1), "")


def stripped() -> set[int]:
    """The code points that a token with ``lstrip`` takes along if they stand to its left."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.add_special_tokens([AddedToken("[MASK]", special=True, normalized=False, lstrip=True)])
    texts = ["".join(f"{c}[MASK]" for c in CHARACTERS[i : i + 256]) for i in range(0, len(CHARACTERS), 256)]
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    lengths = [end - start for encoding in encoded for start, end in encoding.offsets]
    return {ord(c) for c, length in zip(CHARACTERS, lengths, strict=True) if length > len("[MASK]")}


def runs(points: Iterable[int]) -> str:
    """Numbers as runs of neighbours: how many are skipped, how many follow, and so on, in base 36."""
    edges: list[int] = []
    end = 0
    for point in sorted(points):
        if point > end or not edges:
            edges += [point - end, 0]
        edges[-1] += 1
        end = point + 1
    return " ".join(map(_base36, edges))


def _base36(n: int) -> str:
    return (_base36(n // 36) if n >= 36 else "") + "0123456789abcdefghijklmnopqrstuvwxyz"[n % 36]


def source() -> str:
    """The file.

    Raises:
        ValueError: there are two kinds of white space.
    """
    found, taken = classes(), stripped()
    if taken != found["SPACES"]:
        raise ValueError(f"expected a token to take along what is white space, not so: {taken ^ found['SPACES']}")
    lists = (f"export const {name} = `\n{textwrap.fill(runs(found[name]), 120)}\n`;\n" for name in KINDS)
    return HEAD + "".join(lists)


if __name__ == "__main__":
    FILE.write_text(source(), "utf8")
