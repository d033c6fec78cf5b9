"""A tokenizer of the book as what a page needs of it: ``static/tokenizer.js`` encodes and decodes with this."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from tokenizers import Tokenizer

from ..text import SPECIAL, train_bpe, train_characters


def tokenizer_data(tokenizer: Tokenizer) -> dict[str, Any]:
    """The vocabulary and the merges of a tokenizer, as few numbers and strings as it takes.

    A merge joins two tokens into one that the vocabulary has, so it is said by the length of the first.

    Args:
        tokenizer: as :func:`llmbook.text.train_bpe` or :func:`llmbook.text.train_characters` makes it.

    Returns:
        ``"vocab"``, the tokens in the order of their ids: :data:`llmbook.text.SPECIAL`, the 256 bytes, all others.
        ``"merges"``, for each of those others the length of the first of the two tokens that were joined, so in the
        order in which the merges were learnt. ``"characters"``, True if the others are characters; ``"merges"`` is
        empty then.

    Raises:
        ValueError: the tokenizer was made in another way, or two of its merges make the same token.
    """
    settings, vocab, merges = _parts(tokenizer)
    characters = settings["model"].get("byte_fallback", False)
    expected, first, _ = _parts((train_characters if characters else train_bpe)([], 261))
    other = [name for name in expected if settings[name] != expected[name]]
    if vocab[: len(first)] != first:
        other.append("vocab")
    if other:
        raise ValueError(f"tokenizer: expected one by train_bpe or train_characters, got another {' and '.join(other)}")
    if not characters and ["".join(merge) for merge in merges] != vocab[len(first) :]:
        raise ValueError("tokenizer: expected a token for each merge, in their order, got others")
    return {"vocab": vocab, "merges": [len(left) for left, _ in merges], "characters": characters}


def _parts(tokenizer: Tokenizer) -> tuple[dict[str, Any], list[str], list[list[str]]]:
    """Its settings, its tokens in the order of their ids, its merges."""
    settings = json.loads(tokenizer.to_str())
    ids, merges = settings["model"].pop("vocab"), settings["model"].pop("merges", [])
    return settings, sorted(ids, key=lambda token: ids[token]), merges


def label(tokenizer: Tokenizer, token_id: int) -> str:
    """A token for the eye: a blank as ``␣``, a newline as ``⏎``, a byte that is no character as ``‹E4›``.

    Raises:
        ValueError: there is no such token.
    """
    token = tokenizer.id_to_token(token_id)
    if token is None:
        raise ValueError(f"token_id: expected a number from 0 to {tokenizer.get_vocab_size() - 1}, got {token_id!r}")
    if token_id < len(SPECIAL):
        return token
    byte = re.fullmatch("<0x(..)>", token)
    if not tokenizer.model.byte_fallback:
        spelled = bytes(_BYTES[letter] for letter in token)
    else:
        spelled = bytes.fromhex(byte[1]) if byte else token.encode()
    return "".join(map(_visible, spelled.decode("utf8", "surrogateescape")))


def _visible(character: str) -> str:
    if unicodedata.category(character) not in ("Cc", "Cs"):
        return {" ": "␣"}.get(character, character)
    return "⏎" if character == "\n" else "".join(f"‹{x:02X}›" for x in character.encode("utf8", "surrogateescape"))


def _alphabet() -> dict[str, int]:
    """The byte of each letter of GPT-2's alphabet: its own if it can be seen; the others are from U+0100 on."""
    unseen = (x for x in range(256, 512))
    return {chr(x if re.match("[!-~¡-¬®-ÿ]", chr(x)) else next(unseen)): x for x in range(256)}


_BYTES = _alphabet()
